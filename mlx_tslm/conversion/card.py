"""The model card: where a converted model comes from, and under whose terms."""

from importlib.metadata import version

from mlx_tslm import __version__
from mlx_tslm.conversion.base import BaseLLM
from mlx_tslm.conversion.hub import Fetched
from mlx_tslm.conversion.recipe import Recipe
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
