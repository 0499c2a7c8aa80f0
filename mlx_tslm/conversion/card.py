"""The model card: where a converted model comes from, under whose terms, and what was measured of it since."""

import os
from importlib.metadata import version
from pathlib import Path

from mlx_tslm import __version__
from mlx_tslm.conversion.base import BaseLLM
from mlx_tslm.conversion.hub import Fetched
from mlx_tslm.conversion.recipe import Recipe
from mlx_tslm.files import write_atomically
from mlx_tslm.models.config import FlamingoConfig, ModelConfig

_LICENCES = {
    "meta-llama/": ("llama3.2", "the Llama 3.2 Community License (Built with Llama)"),
    "google/gemma": ("gemma", "the Gemma Terms of Use"),
}


def model_card(
    recipe: Recipe,
    source: Fetched,
    sha256: str,
    base: BaseLLM,
    config: ModelConfig,
    parameters: dict[str, int],
    command: str,
    notes: list[str],
) -> str:
    """The text of `README.md` in a converted folder."""
    known = next((terms for prefix, terms in _LICENCES.items() if base.name.startswith(prefix)), None)
    front = ["library_name: mlx-tslm", "tags:", "- mlx", "- time-series", "pipeline_tag: text-generation"]
    if "/" in base.name:
        front.append(f"base_model: {base.name}")
    if known:
        front.append(f"license: {known[0]}")
    terms = known[1] if known else "its own licence, which its publisher states"
    lora = "none"
    if config.lora is not None:
        where = "fused into the weights" if config.lora.fused else "kept as adapters"
        lora = f"rank {config.lora.rank}, alpha {config.lora.alpha:g}, {where}"
    stored = "none"
    if config.quantization is not None:
        stored = "{bits} bits in groups of {group_size}, linear layers of {where} only".format(
            where="the LLM and the gated blocks" if isinstance(config, FlamingoConfig) else "the LLM",
            **config.quantization,
        )
    rows = {
        "Source": source.name,
        "Revision": source.revision or "none (a local file)",
        "SHA-256 of the source": sha256,
        "Base LLM": base.name,
        "Base revision": base.revision or "none (a local folder)",
        "Stage": config.stage or "unknown",
        "LoRA": lora,
        "Quantization": stored,
        "Parameters": ", ".join(f"{part} {count:,}" for part, count in parameters.items()),
        "Encoder's heads": f"{config.encoder_config.num_attention_heads}; a checkpoint does not say how many",
        "Longest series": f"{config.encoder_config.max_samples} samples",
        "Calibration": "what was fitted of p, λ and T is in calibration.json"
        if recipe.calibration
        else "p, λ and T are unknown until `mlx-tslm calibrate` fits them on validation samples",
        "Command": f"`{command}`",
        "Made with": f"mlx-tslm {__version__}, mlx {version('mlx')}, mlx-lm {version('mlx-lm')}",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    kind = "soft-prompt model (time-series encoder, projector and language model)"
    own = "The encoder, the projector and the adapters"
    if isinstance(config, FlamingoConfig):
        kind = "Flamingo model (time-series encoder, perceiver, and a language model with gated cross-attention)"
        own = "The encoder, the perceiver, the gated blocks and the trained embeddings"
    whose = (
        f"{own} are OpenTSLM's work (Stanford University and ETH Zurich, MIT licence,\n"
        f"https://github.com/OpenTSLM/OpenTSLM). The language model is under {terms};\n"
        "using this folder means accepting it."
    )
    if recipe.authors:
        whose = (
            f"All weights, the language model's too, were trained by {recipe.authors} on synthetic series (MIT "
            "licence).\nThe architecture is OpenTSLM's (https://github.com/OpenTSLM/OpenTSLM)."
        )
        front.append("license: mit")
    front_matter = "\n".join(front)
    assumed = "".join(f"- {note}\n" for note in notes)
    return f"""---
{front_matter}
---
# {recipe.name}

{recipe.title + ". " if recipe.title else ""}An OpenTSLM {kind}, converted for MLX.

| | |
|---|---|
{table}

{assumed}
{whose}

A research model, not a medical device.
"""


def add_section(folder: Path, name: str, text: str) -> bool:
    """Put a section into the card of a converted folder, in the place of what is there under its name.

    Args:
        folder: of the model; where it has no card, one is made.
        name: of the section, in the comments around it.
        text: Markdown.

    Returns:
        Whether it was written: not where the folder is not ours to write in.
    """
    file = folder / "README.md"
    if not os.access(folder, os.W_OK) or (file.exists() and not os.access(file, os.R_OK)):
        return False
    card = file.read_text("utf-8") if file.exists() else f"# {folder.resolve().name}\n"
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    before, found, rest = card.partition(start)
    _, closed, after = rest.partition(end)
    section = f"{start}\n{text.strip()}\n{end}"
    whole = f"{before}{section}{after}" if found and closed else f"{card.rstrip()}\n\n{section}\n"
    write_atomically(file, whole)
    return True
