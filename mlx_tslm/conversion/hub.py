"""What a recipe needs: a checkpoint and a base LLM, from this machine or the Hugging Face Hub."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mlx_tslm.conversion.base import OTHER_FILES, TOKENIZER_FILES
from mlx_tslm.conversion.recipe import Recipe
from mlx_tslm.errors import TSLMError
from mlx_tslm.fetching import hub
from mlx_tslm.fetching.asking import NoSuchFile
from mlx_tslm.fetching.http import Progress
from mlx_tslm.models.weights import read_index

_LLM_FILES = ["config.json", "model*.safetensors", "model.safetensors.index.json", *TOKENIZER_FILES, *OTHER_FILES]


@dataclass(frozen=True)
class Fetched:
    """A file or folder on this machine, what to call it, and the Hub's commit where it came from there."""

    path: Path
    name: str
    revision: str | None = None


def fetch_checkpoint(recipe: Recipe, progress: Progress | None = None) -> Fetched:
    """The recipe's checkpoint: the local file, or the Hub's, downloaded once into its own cache.

    Raises:
        TSLMError: it is missing, gated or cannot be fetched.
    """
    if recipe.checkpoint is not None:
        if not recipe.checkpoint.is_file():
            what = "is a folder, not a checkpoint" if recipe.checkpoint.is_dir() else "does not exist"
            raise TSLMError(f"{recipe.checkpoint} {what}")
        return Fetched(recipe.checkpoint, recipe.checkpoint.name)
    assert recipe.repo is not None
    try:
        path = hub.cached_file(recipe.repo, recipe.file, recipe.revision, progress)
    except NoSuchFile as error:
        raise TSLMError(f"{error}{_others(recipe)}") from None
    depth = len(PurePosixPath(recipe.file).parts)
    return Fetched(path, f"{recipe.repo}/{recipe.file}", path.parents[depth - 1].name)


def fetch_llm(recipe: Recipe, weights: bool = True, progress: Progress | None = None) -> Fetched:
    """The recipe's base LLM: a local folder, or the Hub's, downloaded once into its own cache.

    Args:
        recipe: names it.
        weights: whether they are needed, or config and tokenizer alone.
        progress: called as bytes arrive; by default the Hub's own bar is drawn.

    Raises:
        TSLMError: none is given, or it is missing, gated or cannot be fetched.
    """
    if recipe.llm is None:
        raise TSLMError(
            f"{recipe.name}: the checkpoint holds no {'base LLM' if weights else 'tokenizer of its base LLM'}; "
            "give its folder or Hub name with --llm, or a published one with --base llama-3.2-1b"
        )
    return fetch_base(recipe.llm, recipe.llm_revision, weights, progress)


def fetch_base(
    llm: str, revision: str | None = None, weights: bool = True, progress: Progress | None = None
) -> Fetched:
    """A base LLM: a local folder, or the Hub's, downloaded once into its own cache.

    Raises:
        TSLMError: it is missing, gated or cannot be fetched.
    """
    folder = Path(llm).expanduser()
    if folder.is_dir():
        return Fetched(folder, folder.resolve().name)
    if llm.count("/") != 1 or llm.startswith((".", "/", "~")):
        raise TSLMError(f"there is no folder {llm} for the base LLM")
    patterns = [pattern for pattern in _LLM_FILES if weights or "safetensors" not in pattern]
    path = hub.cached_folder(llm, patterns, revision, progress)
    named = set((read_index(path) or {}).values()) if weights else set()
    if any(not (path / file).exists() for file in named):  # files of another name than usual
        path = hub.cached_folder(llm, [*patterns, *named], revision, progress)
    return Fetched(path, llm, path.name)


def _others(recipe: Recipe) -> str:
    """What a repository has in place of a file that is not there."""
    assert recipe.repo is not None
    names = hub.names(recipe.repo, recipe.revision)
    files = sorted(name for name in names if name.endswith((".pt", ".pth", ".bin", ".ckpt")))
    if not names:
        return ""
    if not files:
        return "; it has no .pt file at all"
    listed = ", ".join(files[:8]) + (f" and {len(files) - 8} more" if len(files) > 8 else "")
    return f"; there is {listed}: name one with --file {files[0]}"
