"""The conversion, from a source's name to a folder that `mlx_tslm.load` reads."""

import logging
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_tslm.conversion import flamingo_plan, hub, store, writer
from mlx_tslm.conversion import recipe as recipes
from mlx_tslm.conversion import tokenizer as tokenizers
from mlx_tslm.conversion.base import OTHER_FILES, TOKENIZER_FILES, BaseLLM, open_base
from mlx_tslm.conversion.card import model_card
from mlx_tslm.conversion.checkpoint import Checkpoint, open_checkpoint
from mlx_tslm.conversion.flamingo import FlamingoCheckpoint
from mlx_tslm.conversion.plan import Quantization, Target, plan
from mlx_tslm.conversion.verify import Comparison
from mlx_tslm.conversion.verify import verify as compare
from mlx_tslm.errors import TSLMError
from mlx_tslm.fetching.http import Progress
from mlx_tslm.models import text_config
from mlx_tslm.models.config import DTYPES, LoraConfig, ModelConfig
from mlx_tslm.models.flamingo_text import add_special_tokens
from mlx_tslm.models.tokenizer import read_tokenizer
from mlx_tslm.system import memory

_log = logging.getLogger(__name__)


class AlreadyConverted(TSLMError):
    """What was asked for is there already, in the folder `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is there already, converted from the same with the same options")
        self.path = path


@dataclass(frozen=True)
class ConversionSummary:
    """What a conversion did.

    Args:
        path: the converted folder.
        source: what was converted, and `base` the LLM it was joined with.
        parameters: their number in each part: encoder, projector or perceiver and gated_blocks, language_model, and
            lora (fused ones included in neither).
        source_size: bytes of the checkpoint file; `base_size` of the base LLM's weights, `size` of the output.
        seconds: from the first byte read to the folder in place, downloads apart.
        peak_memory: the largest memory this process has had so far, in bytes.
        comparisons: a row a tensor, where verification was asked for.
        notes: what was assumed, or is not known here; a line each.
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
    notes: list[str] = field(default_factory=list)


def convert(
    source: str | Path,
    output: str | Path | None = None,
    *,
    llm: str | None = None,
    variant: str | None = None,
    base: str | None = None,
    file: str | None = None,
    revision: str | None = None,
    encoder_heads: int | None = None,
    lora_alpha: float | None = None,
    quantize: int | None = None,
    group_size: int = 64,
    dtype: str | None = None,
    fuse: bool = True,
    verify: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    command: str | None = None,
) -> ConversionSummary:
    """Convert an OpenTSLM checkpoint to an MLX model.

    Args:
        source: "demo", "stage1" … "stage5", a Hub repository, a recipe (.toml) or a local checkpoint (.pt).
        output: the folder to write; by default one in the cache, where `mlx_tslm.load(source)` finds it.
        llm: the base LLM, a Hugging Face folder or a Hub repository; by default the recipe's.
        variant: "sp" (soft prompt) or "flamingo"; by default what the source says or its file shows, and of a
            stage the soft prompt.
        base: which of the recipe's base LLMs, e.g. "gemma-3-270m".
        file, revision: of the Hub repository, in place of the recipe's.
        encoder_heads: of the encoder's attention, which no checkpoint states; 8 by default.
        lora_alpha: LoRA's alpha, where the checkpoint does not state it.
        quantize: 4 or 8 bits for the LLM's linear layers; `group_size` weights share a scale.
        dtype: "float32", "float16" or "bfloat16" for the LLM, by default its own. The rest is float32 always.
        fuse: add LoRA to the weights, in float32; otherwise keep it as adapters.
        verify: reload the output and compare every tensor with the source before it gets its name.
        force: replace a converted model that is there already.
        progress: called with a description, what is done and the total, in bytes; without it, the Hub's bar shows
            downloads.
        command: the command line, for the model card.

    Raises:
        AlreadyConverted: the output is there, from the same source with the same options.
        TSLMError: anything a user can mend; then nothing is left behind.
    """
    if quantize not in (None, 4, 8):
        raise TSLMError(f"--q-bits {quantize} does not exist; take 4 or 8")
    if dtype is not None and dtype not in DTYPES:
        raise TSLMError(f"--dtype {dtype} does not exist; take {', '.join(DTYPES)}")
    recipe = recipes.resolve(source, llm, variant, base, file, revision)
    wanted = store.identity(recipe, quantize, dtype, fuse, group_size, encoder_heads, lora_alpha)
    folder = Path(output).expanduser() if output is not None else store.default_output(recipe, wanted)
    if not force and store.matches(store.read_config(folder), wanted):
        raise AlreadyConverted(folder)
    fetched = hub.fetch_checkpoint(recipe)
    writer.check_output(folder, force)
    # before the base LLM, which may be gigabytes away
    checkpoint = open_checkpoint(fetched.path, recipe.variant, encoder_heads, lora_alpha)
    whole = isinstance(checkpoint, FlamingoCheckpoint)  # then it holds the LLM too
    fetched_llm = hub.fetch_llm(recipe, weights=not whole, progress=progress)
    started = time.perf_counter()
    model = open_base(fetched_llm.path, fetched_llm.name, fetched_llm.revision, weights=not whole)
    tokenizer = read_tokenizer(fetched_llm.path, model.config)
    quantization = Quantization(quantize, group_size) if quantize else None
    weights = {} if whole else model.weights()
    base_size = sum(array.nbytes for array in weights.values())
    stored = getattr(mx, dtype) if dtype else None
    if isinstance(checkpoint, FlamingoCheckpoint):
        add_special_tokens(tokenizer._tokenizer)
        targets = flamingo_plan.plan(checkpoint, model, len(tokenizer._tokenizer), quantization, stored)
        config: ModelConfig = flamingo_plan.config(checkpoint, model, recipe.stage, quantization)
        parameters = _count(targets)
        notes = _notes_on_base(model) + _without_effect(encoder_heads, lora_alpha, fuse)
    else:
        targets = plan(checkpoint, model, weights, quantization, stored, fuse)
        config = _config(recipe, checkpoint, model, quantization, fuse)
        parameters = _count(targets) | _count_adapters(checkpoint)
        notes = _notes(checkpoint, model, tokenizer, encoder_heads)
    config.source = wanted
    if dtype is not None:
        config.text_config["dtype" if "dtype" in config.text_config else "torch_dtype"] = dtype
    nbytes = sum(part.nbytes for target in targets for part in target.stored())
    comparisons: list[Comparison] = []
    with writer.staged(folder, nbytes, force) as scratch:
        writer.write_weights(scratch, targets, weights, progress)
        if verify:
            comparisons = compare(scratch, targets, {} if whole else model.weights(), progress)
        for path in model.files(*(() if whole else TOKENIZER_FILES), *OTHER_FILES):
            shutil.copyfile(path, scratch / path.name)
        if recipe.calibration is not None:
            shutil.copyfile(recipe.calibration, scratch / recipe.calibration.name)
        if whole:
            tokenizers.save(tokenizer, scratch)
        command = command or f"mlx-tslm convert {fetched.name}"
        digest = wanted.get("sha256") or store.sha256(fetched.path)
        card = model_card(recipe, fetched, digest, model, config, parameters, command, notes)
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
        peak_memory=memory.peak_resident(),
        comparisons=comparisons,
        notes=notes,
    )


def check_source(source: str) -> None:
    """See that `source` is something that `ensure_converted` knows; nothing is fetched.

    Raises:
        TSLMError: it is not.
    """
    named = [model.name for model in store.converted()]
    if source not in named:
        recipes.resolve(source, converted=named)


def ensure_converted(source: str | Path, progress: Progress | None = None) -> Path:
    """The converted folder of a source, converted into the cache if it is not there yet.

    A source is what `convert` takes, or the name of a model in the cache as `mlx-tslm models` lists it.

    Raises:
        TSLMError: as `convert`.
    """
    named = {model.name: model.path for model in store.converted()}
    if str(source) in named:
        return named[str(source)]
    recipe = recipes.resolve(source)
    wanted = store.identity(recipe)
    folder, usual = store.default_output(recipe, wanted), store.usual_name(recipe, wanted)
    if store.read_config(folder) is None:
        if folder.name != usual:
            _log.warning(f"{usual} in the cache is another model; {source} is converted anew, as {folder.name}")
        try:
            for note in convert(source, folder, progress=progress).notes:
                _log.warning(note)
        except TSLMError:
            if store.read_config(folder) is None:  # else another process was faster
                raise
    return folder


def _notes(checkpoint: Checkpoint, model: BaseLLM, tokenizer: Any, encoder_heads: int | None) -> list[str]:
    """What was assumed, or is not known here."""
    notes = list(checkpoint.lora.notes) if checkpoint.lora is not None else []
    notes += _notes_on_base(model)
    rows = int(model.config["vocab_size"])
    beyond = sorted(token for token in tokenizer.get_vocab().values() if token >= rows)
    if beyond:
        notes.append(
            f"the tokenizer has tokens from {beyond[0]} to {beyond[-1]}, but {model.name} has {rows} embeddings; "
            "text that needs them is refused"
        )
    usual = checkpoint.encoder_config.hidden_size == 128  # the published encoder, of which the heads are known
    if encoder_heads is None and not usual:
        heads = checkpoint.encoder_config.num_attention_heads
        notes.append(
            f"how many heads the encoder has the checkpoint does not say: {heads} assumed (--encoder-heads)"
        )
    return notes


def _without_effect(encoder_heads: int | None, lora_alpha: float | None, fuse: bool) -> list[str]:
    """Options of a soft-prompt checkpoint that were given for a Flamingo one."""
    given = {
        "--encoder-heads": encoder_heads is not None,
        "--lora-alpha": lora_alpha is not None,
        "--no-fuse": not fuse,
    }
    names = ", ".join(name for name, there in given.items() if there)
    reason = "a Flamingo checkpoint has no adapters, and no attention in its encoder"
    return [f"without effect: {names}; {reason}"] if names else []


def _notes_on_base(model: BaseLLM) -> list[str]:
    odd = text_config.unknown(model.config)
    keys = ", ".join(odd)[:300]
    return [f"config.json of {model.name} has keys that are not known here: {keys}"] if odd else []


def _config(
    recipe: recipes.Recipe,
    checkpoint: Checkpoint,
    model: BaseLLM,
    quantization: Quantization | None,
    fuse: bool,
) -> ModelConfig:
    lora = None
    if checkpoint.lora is not None:
        adapter = max(checkpoint.adapters.values(), key=lambda adapter: adapter.rank)
        lora = LoraConfig(adapter.rank, adapter.scale * adapter.rank, checkpoint.lora.target_modules, fuse)
    return ModelConfig(
        text_config=dict(model.config),
        encoder_config=checkpoint.encoder_config,
        stage=recipe.stage,
        lora=lora,
        quantization=quantization.to_dict() if quantization else None,
        leads=list(recipe.leads) or None,
        trained_on=recipe.trained_on,
    )


def _count(targets: list[Target]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for target in targets:
        if not target.name.endswith((".lora_a", ".lora_b")):
            counts[target.name.partition(".")[0]] += prod(target.shape)
    return dict(counts)


def _count_adapters(checkpoint: Checkpoint) -> dict[str, int]:
    sizes = [adapter.a.size + adapter.b.size for adapter in checkpoint.adapters.values()]
    return {"lora": sum(sizes)} if sizes else {}
