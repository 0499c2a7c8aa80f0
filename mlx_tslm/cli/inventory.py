"""`models` and `info`: what there is."""

import platform
import sys
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from mlx_tslm import __version__
from mlx_tslm.cli.options import warn_without_blas
from mlx_tslm.cli.terminal import console, facts, table
from mlx_tslm.files import cache_dir
from mlx_tslm.system import blas, memory

_PACKAGES = ("mlx", "mlx-lm", "numpy", "scipy", "huggingface_hub", "wfdb", "edfio")


def info() -> None:
    """Show versions, device, BLAS, memory and caches."""
    import mlx.core as mx

    active = blas.load()
    device = mx.device_info()
    kind = "Metal GPU" if mx.default_device() == mx.Device(mx.gpu) else "CPU"
    console.print(
        facts(
            [
                ("python", f"{platform.python_version()} ({sys.executable})"),
                ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
                ("mlx-tslm", __version__),
                *((name, _version(name)) for name in _PACKAGES),
                ("device", f"{kind}: {device.get('device_name', 'unknown')}"),
                ("BLAS", active or "none but the reference one"),
                ("memory", f"{decimal(memory.total())}, {decimal(memory.free())} free"),
                *((name, f"{path} ({decimal(_size_of(path))})") for name, path in _caches()),
            ]
        )
    )
    warn_without_blas()


def models() -> None:
    """Show what can be converted, and what has been."""
    from mlx_tslm.conversion import recipe, store
    from mlx_tslm.models.config import VARIANTS

    sources = {"demo": [recipe.demo()], **recipe.published()}
    rows = [
        (
            name,
            family[0].title,
            "\n".join(one.base for one in family if one.base),
            "\n".join(variant for variant in VARIANTS if name in recipe.published(variant)),
        )
        for name, family in sources.items()
    ]
    console.print(table(["source", "what it is about", "--base", "--variant"], rows, title="Can be converted"))
    console.print("and by name: an OpenTSLM/… repository on the Hub, a recipe (.toml), a checkpoint (.pt)\n")
    found = store.converted()
    if not found:
        console.print(f"Nothing has been converted into {cache_dir()} yet.")
        return
    held = [
        (
            one.name,
            one.config.get("stage") or "",
            one.config["model_type"].removeprefix("opentslm_"),
            _precision(one.config),
            decimal(one.size),
        )
        for one in found
    ]
    console.print(table(["name", "stage", "variant", "precision", ">size"], held, title=f"In {cache_dir()}"))


def _precision(config: dict[str, Any]) -> str:
    text = config["text_config"]
    dtype = str(text.get("torch_dtype") or text.get("dtype") or "")
    bits = (config.get("quantization") or {}).get("bits")
    return f"{bits}-bit, {dtype}" if bits else dtype


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _size_of(folder: Path) -> int:
    """Bytes on disk; a file that several names point to counts once."""
    seen = {
        (stat.st_dev, stat.st_ino): stat.st_size for p in folder.rglob("*") if p.is_file() and (stat := p.stat())
    }
    return sum(seen.values())


def _caches() -> list[tuple[str, Path]]:
    from huggingface_hub.constants import HF_HUB_CACHE

    return [("converted models", cache_dir()), ("Hub downloads", Path(HF_HUB_CACHE))]
