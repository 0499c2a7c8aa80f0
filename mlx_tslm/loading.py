"""From a name to a model in memory."""

import json
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from mlx_tslm.errors import TSLMError
from mlx_tslm.models.config import ModelConfig
from mlx_tslm.models.soft_prompt import SoftPromptModel


def load(source: str | Path) -> SoftPromptModel:
    """Load a model.

    Args:
        source: a converted folder; or anything that `mlx-tslm convert` takes ("demo", "stage5",
            "OpenTSLM/llama-3.2-1b-ecg-sp", a recipe), which is converted on first use into the cache.

    Returns:
        The model, its weights read lazily, with `.tokenizer` and `.stage`.

    Raises:
        TSLMError: there is no such model, or the folder is not a converted one.
    """
    path = Path(source)
    if path.is_dir():
        return load_folder(path)
    from mlx_tslm import conversion

    return load_folder(conversion.ensure_converted(str(source)))


load_pretrained = load


def load_folder(path: Path) -> SoftPromptModel:
    """Load a converted folder: `config.json`, `model*.safetensors` and the tokenizer's files.

    Raises:
        TSLMError: a file is missing or does not fit the others (says which).
    """
    from mlx_lm.tokenizer_utils import load as load_tokenizer
    from transformers.utils import logging

    from mlx_tslm import stages

    try:
        raw = json.loads((path / "config.json").read_text())
        config = ModelConfig.from_dict(raw)
    except (OSError, json.JSONDecodeError, TypeError) as error:
        raise TSLMError(f"{path} is not a converted model ({error}); make one with `mlx-tslm convert`") from None
    files = sorted(path.glob("model*.safetensors"))
    if not files:
        raise TSLMError(f"{path} has no model*.safetensors; convert the checkpoint again")
    eos = config.text_config.get("eos_token_id")
    logging.set_verbosity_error()  # transformers does not know our model_type, and says so at length
    tokenizer = load_tokenizer(path, eos_token_ids=[eos] if isinstance(eos, int) else eos)
    stage = stages.get(config.stage) if config.stage else None
    model = SoftPromptModel(config, tokenizer, stage)
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


def _shape_like(model: SoftPromptModel, config: ModelConfig, weights: dict[str, Any]) -> None:
    """Give the language model the quantized and LoRA layers, and the missing head, that `weights` has."""
    language_model = model.language_model
    if "language_model.lm_head.weight" not in weights and "lm_head" in language_model:
        language_model.sanitize({})  # Gemma 3 decides by the weights whether its head is tied
    if config.quantization:
        nn.quantize(
            language_model,
            group_size=config.quantization["group_size"],
            bits=config.quantization["bits"],
            class_predicate=lambda name, _: (
                f"language_model.{name}.scales" in weights or f"language_model.{name}.linear.scales" in weights
            ),
        )
    if config.lora is not None and not config.lora.fused:
        from mlx_lm.tuner.lora import LoRALinear

        adapted = [
            (name, LoRALinear.from_base(module, r=config.lora.rank, scale=config.lora.scale))
            for name, module in language_model.named_modules()
            if f"language_model.{name}.lora_a" in weights
        ]
        language_model.update_modules(tree_unflatten(adapted))
