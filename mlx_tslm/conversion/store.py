"""Where converted models are kept unless the user says otherwise."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_tslm.conversion.recipe import Recipe
from mlx_tslm.files import cache_dir
from mlx_tslm.models.config import MODEL_TYPES


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
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) and config.get("model_type") in MODEL_TYPES else None


def default_output(recipe: Recipe, bits: int | None = None, dtype: str | None = None, fuse: bool = True) -> Path:
    """The cache folder of a conversion; of a local file, part of its hash is in the name."""
    parts = [recipe.name]
    if recipe.checkpoint is not None and recipe.checkpoint.is_file():
        parts.append(sha256(recipe.checkpoint)[:8])
    parts += [dtype] if dtype else []
    parts += [f"{bits}bit"] if bits else []
    parts += [] if fuse else ["lora"]
    return cache_dir() / "models" / "-".join(parts)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
