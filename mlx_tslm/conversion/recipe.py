"""What to convert: recipes in TOML, Hub names and local files, all resolved to one `Recipe`.

A recipe file describes a family of checkpoints (see `convert/stage1.toml`). Its keys, at the top or in one table
`[base.NAME]` for each base LLM: `stage`, `variant`, `title`; `repo` (a Hub repository), `file` in it and
`revision`, or `checkpoint` (a local `.pt`); `llm` (a Hub repository or a folder) and `llm_revision`. `default`
names the base that is taken unless another is asked for. Local paths are relative to the recipe.
"""

import json
import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from mlx_tslm import depth, stages
from mlx_tslm.errors import TSLMError

_PACKAGE = Path(__file__).parent.parent
_KEYS = {"stage", "variant", "title", "repo", "file", "revision", "checkpoint", "llm", "llm_revision"}
_SOURCES = (
    "demo, stage1 … stage5, a Hub name such as OpenTSLM/llama-3.2-1b-ecg-sp, a recipe (.toml) or a checkpoint (.pt)"
)


@dataclass(frozen=True)
class Recipe:
    """One checkpoint to convert, and the base LLM to join it with.

    Either `checkpoint` (a local file) or `repo` and `file` are set. `llm` is a folder or a Hub repository; None
    where nobody has said yet. `leads` are those of an ECG that the model reads, if not all twelve; `trained_on` is
    `ModelConfig.trained_on`.
    """

    name: str
    stage: str | None = None
    variant: str = "sp"
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
        base="demo",
        stage="stage2",
        checkpoint=folder / "model_checkpoint.pt",
        llm=str(folder / "base"),
        leads=("II", "V1"),
        trained_on=json.loads((folder / "trained_on.json").read_text("utf-8")),
    )


@cache
def published() -> dict[str, list[Recipe]]:
    """The project's recipes: for each stage, one a base LLM, the default first."""
    return {path.stem: load(path) for path in sorted(recipe_folder().glob("*.toml"))}


def load(path: Path) -> list[Recipe]:
    """Read a recipe file: one `Recipe` a base LLM, the default first.

    Raises:
        TSLMError: the file is missing, no TOML, or says something unknown or too little.
    """
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TSLMError(f"cannot read the recipe {path}: {error}") from None
    bases: dict[str | None, dict[str, Any]] = table.pop("base", None) or {None: {}}
    default = table.pop("default", next(iter(bases)))
    if default not in bases:
        raise TSLMError(f"{path.name}: default = {default!r}, but there is no [base.{default!r}]")
    recipes = [_from_table(path, base, table | bases[base]) for base in bases]
    return sorted(recipes, key=lambda recipe: recipe.base != default)


def _from_table(path: Path, base: str | None, table: dict[str, Any]) -> Recipe:
    if unknown := next((key for key in table if key not in _KEYS), None):
        raise TSLMError(f"{path.name}: unknown key {unknown!r}; known ones are {', '.join(sorted(_KEYS))}")
    if wrong := next((key for key, value in table.items() if not isinstance(value, str)), None):
        raise TSLMError(f"{path.name}: {wrong} must be text")
    if ("repo" in table) == ("checkpoint" in table):
        raise TSLMError(f"{path.name}: give either repo (on the Hub) or checkpoint (a local .pt)")
    if "llm" not in table:
        raise TSLMError(f"{path.name}: llm is missing: the base LLM's Hub repository or folder")
    name = table["repo"].rpartition("/")[2] if "repo" in table else path.stem
    fields = table | {"llm": _relative(path, table["llm"])}
    if "stage" in table:
        fields["stage"] = stage = stages.get(table["stage"]).name
        fields["trained_on"] = depth.published(stage)
    if "checkpoint" in table:
        fields["checkpoint"] = path.parent / Path(table["checkpoint"]).expanduser()
    return Recipe(name=name, base=base, **fields)


def _relative(path: Path, llm: str) -> str:
    folder = path.parent / Path(llm).expanduser()
    return str(folder) if folder.is_dir() or llm.startswith((".", "/", "~")) else llm


def resolve(source: str | Path, llm: str | None = None, variant: str = "sp", base: str | None = None) -> Recipe:
    """Find out what a user means.

    Args:
        source: "demo", a stage, a Hub repository, a recipe file or a local `.pt`.
        llm: a base LLM (folder or Hub repository) in place of the recipe's.
        variant: "sp" (soft prompt); "flamingo" is not supported yet.
        base: the name of one of the recipe's base LLMs, e.g. "gemma-3-270m".

    Raises:
        TSLMError: there is no such source or base, or the variant is not supported.
    """
    text = str(source)
    recipe = _choose(_candidates(text), text, base)
    if recipe.variant != "sp" or variant != "sp":
        known = {"sp", "flamingo"} >= {recipe.variant, variant}
        raise TSLMError(
            "the Flamingo variant is not supported yet; take the soft-prompt one (--variant sp)"
            if known
            else f"unknown variant {variant!r}; there are sp and flamingo"
        )
    if llm is not None:
        recipe = replace(recipe, llm=llm, llm_revision=None)
    return recipe


def _candidates(text: str) -> list[Recipe]:
    path = Path(text).expanduser()
    if text == "demo":
        return [demo()]
    if text in published():
        return published()[text]
    if path.suffix == ".toml":
        return load(path)
    if path.is_file() or path.suffix in (".pt", ".pth", ".bin", ".ckpt"):
        return [replace(r, name=path.stem, stage=None, repo=None, checkpoint=path) for r in _bases()]
    everything = [recipe for family in published().values() for recipe in family]
    if named := [recipe for recipe in everything if text in (recipe.repo, recipe.name)]:
        return named
    if text.endswith("-flamingo"):
        return [Recipe(text, variant="flamingo")]
    if text.count("/") == 1 and not path.exists() and not text.startswith((".", "~", "/")):
        return [Recipe(text.partition("/")[2], repo=text)]
    if path.is_dir():
        raise TSLMError(f"{text} is a folder; a source is {_SOURCES}")
    raise TSLMError(f"unknown source {text!r}; it can be {_SOURCES}")


def _bases() -> list[Recipe]:
    """What a checkpoint without a recipe can be joined with: nothing that is known, or a published base by name."""
    return [Recipe(""), *(replace(recipe, title="") for recipe in next(iter(published().values()), []))]


def _choose(candidates: list[Recipe], text: str, base: str | None) -> Recipe:
    if base is None:
        return candidates[0]
    for recipe in candidates:
        if recipe.base == base:
            return recipe
    known = ", ".join(recipe.base for recipe in candidates if recipe.base) or "none"
    raise TSLMError(f"{text} has no base LLM called {base!r}; there is {known}")
