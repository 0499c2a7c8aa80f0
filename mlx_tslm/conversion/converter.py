"""The conversion, from a source's name to a folder that `mlx_tslm.load` reads."""

import resource
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import mlx.core as mx

from mlx_tslm.conversion import hub, store, writer
from mlx_tslm.conversion import recipe as recipes
from mlx_tslm.conversion.base import OTHER_FILES, TOKENIZER_FILES, BaseLLM, open_base
from mlx_tslm.conversion.card import model_card
from mlx_tslm.conversion.checkpoint import Checkpoint, open_checkpoint
from mlx_tslm.conversion.plan import Quantization, Target, plan
from mlx_tslm.conversion.verify import Comparison
from mlx_tslm.conversion.verify import verify as compare
from mlx_tslm.errors import TSLMError
from mlx_tslm.models.config import DTYPES, LoraConfig, ModelConfig


@dataclass(frozen=True)
class ConversionSummary:
    """What a conversion did.

    Args:
        path: the converted folder.
        source: what was converted, and `base` the LLM it was joined with.
        parameters: their number in each part: encoder, projector, language_model, and lora (fused ones included
            in neither).
        source_size: bytes of the checkpoint file; `base_size` of the base LLM's weights, `size` of the output.
        seconds: from the first byte read to the folder in place, downloads apart.
        peak_memory: the largest memory this process has had so far, in bytes.
        comparisons: a row a tensor, where verification was asked for.
    """

    path: Path
    source: str
    base: str
    config: ModelConfig
    parameters: dict[str, int]
    source_size: int
    base_size: int
    size: int
    seconds: float
    peak_memory: int
    comparisons: list[Comparison] = field(default_factory=list)


def convert(
    source: str | Path,
    output: str | Path | None = None,
    *,
    llm: str | None = None,
    variant: str = "sp",
    base: str | None = None,
    quantize: int | None = None,
    group_size: int = 64,
    dtype: str | None = None,
    fuse: bool = True,
    verify: bool = False,
    force: bool = False,
    progress: writer.Progress | None = None,
    command: str | None = None,
) -> ConversionSummary:
    """Convert an OpenTSLM checkpoint to an MLX model.

    Args:
        source: "demo", "stage1" … "stage5", a Hub repository, a recipe (.toml) or a local checkpoint (.pt).
        output: the folder to write; by default one in the cache, where `mlx_tslm.load(source)` finds it.
        llm: the base LLM, a Hugging Face folder or a Hub repository; by default the recipe's.
        variant: "sp", the soft prompt. ("flamingo" is not supported yet.)
        base: which of the recipe's base LLMs, e.g. "gemma-3-270m".
        quantize: 4 or 8 bits for the LLM's linear layers; `group_size` weights share a scale.
        dtype: "float32", "float16" or "bfloat16" for the LLM, by default its own. The rest is float32 always.
        fuse: add LoRA to the weights, in float32; otherwise keep it as adapters.
        verify: reload the output and compare every tensor with the source before it gets its name.
        force: replace a converted model that is there already.
        progress: called with a description, what is done and the total.
        command: the command line, for the model card.

    Raises:
        TSLMError: anything a user can mend; then nothing is left behind.
    """
    if quantize not in (None, 4, 8):
        raise TSLMError(f"--quantize {quantize} does not exist; take 4 or 8")
    if dtype is not None and dtype not in DTYPES:
        raise TSLMError(f"--dtype {dtype} does not exist; take {', '.join(DTYPES)}")
    recipe = recipes.resolve(source, llm, variant, base)
    fetched = hub.fetch_checkpoint(recipe)
    checkpoint = open_checkpoint(fetched.path)  # before the base LLM, which may be gigabytes away
    folder = Path(output) if output is not None else store.default_output(recipe, quantize, dtype, fuse)
    writer.refuse_existing(folder, force)
    fetched_llm = hub.fetch_llm(recipe)
    started = time.perf_counter()
    model = open_base(fetched_llm.path, fetched_llm.name, fetched_llm.revision)
    quantization = Quantization(quantize, group_size) if quantize else None
    weights = model.weights()
    base_size = sum(array.nbytes for array in weights.values())
    targets = plan(checkpoint, model, weights, quantization, getattr(mx, dtype) if dtype else None, fuse)
    config = _config(recipe, checkpoint, model, quantization, dtype, fuse)
    parameters = _count(targets, checkpoint)
    nbytes = sum(part.nbytes for target in targets for part in target.stored())
    comparisons: list[Comparison] = []
    with writer.staged(folder, nbytes, force) as scratch:
        writer.write_weights(scratch, targets, weights, progress)
        if verify:
            comparisons = compare(scratch, targets, model.weights(), progress)
        for path in model.files(*TOKENIZER_FILES, *OTHER_FILES):
            shutil.copyfile(path, scratch / path.name)
        command = command or f"mlx-tslm convert {fetched.name}"
        digest = store.sha256(fetched.path)
        card = model_card(recipe, fetched, digest, model, config, parameters, command)
        (scratch / "README.md").write_text(card)
        writer.write_json(scratch / "config.json", config.to_dict())
    return ConversionSummary(
        path=folder,
        source=fetched.name,
        base=model.name,
        config=config,
        parameters=parameters,
        source_size=fetched.path.stat().st_size,
        base_size=base_size,
        size=nbytes,
        seconds=time.perf_counter() - started,
        peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        comparisons=comparisons,
    )


def ensure_converted(source: str | Path, progress: writer.Progress | None = None) -> Path:
    """The converted folder of a source, converted into the cache if it is not there yet.

    A source is what `convert` takes, or the name of a model in the cache as `mlx-tslm models` lists it.

    Raises:
        TSLMError: as `convert`.
    """
    named = {model.name: model.path for model in store.converted()}
    if str(source) in named:
        return named[str(source)]
    folder = store.default_output(recipes.resolve(source))
    if store.read_config(folder) is None:
        try:
            convert(source, folder, progress=progress)
        except TSLMError:
            if store.read_config(folder) is None:  # else another process was faster
                raise
    return folder


def _config(
    recipe: recipes.Recipe,
    checkpoint: Checkpoint,
    model: BaseLLM,
    quantization: Quantization | None,
    dtype: str | None,
    fuse: bool,
) -> ModelConfig:
    text_config = dict(model.config)
    if dtype is not None:
        text_config["dtype" if "dtype" in text_config else "torch_dtype"] = dtype
    lora = None
    if checkpoint.adapters:
        adapter = max(checkpoint.adapters.values(), key=lambda adapter: adapter.rank)
        lora = LoraConfig(adapter.rank, adapter.scale * adapter.rank, checkpoint.target_modules, fuse)
    return ModelConfig(
        text_config=text_config,
        encoder_config=checkpoint.encoder_config,
        stage=recipe.stage,
        lora=lora,
        quantization=quantization.to_dict() if quantization else None,
        leads=list(recipe.leads) or None,
        trained_on=recipe.trained_on,
    )


def _count(targets: list[Target], checkpoint: Checkpoint) -> dict[str, int]:
    counts = Counter(dict.fromkeys(("encoder", "projector", "language_model"), 0))
    for target in targets:
        if not target.name.endswith((".lora_a", ".lora_b")):
            counts[target.name.partition(".")[0]] += prod(target.shape)
    if checkpoint.adapters:
        counts["lora"] = sum(adapter.a.size + adapter.b.size for adapter in checkpoint.adapters.values())
    return dict(counts)
