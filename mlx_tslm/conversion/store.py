"""Where converted models are kept unless the user says otherwise."""

import glob
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_tslm.conversion.recipe import Recipe
from mlx_tslm.errors import TSLMError
from mlx_tslm.files import cache_dir
from mlx_tslm.models.config import MODEL_TYPES

_PIECE = 1 << 16  # bytes


@dataclass(frozen=True)
class Converted:
    """A converted model in the cache. `size` is in bytes."""

    name: str
    path: Path
    size: int
    config: dict[str, Any]


def converted() -> list[Converted]:
    """The converted models in the cache, by name."""
    models = []
    for path in sorted((cache_dir() / "models").glob("[!.]*/config.json")):
        config = read_config(path.parent)
        if config is not None:
            size = sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file())
            models.append(Converted(path.parent.name, path.parent, size, config))
    return models


def read_config(folder: Path) -> dict[str, Any] | None:
    """The `config.json` of a converted model, or None if the folder is none."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return config if isinstance(config, dict) and config.get("model_type") in MODEL_TYPES else None


def identity(
    recipe: Recipe,
    bits: int | None = None,
    dtype: str | None = None,
    fuse: bool = True,
    group_size: int = 64,
    encoder_heads: int | None = None,
    lora_alpha: float | None = None,
) -> dict[str, Any]:
    """What tells one conversion from another, without a path of this machine: it goes into the folder's config.

    A local file is known by its hash, a local base LLM by a digest of its files, a Hub repository by owner, name,
    file and the revision that was asked for. None for a base LLM means that nobody has said yet.
    """
    checkpoint: dict[str, Any]
    if recipe.checkpoint is not None:
        checkpoint = {"sha256": sha256(recipe.checkpoint) if recipe.checkpoint.is_file() else None}
    else:
        checkpoint = {"repo": (recipe.repo or "").lower(), "file": recipe.file, "revision": recipe.revision}
    base: dict[str, Any]
    llm = Path(recipe.llm).expanduser() if recipe.llm else None
    if llm is not None and llm.is_dir():
        base = {"llm": _folder_digest(llm)}
    else:
        base = {"llm": recipe.llm.lower() if recipe.llm else None, "llm_revision": recipe.llm_revision}
    return {
        **checkpoint, **base, "stage": recipe.stage, "leads": list(recipe.leads), "bits": bits,
        "group_size": group_size if bits else None, "dtype": dtype, "fuse": fuse,
        "encoder_heads": encoder_heads or 8, "lora_alpha": lora_alpha,
    }  # fmt: skip


def default_output(recipe: Recipe, wanted: dict[str, Any]) -> Path:
    """The cache folder of a conversion.

    Its name is the recipe's, with what is not the usual (part of a local file's hash, dtype, bits). Where a model
    of another origin has that name already, part of the identity's hash tells the two apart.

    Args:
        recipe: what is converted.
        wanted: its `identity`.

    Raises:
        TSLMError: nobody has said which base LLM, and the file was converted with several.
    """
    folder = cache_dir() / "models" / usual_name(recipe, wanted)
    others = [folder, *sorted(folder.parent.glob(f"{glob.escape(folder.name)}-[0-9a-f]*"))]
    same = [path for path in others if matches(read_config(path), wanted)]
    if len(same) > 1 and wanted["llm"] is None:
        names = ", ".join(path.name for path in same)
        raise TSLMError(f"{recipe.name} was converted with several base LLMs; name one of {names}")
    if same:
        return same[0]
    if not folder.exists():
        return folder
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:8]
    return folder.with_name(f"{folder.name}-{digest}")


def usual_name(recipe: Recipe, wanted: dict[str, Any]) -> str:
    """The name of a conversion's folder in the cache, unless another model has it already."""
    parts = [recipe.name or "model"]
    parts += [wanted["sha256"][:8]] if wanted.get("sha256") else []
    parts += [wanted["dtype"]] if wanted["dtype"] else []
    parts += [f"{wanted['bits']}bit"] if wanted["bits"] else []
    parts += [] if wanted["fuse"] else ["lora"]
    return "-".join(parts)


def matches(config: dict[str, Any] | None, wanted: dict[str, Any]) -> bool:
    """Whether a folder in the cache is what is wanted; what nobody has said matches anything."""
    source = (config or {}).get("source")
    if not isinstance(source, dict):
        return False
    open_ended = ("llm", "llm_revision") if wanted["llm"] is None else ()
    return all(source.get(key) == value for key, value in wanted.items() if key not in open_ended)


def _folder_digest(folder: Path) -> str:
    """A digest of a base LLM's folder: its config, its tokenizer, and 64 pieces of each weight file."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.model"), *folder.glob("*.safetensors")]):
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest.update(f"{path.name} {size}\0".encode())
            step = max(_PIECE, size // 64) if path.suffix == ".safetensors" else _PIECE
            for start in range(0, size, step):
                file.seek(start)
                digest.update(file.read(_PIECE))
    return digest.hexdigest()[:32]


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
