"""The model that a curriculum starts from, and the parts of it that a stage trains."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map, tree_map_with_path

from mlx_tslm.conversion import hub, store
from mlx_tslm.conversion.base import open_base
from mlx_tslm.errors import TSLMError
from mlx_tslm.loading import load_folder, read_tokenizer
from mlx_tslm.models import language_model as lm
from mlx_tslm.models.config import EncoderConfig, LoraConfig, ModelConfig
from mlx_tslm.models.soft_prompt import SoftPromptModel
from mlx_tslm.training.config import LORA_TARGETS, Curriculum, StageConfig


def start(curriculum: Curriculum) -> SoftPromptModel:
    """Load the model to start from; a base LLM gets a fresh encoder and projector.

    Raises:
        TSLMError: there is none, it is quantized, or its adapters are fused.
    """
    mx.random.seed(curriculum.seed)
    path = hub.fetch_base(curriculum.model).path
    model = _converted(path) if store.read_config(path) is not None else _fresh(path, curriculum)
    if curriculum.dtype:
        dtype = getattr(mx, curriculum.dtype)
        weights = tree_map_with_path(
            lambda name, array: array if name.endswith(("lora_a", "lora_b")) else array.astype(dtype),
            model.language_model.parameters(),
        )
        model.language_model.update(weights)
    if curriculum.leads:
        model.config.leads = list(curriculum.leads)
    return model


def _converted(path: Path) -> SoftPromptModel:
    model = load_folder(path)
    if model.config.quantization:
        raise TSLMError(f"{path} is quantized; train one that is not, and quantize it then")
    if model.config.lora is not None and model.config.lora.fused:
        raise TSLMError(
            f"the adapters of {path} are fused into its weights; convert it with --no-fuse to train it on"
        )
    return model


def _fresh(path: Path, curriculum: Curriculum) -> SoftPromptModel:
    """Weights as PyTorch draws them: OpenTSLM sets none of its own."""
    base = open_base(path, curriculum.model)
    tokenizer = read_tokenizer(path, base.config)
    encoder = EncoderConfig(max_patches=curriculum.max_patches)
    model = SoftPromptModel(ModelConfig(base.config, encoder), tokenizer)
    model.know_tokens()
    if base.config["tie_word_embeddings"] and "lm_head" in model.language_model:
        model.language_model.sanitize({})
    model.language_model.load_weights(list(base.weights().items()))
    model.encoder.pos_embed = mx.random.normal(model.encoder.pos_embed.shape)
    for layer in model.encoder.layers:
        attention = layer.self_attn
        bound = (6 / sum(attention.in_proj.weight.shape)) ** 0.5  # Xavier
        attention.in_proj.weight = mx.random.uniform(-bound, bound, attention.in_proj.weight.shape)
        attention.in_proj.bias = mx.zeros_like(attention.in_proj.bias)
        attention.out_proj.bias = mx.zeros_like(attention.out_proj.bias)
    return model


def prepare(model: SoftPromptModel, stage: StageConfig) -> None:
    """Put on adapters where the stage wants them, and freeze what it does not train."""
    if stage.lora and model.config.lora is None:
        model.config.lora = LoraConfig(stage.lora_rank, stage.lora_alpha, list(LORA_TARGETS), fused=False)
        lm.adapt(model.language_model, model.config.lora, lambda name: name.rpartition(".")[2] in LORA_TARGETS)
    if stage.trains_language_model and model.config.lora is not None:
        raise TSLMError(f"{stage.name}: lr_llm trains the LLM itself, but it has adapters already; set lr_llm to 0")
    model.train()
    model.freeze()
    if stage.lr_encoder:
        model.encoder.unfreeze()
    if stage.lr_projector:
        model.projector.unfreeze()
    if stage.lr_lora:
        model.language_model.unfreeze(keys=["lora_a", "lora_b"], strict=False)
    if stage.trains_language_model:
        model.language_model.unfreeze()
    if not flat(model.trainable_parameters()):
        raise TSLMError(f"{stage.name}: all learning rates are 0: nothing to train")


def round_base(model: nn.Module, dtype: str) -> None:
    """Round an LLM's weights to the dtype it is going to be stored in; their own dtype stays."""
    stored = getattr(mx, dtype)
    model.update(tree_map(lambda array: array.astype(stored).astype(array.dtype), model.parameters()))


def flat(tree: Any) -> dict[str, mx.array]:
    """A tree's arrays by their dotted names."""
    return dict(tree_flatten(tree))
