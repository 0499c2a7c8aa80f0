"""The tokenizer of a folder, a base LLM's or a converted model's."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlx_tslm.errors import TSLMError
from mlx_tslm.models.text_config import TokenIds
from mlx_tslm.schema import shown, validate


@dataclass(frozen=True)
class AddedToken:
    """A token with properties of its own, of which only the text matters here."""

    content: str


_Token = str | AddedToken | None


@dataclass(frozen=True)
class Settings:
    """What a `tokenizer_config.json` may say, as far as a say of its has an effect here."""

    tokenizer_class: str | None = None
    model_max_length: float | None = None
    padding_side: Literal["left", "right"] | None = None
    truncation_side: Literal["left", "right"] | None = None
    clean_up_tokenization_spaces: bool | None = None
    add_bos_token: bool | None = None
    add_eos_token: bool | None = None
    bos_token: _Token = None
    eos_token: _Token = None
    pad_token: _Token = None
    unk_token: _Token = None
    added_tokens_decoder: dict[str, AddedToken] | None = None
    extra_special_tokens: list[_Token] | dict[str, _Token] | None = None
    additional_special_tokens: list[_Token] | None = None
    chat_template: str | list[dict[str, Any]] | dict[str, str] | None = None


def read_tokenizer(path: Path, config: dict[str, Any]) -> Any:
    """The tokenizer of a folder, wrapped by mlx-lm, with the end tokens that the base LLM names.

    These are `generation_config.json`'s, or where it names none `config`'s, and the tokenizer's own. Special
    tokens that no tokenizer_config.json names are those of `config`. Code in the folder is never run, whatever
    its files ask for.

    Raises:
        TSLMError: its files are missing or damaged (says which, and which field), or need code of the folder's own.
    """
    from mlx_lm.tokenizer_utils import load
    from transformers.utils import logging

    logging.set_verbosity_error()  # transformers does not know our model_type, and says so at length
    stated = generation_config(path).get("eos_token_id")
    validate(TokenIds, stated, f"{path}/generation_config.json: eos_token_id")
    ends = _token_ids(stated) or _token_ids(config.get("eos_token_id"))
    validate(Settings, _object(path / "tokenizer_config.json"), f"{path}/tokenizer_config.json")
    _object(path / "special_tokens_map.json")
    try:
        # Without this, transformers asks on the terminal whether to import what `auto_map` names.
        tokenizer = load(path, {"trust_remote_code": False}, eos_token_ids=ends or None)
        inner = tokenizer._tokenizer
        for name in ("bos", "eos", "pad"):
            ids = _token_ids(config.get(f"{name}_token_id"))
            if getattr(inner, f"{name}_token") is None and ids and (token := inner.convert_ids_to_tokens(ids[0])):
                setattr(inner, f"{name}_token", token)
        tokenizer.encode("A first try, that it works: 1.0")
        tokenizer.get_vocab()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # of whatever kind, a Rust panic too: the files are a stranger's
        why = " ".join(str(error).split()) or type(error).__name__
        if "trust_remote_code" in why:
            why = "it asks for Python code of its own (auto_map), which is never run"
        raise TSLMError(
            f"{path}: the tokenizer cannot be read ({_culprit(path)}{why[:200]}); give a folder with tokenizer.json"
        ) from None
    return tokenizer


def _object(file: Path) -> dict[str, Any]:
    """What a JSON file says; {} where there is none."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise TSLMError(f"{file} cannot be read ({shown(str(error), 100)}); fetch it again") from None
    if not isinstance(content, dict):
        raise TSLMError(f"{file} is not an object; fetch it again")
    return content


def _culprit(path: Path) -> str:
    """Which part of a `tokenizer.json` that cannot be read is at fault: the one without which it can."""
    from tokenizers import Tokenizer

    def reads(content: Any) -> bool:
        try:
            Tokenizer.from_str(json.dumps(content))
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException:
            return False
        return True

    try:
        content = json.loads((path / "tokenizer.json").read_text("utf-8"))
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, RecursionError):
        return "tokenizer.json: "
    if reads(content):
        return "tokenizer_config.json or config.json: "
    if not isinstance(content, dict):
        return "tokenizer.json: "
    for key in content:
        if key != "model" and any(map(reads, _without(content, key))):
            return f"tokenizer.json: {key[:80]}: "
    model = content.get("model")
    if not isinstance(model, dict):
        return "tokenizer.json: model: "
    for key in model:
        if any(reads(content | {"model": other}) for other in _without(model, key)):
            return f"tokenizer.json: model.{key[:80]}: "
    return "tokenizer.json: model: "


def _without(content: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    yield {one: value for one, value in content.items() if one != key}
    yield content | {key: None}
    yield content | {key: []}


def generation_config(path: Path) -> dict[str, Any]:
    """What a folder's `generation_config.json` says; {} where it has none.

    Raises:
        TSLMError: the file is damaged.
    """
    file = path / "generation_config.json"
    try:
        content = json.loads(file.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not an object")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise TSLMError(f"{file} cannot be used ({error}); mend it or remove it") from None
    return content


def _token_ids(value: int | list[int] | None) -> list[int]:
    return [value] if isinstance(value, int) else list(value or ())
