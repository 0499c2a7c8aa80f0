"""The tokenizer of a folder, a base LLM's or a converted model's."""

import json
from pathlib import Path
from typing import Any

from mlx_tslm.errors import TSLMError
from mlx_tslm.models.text_config import TokenIds
from mlx_tslm.schema import validate


def read_tokenizer(path: Path, config: dict[str, Any]) -> Any:
    """The tokenizer of a folder, wrapped by mlx-lm, with the end tokens that the base LLM names.

    These are `generation_config.json`'s, or where it names none `config`'s, and the tokenizer's own. Special
    tokens that no tokenizer_config.json names are those of `config`. Code in the folder is never run, whatever
    its files ask for.

    Raises:
        TSLMError: its files are missing or damaged, or need code of the folder's own.
    """
    from mlx_lm.tokenizer_utils import load

    stated = generation_config(path).get("eos_token_id")
    validate(TokenIds, stated, f"{path}/generation_config.json: eos_token_id")
    ends = _token_ids(stated) or _token_ids(config.get("eos_token_id"))
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
            f"{path}: the tokenizer cannot be read ({why[:200]}); give a folder with tokenizer.json"
        ) from None
    return tokenizer


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
