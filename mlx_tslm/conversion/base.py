"""The base LLM: a Hugging Face folder, read through mlx-lm's model classes."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_tslm.errors import TSLMError
from mlx_tslm.models import language_model, text_config
from mlx_tslm.models.weights import read_weights, same
from mlx_tslm.schema import shown

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja",
)  # fmt: skip
OTHER_FILES = ("generation_config.json", "LICENSE*", "USE_POLICY*", "NOTICE*")
_WRAPPER = re.compile(r"^(?:model\.language_model\.|language_model\.model\.)")
_HEAD, _EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"
_NOT_TEXT = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")


@dataclass(frozen=True, eq=False)
class BaseLLM:
    """A base LLM's folder. `linears` maps the names of its linear layers to `(out, in)`."""

    folder: Path
    name: str
    revision: str | None
    config: dict[str, Any]
    linears: dict[str, tuple[int, int]]

    @property
    def hidden_size(self) -> int:
        """The width of its embeddings."""
        return int(self.config["hidden_size"])

    def files(self, *patterns: str) -> list[Path]:
        """The folder's files of these names."""
        return sorted(path for pattern in patterns for path in self.folder.glob(pattern) if path.is_file())

    def weights(self) -> dict[str, mx.array]:
        """All parameters under mlx-lm's names, lazy: each is read from disk when it is first evaluated.

        Raises:
            TSLMError: a parameter is missing, unexpected or of the wrong shape (named).
        """
        weights = _stored(self.folder)
        if self.config["tie_word_embeddings"]:
            weights.pop(_HEAD, None)
        model = language_model.build(self.config)
        parameters = cast(list[tuple[str, mx.array]], tree_flatten(model.parameters()))
        shapes = {name: array.shape for name, array in parameters}
        for name, shape in shapes.items():
            if name not in weights:
                raise TSLMError(
                    f"base LLM {self.name}: the tensor {name} is missing in its safetensors files, though its "
                    "config.json wants it"
                )
            if weights[name].shape != shape:
                raise TSLMError(
                    f"base LLM {self.name}: {name} has shape {list(weights[name].shape)}, "
                    f"but its config.json says {list(shape)}"
                )
            if not mx.issubdtype(weights[name].dtype, mx.floating):
                raise TSLMError(
                    f"base LLM {self.name}: {name} in its safetensors files is of {weights[name].dtype}, not of "
                    "floating point"
                )
        if unexpected := next((name for name in weights if name not in shapes), None):
            raise TSLMError(
                f"base LLM {self.name}: there is an unexpected tensor, {unexpected[:200]}, in its safetensors "
                "files; its config.json has no place for it"
            )
        return {name: weights[name] for name in shapes}


def open_base(folder: Path, name: str, revision: str | None = None, weights: bool = True) -> BaseLLM:
    """Open a base LLM's folder, which may do without `weights` where they are not asked for.

    Whether its head is tied to the embeddings is decided by what is stored; without weights, by its config.

    Raises:
        TSLMError: a file is missing or damaged, or its config says what is not supported (named).
    """
    try:
        return _open(folder, name, revision, weights)
    except TSLMError as error:
        said = str(error)
        raise TSLMError(said if said.startswith("base LLM") else f"base LLM {name}: {said}") from None


def _open(folder: Path, name: str, revision: str | None, weights: bool) -> BaseLLM:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except FileNotFoundError:
        raise TSLMError(f"there is no config.json in {folder}; give a Hugging Face folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise TSLMError(f"config.json cannot be read ({shown(str(error), 100)})") from None
    if not isinstance(config, dict):
        raise TSLMError("config.json is not an object")
    if config.get("quantization") or config.get("quantization_config"):
        raise TSLMError(f"base LLM {name} is quantized already; give the original, and -q if you like")
    try:
        text_config.read(config)
    except TSLMError as error:
        raise TSLMError(f"config.json: {error}") from None
    if not any((folder / file).exists() for file in ("tokenizer.json", "tokenizer.model")):
        raise TSLMError(f"there is no tokenizer (tokenizer.json) in {folder}")
    config["tie_word_embeddings"] = _is_tied(config, _stored(folder) if weights else {})
    linears = {
        path: cast(tuple[int, int], module.weight.shape)
        for path, module in language_model.build(config).named_modules()
        if isinstance(module, nn.Linear)
    }
    return BaseLLM(folder, name, revision, config, linears)


def _stored(folder: Path) -> dict[str, mx.array]:
    """What lies in the files, lazy and under mlx-lm's names, without what is no part of a text model."""
    return {
        _WRAPPER.sub("model.", name.removeprefix("language_model.") if name.endswith(_HEAD) else name): array
        for name, array in read_weights(folder).items()
        if not name.startswith(_NOT_TEXT) and not name.endswith("self_attn.rotary_emb.inv_freq")
    }


def _is_tied(config: dict[str, Any], stored: dict[str, mx.array]) -> bool:
    if _HEAD not in stored:
        return config.get("tie_word_embeddings") is not False
    copied = _EMBEDDINGS in stored and same(stored, _HEAD, _EMBEDDINGS)
    return copied and config.get("tie_word_embeddings") is not False
