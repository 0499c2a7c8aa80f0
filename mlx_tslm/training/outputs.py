"""A trained stage as others read it: an OpenTSLM checkpoint, its base LLM if that changed, a converted folder."""

from pathlib import Path

import mlx.core as mx

from mlx_tslm import stages
from mlx_tslm.conversion import tokenizer, writer
from mlx_tslm.conversion.save import save_checkpoint
from mlx_tslm.models.causal import CausalModel
from mlx_tslm.models.config import has_dtype_of_llm
from mlx_tslm.models.weights import save_arrays
from mlx_tslm.stages import Stage, task
from mlx_tslm.training.start import flat

CHECKPOINT = "model_checkpoint.pt"
"""OpenTSLM's checkpoint in a stage's folder, as the published ones are named."""


def stored_dtype(model: CausalModel) -> str:
    """The dtype in which the LLM's weights are stored, as its config says."""
    config = model.config.text_config
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")


def write(model: CausalModel, stage: Stage | None, folder: Path, base: str | None, **facts: float) -> None:
    """Write `model/`, `model_checkpoint.pt`, and `base/` where no `base` is named, all into a stage's folder.

    Args:
        stage: that the model was trained for last, or None.
        folder: of the stage.
        base: name of the LLM that the checkpoint goes with; None if that was trained, then it is written.
        facts: more entries of the checkpoint: `val_loss`, `epoch`.
    """
    model.stage, model.config.stage = stage, stage.name if stage else None
    weights = flat(model.parameters())
    adapted = {name for name in weights if name.endswith((".lora_a", ".lora_b"))}
    llm = {name for name in weights if name.startswith("language_model.")} - adapted
    dtype = getattr(mx, stored_dtype(model))
    arrays = {name: array.astype(dtype) if has_dtype_of_llm(name) else array for name, array in weights.items()}
    if base is None:
        with writer.staged(
            folder / "base", sum(arrays[name].nbytes for name in llm), force=True, own=True
        ) as scratch:
            plain = {n.removeprefix("language_model.").replace(".linear.", "."): arrays[n] for n in llm}
            save_arrays(scratch / "model.safetensors", plain, {"format": "pt"})
            tokenizer.save(model.tokenizer, scratch)
            writer.write_json(scratch / "config.json", model.config.text_config)
    with writer.staged(
        folder / "model", sum(array.nbytes for array in arrays.values()), force=True, own=True
    ) as scratch:
        save_arrays(scratch / "model.safetensors", arrays, {"format": "mlx"})
        tokenizer.save(model.tokenizer, scratch)
        if stage is not None and stage.name not in stages.names():
            (scratch / task.FILE).write_text(task.dumps(stage), "utf-8")
        writer.write_json(scratch / "config.json", model.config.to_dict())
    save_checkpoint(folder / CHECKPOINT, model.config, weights, base, **facts)
