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
from mlx_tslm.models import language_model

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja",
)  # fmt: skip
OTHER_FILES = ("generation_config.json", "LICENSE*", "USE_POLICY*", "NOTICE*")
_WRAPPER = re.compile(r"^(?:model\.language_model\.|language_model\.model\.)")
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
            TSLMError: a file or a parameter is missing, damaged or of the wrong shape (named).
        """
        raw: dict[str, mx.array] = {}
        for path in _weight_files(self.folder):
            try:
                raw |= cast(dict[str, mx.array], mx.load(str(path)))
            except (RuntimeError, ValueError):
                raise TSLMError(
                    f"base LLM {self.name}: {path.name} is damaged or truncated; fetch it again"
                ) from None
        raw = {_WRAPPER.sub("model.", name): value for name, value in raw.items() if not name.startswith(_NOT_TEXT)}
        model = language_model.build(self.config)
        weights = model.sanitize(raw)
        parameters = cast(list[tuple[str, mx.array]], tree_flatten(model.parameters()))
        shapes = {name: array.shape for name, array in parameters}
        for name, shape in shapes.items():
            if name not in weights:
                raise TSLMError(f"base LLM {self.name}: the tensor {name} is missing")
            if weights[name].shape != shape:
                raise TSLMError(
                    f"base LLM {self.name}: {name} has shape {list(weights[name].shape)}, "
                    f"but its config.json says {list(shape)}"
                )
        if unexpected := next((name for name in weights if name not in shapes), None):
            raise TSLMError(f"base LLM {self.name}: there is an unexpected tensor, {unexpected}")
        return {name: weights[name] for name in shapes}


def open_base(folder: Path, name: str, revision: str | None = None, weights: bool = True) -> BaseLLM:
    """Open a base LLM's folder, which may do without `weights` where they are not asked for.

    Raises:
        TSLMError: a file is missing, or the model is of a kind that is not supported.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        raise TSLMError(
            f"base LLM {name}: there is no config.json in {folder}; give a Hugging Face folder"
        ) from None
    except (OSError, ValueError) as error:
        raise TSLMError(f"base LLM {name}: config.json cannot be read ({error})") from None
    if not isinstance(config, dict):
        raise TSLMError(f"base LLM {name}: config.json is not an object")
    if "quantization" in config or "quantization_config" in config:
        raise TSLMError(f"base LLM {name} is quantized already; give the original, and --quantize if you like")
    if not any((folder / file).exists() for file in ("tokenizer.json", "tokenizer.model")):
        raise TSLMError(f"base LLM {name}: there is no tokenizer (tokenizer.json) in {folder}")
    if weights:
        _weight_files(folder)
    try:
        model = language_model.build(config)
    except (TypeError, KeyError) as error:
        raise TSLMError(f"base LLM {name}: config.json lacks something ({error})") from None
    linears = {
        path: cast(tuple[int, int], module.weight.shape)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }
    return BaseLLM(folder, name, revision, config, linears)


def _weight_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("model*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if index.exists():
        needed = set(json.loads(index.read_text())["weight_map"].values())
        if missing := sorted(needed - {path.name for path in files}):
            raise TSLMError(f"base LLM: {missing[0]} is missing in {folder}; fetch the rest of it")
    if not files:
        raise TSLMError(f"base LLM: there is no model*.safetensors in {folder}")
    return files
