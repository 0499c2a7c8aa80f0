"""From a name to a model in memory."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

import mlx.core as mx
import mlx.nn as nn

from mlx_tslm.errors import TSLMError
from mlx_tslm.models import language_model as lm
from mlx_tslm.models.base import BaseModel
from mlx_tslm.models.causal import CausalModel
from mlx_tslm.models.config import FlamingoConfig, ModelConfig
from mlx_tslm.models.flamingo import FlamingoModel
from mlx_tslm.models.soft_prompt import SoftPromptModel

if TYPE_CHECKING:
    from mlx_tslm.stages import Stage


BACKENDS = ("mlx", "torch", "torch-uncached")
"""What computes: MLX; PyTorch, one answer at a time; PyTorch, the whole prompt again for every token."""


@overload
def load(source: str | Path) -> CausalModel: ...
@overload
def load(source: str | Path, backend: str, dtype: str | None = None) -> BaseModel: ...


def load(source: str | Path, backend: str = "mlx", dtype: str | None = None) -> BaseModel:
    """Load a model.

    Args:
        source: a converted folder; or anything that `mlx-tslm convert` takes ("demo", "stage5",
            "OpenTSLM/llama-3.2-1b-ecg-sp", a recipe), which is converted on first use into the cache.
        backend: of `BACKENDS`.
        dtype: of the LLM in PyTorch, such as "float32"; that of the folder where None. MLX takes the folder's.

    Returns:
        The model, with `.tokenizer` and `.stage`. MLX reads its weights lazily.

    Raises:
        TSLMError: there is no such model or backend, PyTorch is not installed, or the folder is no converted one.
    """
    if backend not in BACKENDS:
        raise TSLMError(f"unknown backend {backend!r}; choose from {', '.join(BACKENDS)}")
    if backend != "mlx":
        from mlx_tslm import torch_backend  # first: it may not be installed, and converting takes long
    path = Path(source)
    if not path.is_dir():
        from mlx_tslm import conversion

        path = conversion.ensure_converted(str(source))
    if backend == "mlx":
        return load_folder(path)
    config, tokenizer, stage, files = _read_folder(path)
    weights = torch_backend.read_weights(files)
    model_class = torch_backend.model_class(config)
    return model_class(config, tokenizer, stage, weights, dtype, cached=backend == "torch")


load_pretrained = load


def load_folder(path: Path) -> CausalModel:
    """Load a converted folder: `config.json`, `model*.safetensors` and the tokenizer's files.

    Raises:
        TSLMError: a file is missing or does not fit the others (says which).
    """
    config, tokenizer, stage, files = _read_folder(path)
    model = build(config, tokenizer, stage)
    weights: dict[str, mx.array] = {}
    for file in files:
        weights |= cast(dict[str, mx.array], mx.load(str(file)))
    _shape_like(model, config, weights)
    try:
        model.load_weights(list(weights.items()), strict=True)
    except ValueError as error:
        first = str(error).strip().splitlines()[0]
        raise TSLMError(
            f"{path}: the weights do not fit config.json ({first}); convert the checkpoint again"
        ) from None
    model.eval()
    return model


def build(config: ModelConfig, tokenizer: Any, stage: "Stage | None" = None) -> CausalModel:
    """The model that a config describes, with fresh weights."""
    if isinstance(config, FlamingoConfig):
        return FlamingoModel(config, tokenizer, stage)
    return SoftPromptModel(config, tokenizer, stage)


def _read_folder(path: Path) -> "tuple[ModelConfig, Any, Stage | None, list[Path]]":
    """The configuration, the tokenizer, the stage, and the files of the weights."""
    from transformers.utils import logging

    from mlx_tslm import stages

    try:
        raw = json.loads((path / "config.json").read_text())
        config = ModelConfig.read(raw)
    except (OSError, json.JSONDecodeError, TypeError) as error:
        raise TSLMError(f"{path} is not a converted model ({error}); make one with `mlx-tslm convert`") from None
    files = sorted(path.glob("model*.safetensors"))
    if not files:
        raise TSLMError(f"{path} has no model*.safetensors; convert the checkpoint again")
    logging.set_verbosity_error()  # transformers does not know our model_type, and says so at length
    tokenizer = read_tokenizer(path, config.text_config)
    return config, tokenizer, stages.get(config.stage, config.leads) if config.stage else None, files


def read_tokenizer(path: Path, text_config: dict[str, Any]) -> Any:
    """The tokenizer of a folder, wrapped by mlx-lm, with the end tokens that the base LLM's config names.

    Code in the folder is never run, whatever its files ask for.

    Raises:
        TSLMError: its files are missing or damaged, or need code of the folder's own.
    """
    from mlx_lm.tokenizer_utils import load

    eos = text_config.get("eos_token_id")
    try:
        # Without this, transformers asks on the terminal whether to import what `auto_map` names.
        return load(path, {"trust_remote_code": False}, eos_token_ids=[eos] if isinstance(eos, int) else eos)
    except Exception as error:  # of whatever kind: the files are a stranger's
        why = " ".join(str(error).split()) or type(error).__name__
        if "trust_remote_code" in why:
            why = "it asks for Python code of its own (auto_map), which is never run"
        raise TSLMError(
            f"{path}: the tokenizer cannot be read ({why[:200]}); give a folder with tokenizer.json"
        ) from None


def _shape_like(model: CausalModel, config: ModelConfig, weights: dict[str, Any]) -> None:
    """Give the model the quantized and LoRA layers, and the missing head, that `weights` has."""
    language_model = model.language_model
    if "language_model.lm_head.weight" not in weights and "lm_head" in language_model:
        language_model.sanitize({})  # Gemma 3 decides by the weights whether its head is tied
    if config.quantization:
        nn.quantize(
            model,
            group_size=config.quantization["group_size"],
            bits=config.quantization["bits"],
            class_predicate=lambda name, _: f"{name}.scales" in weights or f"{name}.linear.scales" in weights,
        )
    if config.lora is not None and not config.lora.fused:
        lm.adapt(language_model, config.lora, lambda name: f"language_model.{name}.lora_a" in weights)
