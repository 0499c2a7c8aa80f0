"""What to convert: recipes in TOML, Hub names and local files, all resolved to one `Recipe`.

A recipe file describes a family of checkpoints (see `convert/stage1.toml`). Its keys, at the top or in one table
`[base.NAME]` for each base LLM: `stage`, `variant`, `title`; `repo` (a Hub repository), `file` in it and
`revision`, or `checkpoint` (a local `.pt`); `llm` (a Hub repository or a folder) and `llm_revision`. `default`
names the base that is taken unless another is asked for. Local paths are relative to the recipe.
"""

import json
import os
import re
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from mlx_tslm import stages
from mlx_tslm.errors import TSLMError
from mlx_tslm.models.config import VARIANTS
from mlx_tslm.schema import shown, validate
from mlx_tslm.suggest import did_you_mean

_PACKAGE = Path(__file__).parent.parent
_SOURCES = (
    "demo, stage1 … stage5, a Hub name such as OpenTSLM/llama-3.2-1b-ecg-sp, a recipe (.toml) or a checkpoint (.pt)"
)


@dataclass(frozen=True)
class Recipe:
    """One checkpoint to convert, and the base LLM to join it with.

    Either `checkpoint` (a local file) or `repo` and `file` are set. `llm` is a folder or a Hub repository; None
    where nobody has said yet. `leads` are those of an ECG that the model reads, if not all twelve; `trained_on` is
    `ModelConfig.trained_on`; `authors` of all weights, where they are not OpenTSLM's on another LLM;
    `ModelConfig.trained_on`; `calibration` is a file that was fitted for it (see `mlx_tslm.calibration`).
    """

    name: str
    stage: str | None = None
    variant: str | None = None
    base: str | None = None
    title: str = ""
    repo: str | None = None
    file: str = "model_checkpoint.pt"
    revision: str | None = None
    checkpoint: Path | None = None
    llm: str | None = None
    llm_revision: str | None = None
    leads: tuple[str, ...] = ()
    trained_on: dict[str, Any] | None = None
    authors: str = ""
    calibration: Path | None = None


def recipe_folder() -> Path:
    """Where the project's recipes are: `convert/` in a checkout, `recipes/` in an installed package."""
    installed = _PACKAGE / "recipes"
    return installed if installed.is_dir() else _PACKAGE.parent / "convert"


def demo() -> Recipe:
    """The embedded demonstration model."""
    folder = _PACKAGE / "demo"
    return Recipe(
        "demo",
        title="Embedded demonstration",
        variant="sp",
        base="demo",
        stage="stage2",
        checkpoint=folder / "model_checkpoint.pt",
        llm=str(folder / "base"),
        leads=("II", "V1"),
        authors="the mlx-tslm authors",
        trained_on=json.loads((folder / "trained_on.json").read_text("utf-8")),
        calibration=fitted if (fitted := folder / "calibration.json").exists() else None,
    )


@cache
def published(variant: str = "sp") -> dict[str, list[Recipe]]:
    """The project's recipes of a variant: for each stage, one a base LLM, the default first."""
    folder = recipe_folder() if variant == "sp" else recipe_folder() / variant
    return {path.stem: load(path) for path in sorted(folder.glob("*.toml"))}


@dataclass(frozen=True)
class _Table:
    """The keys of a recipe file, at its top or in the table of a base."""

    stage: str | None = None
    variant: Literal["sp", "flamingo"] | None = None
    title: str = ""
    repo: str | None = None
    file: str = "model_checkpoint.pt"
    revision: str | None = None
    checkpoint: str | None = None
    llm: str | None = None
    llm_revision: str | None = None


def load(path: Path) -> list[Recipe]:
    """Read a recipe file: one `Recipe` a base LLM, the default first.

    Raises:
        TSLMError: the file is missing, no TOML, or says something unknown or too little.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TSLMError(f"cannot read the recipe {path}: {error}") from None
    bases = validate(dict[str, dict[str, Any]], table.pop("base", {}), f"{path.name}: base") or {None: {}}
    default = table.pop("default", next(iter(bases)))
    if default not in bases:
        raise TSLMError(f"{path.name}: default = {shown(default)}, but there is no [base.{shown(default)}]")
    recipes = [_from_table(path, base, table | bases[base]) for base in bases]
    return sorted(recipes, key=lambda recipe: recipe.base != default)


def _from_table(path: Path, base: str | None, values: dict[str, Any]) -> Recipe:
    table: _Table = validate(_Table, values, path.name, forbid=True)
    if (table.repo is None) == (table.checkpoint is None):
        raise TSLMError(f"{path.name}: give either repo (on the Hub) or checkpoint (a local .pt)")
    if table.llm is None:
        raise TSLMError(f"{path.name}: llm is missing: the base LLM's Hub repository or folder")
    fields = asdict(table) | {"llm": _relative(path, table.llm)}
    if table.stage is not None:
        stage = stages.get(table.stage)
        fields["stage"] = stage.name
        fields["trained_on"] = {stage.name: dict(stage.trained_on)} if stage.trained_on else None
    if table.checkpoint is not None:
        fields["checkpoint"] = path.parent / Path(table.checkpoint).expanduser()
    name = path.stem if table.repo is None else table.repo.rpartition("/")[2]
    return Recipe(name=name, base=base, **fields)


def _relative(path: Path, llm: str) -> str:
    folder = path.parent / Path(llm).expanduser()
    return str(folder) if folder.is_dir() or llm.startswith((".", "/", "~")) else llm


def resolve(
    source: str | Path,
    llm: str | None = None,
    variant: str | None = None,
    base: str | None = None,
    file: str | None = None,
    revision: str | None = None,
    converted: Sequence[str] = (),
) -> Recipe:
    """Find out what a user means.

    Args:
        source: "demo", a stage, a Hub repository, a recipe file or a local `.pt`.
        llm: a base LLM (folder or Hub repository) in place of the recipe's.
        variant: "sp" (soft prompt) or "flamingo"; by default what the source says or its file shows, and of a
            stage the soft prompt.
        base: the name of one of the recipe's base LLMs, e.g. "gemma-3-270m"; or any base LLM, as for `llm`.
        file, revision: of the Hub repository.
        converted: names that could have been meant too, where there is no such source.

    Raises:
        TSLMError: there is no such source, base or variant, or the source is of the other variant.
    """
    if variant not in (None, *VARIANTS):
        near = did_you_mean(variant or "", VARIANTS)
        raise TSLMError(f"unknown variant {variant!r}; there are {' and '.join(VARIANTS)}{near}")
    text, url_file, url_revision = _from_url(str(source))
    file, revision = file or url_file, revision or url_revision
    recipe = _choose(_candidates(text, variant, converted), text, base)
    if variant is not None and recipe.variant not in (None, variant):
        raise TSLMError(f"{text} is of the variant {recipe.variant}, not {variant}; leave out --variant {variant}")
    recipe = replace(recipe, variant=variant or recipe.variant)
    if llm is not None:
        recipe = replace(recipe, llm=llm, llm_revision=None)
    if (file or revision) and recipe.repo is None:
        raise TSLMError(f"{text} is no Hub repository, so it has no --file or --revision")
    return replace(recipe, file=file or recipe.file, revision=revision or recipe.revision)


def is_known(source: str) -> bool:
    """Whether a name is the demo's, a stage's, or that of a published checkpoint."""
    everything = [one for kind in VARIANTS for family in published(kind).values() for one in family]
    known = {known.lower() for one in everything for known in (one.repo, one.name) if known}
    return source.lower() in {"demo", *published(), *known}


def _from_url(text: str) -> tuple[str, str | None, str | None]:
    """A pasted address of the Hub as its repository, file and revision; other texts as they are."""
    endpoint = re.escape(os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/"))
    address = re.fullmatch(
        rf"(?:hf://|{endpoint}/|(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/)(?:models/)?"
        r"(?P<repo>[^/?#\s]+/[^/?#\s]+)(?:/(?:blob|resolve|tree|raw)/(?P<revision>[^/?#]+)(?:/(?P<file>[^?#]+))?)?/?"
        r"(?:[?#].*)?",
        text,
    )
    if address is None:
        slash = text.count("/") == 2 and text.endswith("/") and not text.startswith((".", "/", "~"))
        return (text.rstrip("/") if slash else text), None, None
    file, revision = address["file"], address["revision"]
    return address["repo"], file.rstrip("/") if file else None, None if revision == "main" else revision


def _candidates(text: str, variant: str | None, converted: Sequence[str]) -> list[Recipe]:
    path = Path(text).expanduser()
    if text.lower() == "demo":
        return [demo()]
    family = published(variant or "sp")
    if (stage := stages.find(text)) is not None and stage.name in family and not path.exists():
        return family[stage.name]
    if path.suffix == ".toml":
        return load(path)
    if path.is_file() or path.suffix in (".pt", ".pth", ".bin", ".ckpt"):
        return [replace(r, name=path.stem, repo=None, checkpoint=path) for r in _bases()]
    everything = [recipe for kind in VARIANTS for family in published(kind).values() for recipe in family]
    if named := [
        recipe for recipe in everything if text.lower() in ((recipe.repo or "").lower(), recipe.name.lower())
    ]:
        return named
    if text.count("/") == 1 and not path.exists() and not text.startswith((".", "~", "/")):
        return [replace(one, name=text.partition("/")[2], repo=text, revision=None) for one in _bases()]
    if path.is_dir():
        raise TSLMError(f"{text} is a folder; a source is {_SOURCES}")
    known = ["demo", *published(), *(recipe.name for recipe in everything), *converted]
    raise TSLMError(f"unknown source {text!r}{did_you_mean(text, known)}; it can be {_SOURCES}")


def _bases() -> list[Recipe]:
    """What a checkpoint without a recipe can be joined with: nothing that is known, or a published base by name."""
    known = next(iter(published().values()), [])
    return [Recipe(""), *(replace(recipe, title="", stage=None, variant=None) for recipe in known)]


def _choose(candidates: list[Recipe], text: str, base: str | None) -> Recipe:
    if base is None:
        return candidates[0]
    for recipe in candidates:
        if (recipe.base or "").lower() == base.lower():
            return recipe
    if "/" in base or Path(base).expanduser().is_dir():
        return replace(candidates[0], base=None, llm=base, llm_revision=None)
    known = ", ".join(recipe.base for recipe in candidates if recipe.base) or "none"
    raise TSLMError(
        f"{text} has no base LLM called {base!r}; there is {known}, or give a Hub name or folder with --llm"
        + did_you_mean(base, (recipe.base for recipe in candidates if recipe.base))
    )
