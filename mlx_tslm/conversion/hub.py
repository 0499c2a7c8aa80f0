"""Fetching from the Hugging Face Hub, with its problems said in one line."""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlx_tslm.conversion.base import OTHER_FILES, TOKENIZER_FILES
from mlx_tslm.conversion.recipe import Recipe
from mlx_tslm.errors import TSLMError
from mlx_tslm.models.weights import read_index

_LLM_FILES = ["config.json", "model*.safetensors", "model.safetensors.index.json", *TOKENIZER_FILES, *OTHER_FILES]


@dataclass(frozen=True)
class Fetched:
    """A file or folder on this machine, what to call it, and the Hub's commit where it came from there."""

    path: Path
    name: str
    revision: str | None = None


def fetch_checkpoint(recipe: Recipe) -> Fetched:
    """The recipe's checkpoint: the local file, or the Hub's, downloaded once into its own cache.

    Raises:
        TSLMError: it is missing, gated or cannot be fetched.
    """
    if recipe.checkpoint is not None:
        if not recipe.checkpoint.is_file():
            what = "is a folder, not a checkpoint" if recipe.checkpoint.is_dir() else "does not exist"
            raise TSLMError(f"{recipe.checkpoint} {what}")
        return Fetched(recipe.checkpoint, recipe.checkpoint.name)
    from huggingface_hub import hf_hub_download

    assert recipe.repo is not None
    repo, file, revision = recipe.repo, recipe.file, recipe.revision
    path = Path(_fetch(repo, lambda: hf_hub_download(repo, file, revision=revision), lambda: _others(recipe)))
    return Fetched(path, f"{repo}/{file}", path.parent.name)


def fetch_llm(recipe: Recipe, weights: bool = True) -> Fetched:
    """The recipe's base LLM: a local folder, or the Hub's, downloaded once into its own cache.

    Args:
        recipe: names it.
        weights: whether they are needed, or config and tokenizer alone.

    Raises:
        TSLMError: none is given, or it is missing, gated or cannot be fetched.
    """
    if recipe.llm is None:
        raise TSLMError(
            f"{recipe.name}: the checkpoint holds no {'base LLM' if weights else 'tokenizer of its base LLM'}; "
            "give its folder or Hub name with --llm, or a published one with --base llama-3.2-1b"
        )
    return fetch_base(recipe.llm, recipe.llm_revision, weights)


def fetch_base(llm: str, revision: str | None = None, weights: bool = True) -> Fetched:
    """A base LLM: a local folder, or the Hub's, downloaded once into its own cache.

    Raises:
        TSLMError: it is missing, gated or cannot be fetched.
    """
    folder = Path(llm).expanduser()
    if folder.is_dir():
        return Fetched(folder, folder.resolve().name)
    if llm.count("/") != 1 or llm.startswith((".", "/", "~")):
        raise TSLMError(f"there is no folder {llm} for the base LLM")
    from huggingface_hub import snapshot_download

    patterns = [pattern for pattern in _LLM_FILES if weights or "safetensors" not in pattern]
    path = Path(_fetch(llm, lambda: snapshot_download(llm, revision=revision, allow_patterns=patterns)))
    named = set((read_index(path) or {}).values()) if weights else set()
    if any(not (path / file).exists() for file in named):  # files of another name than usual
        patterns += named
        path = Path(_fetch(llm, lambda: snapshot_download(llm, revision=revision, allow_patterns=patterns)))
    return Fetched(path, llm, path.name)


def _others(recipe: Recipe) -> str:
    """What a repository has in place of a file that is not there."""
    from huggingface_hub import HfApi

    assert recipe.repo is not None
    repo, revision = recipe.repo, recipe.revision
    try:
        names = HfApi().list_repo_files(repo, revision=revision)
    except Exception:  # of whatever kind: this is advice, not the error
        return ""
    files = sorted(name for name in names if name.endswith((".pt", ".pth", ".bin", ".ckpt")))
    if not files:
        return "; it has no .pt file at all"
    listed = ", ".join(files[:8]) + (f" and {len(files) - 8} more" if len(files) > 8 else "")
    return f"; there is {listed}: name one with --file {files[0]}"


def _fetch(repo: str, download: Callable[[], str], others: Callable[[], str] = str) -> str:
    from huggingface_hub import errors
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # its retries would bury the one line below
    page = f"https://huggingface.co/{repo}"
    try:
        return download()
    except errors.GatedRepoError:
        raise TSLMError(
            f"{repo} is gated: ask for access at {page}, then log in with `hf auth login` and try again"
        ) from None
    except errors.RepositoryNotFoundError:
        raise TSLMError(
            f"there is no {repo} on the Hugging Face Hub, or it is private: look at {page}, "
            "and log in with `hf auth login` if it is yours"
        ) from None
    except errors.RevisionNotFoundError:
        raise TSLMError(f"{repo} has no such revision; look at {page}/commits/main") from None
    except errors.RemoteEntryNotFoundError:
        raise TSLMError(f"{repo} has no such file; look at {page}/tree/main{others()}") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError):
        raise TSLMError(
            f"{repo} is not on this machine and the Hugging Face Hub cannot be reached; go online, or give a "
            "local checkpoint (.pt) and --llm FOLDER"
        ) from None
    except errors.HFValidationError:
        raise TSLMError(f"{repo!r} is no name of a Hub repository; it should look like owner/name") from None
    except errors.HfHubHTTPError as error:
        raise TSLMError(f"fetching {repo} failed: {str(error).strip().splitlines()[0]}; look at {page}") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise TSLMError(
                f"the disk is full: {repo} could not be fetched; free some space and try again"
            ) from None
        raise TSLMError(f"fetching {repo} failed: {error}; try again") from None
