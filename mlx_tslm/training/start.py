"""The model that a curriculum starts from, and the parts of it that a stage trains."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map, tree_map_with_path

from mlx_tslm import conversion
from mlx_tslm.conversion import hub, recipe, store
from mlx_tslm.conversion.base import open_base
from mlx_tslm.errors import TSLMError
from mlx_tslm.loading import build, load_folder, trained_model
from mlx_tslm.models import flamingo_text
from mlx_tslm.models import language_model as lm
from mlx_tslm.models.causal import CausalModel
from mlx_tslm.models.config import EncoderConfig, FlamingoConfig, LoraConfig, ModelConfig, has_dtype_of_llm
from mlx_tslm.models.tokenizer import read_tokenizer
from mlx_tslm.training.config import LORA_TARGETS, Curriculum, StageConfig


def start(curriculum: Curriculum) -> CausalModel:
    """Load the model to start from; a base LLM gets fresh parts of the curriculum's variant.

    Raises:
        TSLMError: there is none, or it is quantized.
    """
    mx.random.seed(curriculum.seed)
    folder = converted_folder(curriculum.model)
    model = _converted(folder) if folder else _fresh(hub.fetch_base(curriculum.model).path, curriculum)
    dtype = getattr(mx, curriculum.dtype) if curriculum.dtype else model.dtype
    if curriculum.dtype is None and curriculum.on_table and mx.default_device() == mx.cpu:
        dtype = mx.float32  # MLX's bfloat16 is tens of times slower on a CPU; it is stored in its own dtype
    model.update(
        tree_map_with_path(
            lambda name, array: array.astype(dtype) if has_dtype_of_llm(name) else array, model.parameters()
        )
    )
    if curriculum.leads:
        model.config.leads = list(curriculum.leads)
    return model


def converted_folder(name: str) -> Path | None:
    """The converted model of a name, converted first if it has to be; None of a base LLM.

    Raises:
        TSLMError: it cannot be converted.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        path = trained_model(path)
        return path if store.read_config(path) is not None else None
    if recipe.is_known(name) or any(model.name == name for model in store.converted()):
        return conversion.ensure_converted(name)
    return None


def _converted(path: Path) -> CausalModel:
    """A converted model; adapters that are fused into its LLM are part of that from now on."""
    model = load_folder(path)
    if model.config.quantization:
        raise TSLMError(f"{path} is quantized; train one that is not, and quantize it then")
    if model.config.lora is not None and model.config.lora.fused:
        model.config.lora = None
    return model


def _fresh(path: Path, curriculum: Curriculum) -> CausalModel:
    """Weights as PyTorch draws them: OpenTSLM sets none of its own."""
    base = open_base(path, curriculum.model)
    tokenizer = read_tokenizer(path, base.config)
    config = ModelConfig(base.config, EncoderConfig(max_patches=curriculum.max_patches))
    if curriculum.variant == "flamingo":
        flamingo_text.add_special_tokens(tokenizer._tokenizer)
        encoder = EncoderConfig(max_patches=curriculum.max_patches, num_hidden_layers=0)
        llm = base.config | {"vocab_size": len(tokenizer._tokenizer)}
        if curriculum.dtype:  # its embeddings are trained, and so are stored as they are
            llm["dtype" if "dtype" in llm else "torch_dtype"] = curriculum.dtype
        config = FlamingoConfig(llm, encoder)
    model = build(config, tokenizer)
    weights, table = base.weights(), "model.embed_tokens.weight"
    weights[table] = _more_rows(weights[table], model.language_model.args.vocab_size)
    model.language_model.load_weights(list(weights.items()))
    model.know_tokens()
    model.encoder.pos_embed = mx.random.normal(model.encoder.pos_embed.shape)
    for layer in model.encoder.layers:
        attention = layer.self_attn
        bound = (6 / sum(attention.in_proj.weight.shape)) ** 0.5  # Xavier
        attention.in_proj.weight = mx.random.uniform(-bound, bound, attention.in_proj.weight.shape)
        attention.in_proj.bias = mx.zeros_like(attention.in_proj.bias)
        attention.out_proj.bias = mx.zeros_like(attention.out_proj.bias)
    return model


def _more_rows(table: mx.array, rows: int) -> mx.array:
    """An embedding table of another length; new rows are the mean of the old ones, as transformers has it."""
    if rows == len(table):
        return table
    mean = table.astype(mx.float32).mean(axis=0).astype(table.dtype)
    new = mx.broadcast_to(mean, (max(0, rows - len(table)), table.shape[1]))
    return mx.concatenate([table[:rows], new])


def prepare(model: CausalModel, stage: StageConfig) -> None:
    """Put on adapters where the stage wants them, freeze what it does not train, and make float32 what it does.

    In bfloat16 a weight of 1 takes no step below 0.004: most steps of most weights would be lost.
    """
    if stage.lora and not model.takes_adapters:
        raise TSLMError(f"{stage.name}: lora is set, but OpenTSLM's Flamingo models have no adapters; leave it out")
    if stage.lora and model.config.lora is None:
        model.config.lora = LoraConfig(stage.lora_rank, stage.lora_alpha, list(LORA_TARGETS), fused=False)
        lm.adapt(model.language_model, model.config.lora, lambda name: name.rpartition(".")[2] in LORA_TARGETS)
    if stage.trains_language_model and model.config.lora is not None:
        raise TSLMError(f"{stage.name}: lr_llm trains the LLM itself, but it has adapters already; set lr_llm to 0")
    model.train()
    model.freeze()
    for part in model.parts:
        for name, module in model.named_modules() if getattr(stage, part.rate) else ():
            if f"{name}.".startswith(part.prefix):
                module.unfreeze(recurse=False, keys=list(part.keys) or None, strict=False)
    trained = flat(model.trainable_parameters())
    if not trained:
        raise TSLMError(f"{stage.name}: all learning rates are 0: nothing to train")
    model.load_weights([(name, array.astype(mx.float32)) for name, array in trained.items()], strict=False)


def round_base(model: nn.Module, dtype: str) -> None:
    """Round an LLM's weights to the dtype it is going to be stored in; their own dtype stays."""
    stored = getattr(mx, dtype)
    model.update(tree_map(lambda array: array.astype(stored).astype(array.dtype), model.parameters()))


def flat(tree: Any) -> dict[str, mx.array]:
    """A tree's arrays by their dotted names."""
    return dict(tree_flatten(tree))
