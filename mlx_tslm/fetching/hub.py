"""Files of the Hugging Face Hub or of a mirror, into the Hub's own cache: whole, checked, and resumed.

huggingface_hub knows names, addresses, tokens and the environment (HF_ENDPOINT, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE,
HF_HUB_ETAG_TIMEOUT, HF_HUB_DOWNLOAD_TIMEOUT) and asks the questions. The bytes are fetched here, since it starts
anew when a download broke off, does not compare hashes, and waits for minutes without a word.
"""

import errno
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from mlx_tslm.errors import TSLMError
from mlx_tslm.fetching import http
from mlx_tslm.fetching.asking import NotTheHub, Unanswered, asked, host, page
from mlx_tslm.files import write_atomically

_log = logging.getLogger(__name__)


def cached_file(repo: str, name: str, revision: str | None = None, progress: http.Progress | None = None) -> Path:
    """A file of a model's repository in the Hub's cache, fetched where it is not there yet.

    Where the Hub does not answer, the file that is there counts. A file is compared with the hash that the Hub
    states for it (SHA-256 of large files, git's SHA-1 of small ones); if it differs it is fetched once more.

    Raises:
        TSLMError: it does not exist, may not be had or cannot be fetched; says why, and what to do.
    """
    stated = lambda: _metadata(repo, name, revision, "model")  # noqa: E731
    return _into_cache(repo, name, revision, stated, progress)


def cached_folder(
    repo: str, patterns: Sequence[str], revision: str | None = None, progress: http.Progress | None = None
) -> Path:
    """The files of a model's repository whose names match, as a folder in the Hub's cache; see `cached_file`.

    Raises:
        TSLMError: as `cached_file`.
    """
    from huggingface_hub import HfApi, constants

    api = HfApi()

    def listed() -> tuple[str, list[str]]:
        commit = api.model_info(repo, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT).sha
        if not isinstance(commit, str):
            raise NotTheHub
        tree = api.list_repo_tree(repo, recursive=True, revision=commit)
        return commit, [entry.path for entry in tree if hasattr(entry, "size")]

    try:
        commit, names = asked(repo, listed, patient=_snapshot(repo, revision) is None)
    except Unanswered as error:
        if folder := _snapshot(repo, revision):
            return folder
        raise error.explained from None
    wanted = [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)]
    if not wanted:
        raise TSLMError(f"{repo} has none of {', '.join(patterns[:3])} …; look at {page(repo)}/tree/main")
    for name in wanted:
        _into_cache(repo, name, commit, lambda name=name: _metadata(repo, name, commit, "model"), progress)  # type: ignore[misc]
    _remember(repo, revision, commit)
    return _storage(repo) / "snapshots" / commit


def save_dataset_file(repo: str, name: str, path: Path, progress: http.Progress) -> None:
    """A file of a data set's repository, saved as `path`; checked as in `cached_file`.

    Raises:
        TSLMError: as `cached_file`.
    """
    try:
        stated = asked(repo, lambda: _metadata(repo, name, None, "dataset"), kind="dataset")
    except Unanswered as error:
        raise error.explained from None
    _download(repo, name, stated, path, progress)


def names(repo: str, revision: str | None = None) -> list[str]:
    """The files of a model's repository; [] where the Hub does not say."""
    from huggingface_hub import HfApi

    try:
        return HfApi().list_repo_files(repo, revision=revision)
    except Exception:  # of whatever kind: this is advice, not the error
        return []


class _Stated:
    """What the Hub says of a file: its address, commit, hash or other tag, and size in bytes."""

    def __init__(self, metadata: Any, asked: str) -> None:
        if metadata.commit_hash is None or metadata.etag is None:
            raise NotTheHub
        self.url = str(metadata.location)
        self.own_host = urlsplit(self.url)[:2] == urlsplit(asked)[:2]  # scheme and host
        self.commit = _as_name(metadata.commit_hash)
        self.tag = _as_name(metadata.etag)
        self.size: int | None = metadata.size


def _metadata(repo: str, name: str, revision: str | None, kind: str) -> _Stated:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise TSLMError(f"{repo} has a file of the name {name[:200]!r}, which leads out of its folder; not fetched")
    url = hf_hub_url(repo, name, repo_type=kind, revision=revision)
    timeout = constants.HF_HUB_ETAG_TIMEOUT
    return _Stated(get_hf_file_metadata(url, timeout=timeout), url)


def _into_cache(
    repo: str, name: str, revision: str | None, ask: Callable[[], _Stated], progress: http.Progress | None
) -> Path:
    from huggingface_hub import try_to_load_from_cache

    found: Any = None
    with suppress(Exception):  # of names that are none; the Hub says so better
        found = try_to_load_from_cache(repo, name, revision=revision)
    here = Path(found) if isinstance(found, str) and _is_whole(Path(found), repo) else None
    if here is not None and revision is not None and here.parts[-1 - len(PurePosixPath(name).parts)] == revision:
        return here  # a commit does not change
    try:
        stated = asked(repo, ask, patient=here is None)
    except Unanswered as error:
        if here is not None:
            return here
        raise error.explained from None
    storage = _storage(repo)
    blob, link = storage / "blobs" / stated.tag, storage / "snapshots" / stated.commit / name
    if not link.exists():
        try:
            blob.parent.mkdir(parents=True, exist_ok=True)
            link.parent.mkdir(parents=True, exist_ok=True)
            if not blob.exists():
                _download(repo, name, stated, blob, progress)
            link.unlink(missing_ok=True)  # one that leads nowhere
            _link(blob, link)
        except OSError as error:
            raise _of_the_disk(error, repo) from None
    _remember(repo, revision, stated.commit)
    return link


def _download(repo: str, name: str, stated: _Stated, path: Path, progress: http.Progress | None) -> None:
    """Fetch a file and compare it with its hash; where it differs, once more."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers

    sent = {key: value for key, value in build_hf_headers().items() if stated.own_host and key == "authorization"}
    for again in (False, True):
        with _Bar(progress) as report:
            http.download(
                stated.url, path, report, headers=sent, size=stated.size, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
                advice=f"look at {page(repo)}", name=f"{repo}/{name}",
            )  # fmt: skip
        if _agrees(path, stated.tag):
            return
        http.discard(path)
        if not again:
            _log.warning(f"{repo}/{name} is not what {host()} says it is; it is fetched once more")
    raise TSLMError(
        f"{repo}/{name}: the bytes that arrive are not those that {host()} states ({stated.tag[:12]}…), twice; "
        "they were deleted: a proxy or mirror on the way alters them; try another network, or without HF_ENDPOINT"
    )


def _agrees(path: Path, tag: str) -> bool:
    """Whether a file has the hash by which the Hub calls it; True for a tag that is no hash."""
    tag = tag.lower()
    with path.open("rb") as file:
        if re.fullmatch("[0-9a-f]{64}", tag):
            return hashlib.file_digest(file, "sha256").hexdigest() == tag
        if re.fullmatch("[0-9a-f]{40}", tag):
            plain, as_git = hashlib.sha1(), hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size)
            while chunk := file.read(1 << 20):
                plain.update(chunk)
                as_git.update(chunk)
            return tag in (as_git.hexdigest(), plain.hexdigest())
    return True


def _is_whole(path: Path, repo: str) -> bool:
    """Whether a file of the cache has the hash it is called by; one that has not is removed."""
    blob = path.resolve()
    if not path.exists() or _agrees(blob, blob.name):
        return path.exists()
    _log.warning(f"{path.name} of {repo} in the cache is damaged; it is fetched again")
    for file in (path, blob):
        file.unlink(missing_ok=True)
    return False


def _storage(repo: str) -> Path:
    """A repository's folder in the cache: `blobs` by hash, `snapshots` by commit with links to them, and `refs`."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser() / f"models--{repo.replace('/', '--')}"


def _snapshot(repo: str, revision: str | None) -> Path | None:
    """The folder of a revision in the cache, if it is there."""
    storage, name = _storage(repo), revision or "main"
    ref = storage / "refs" / name
    folder = storage / "snapshots" / (ref.read_text().strip() if ref.is_file() else name)
    return folder if folder.is_dir() else None


def _remember(repo: str, revision: str | None, commit: str) -> None:
    """Note which commit a branch or tag is at."""
    name = PurePosixPath(revision or "main")
    ref = _storage(repo) / "refs" / name
    if str(name) == commit or name.is_absolute() or ".." in name.parts:
        return
    with suppress(OSError):  # a cache that is only read
        ref.parent.mkdir(parents=True, exist_ok=True)
        if not ref.is_file() or ref.read_text() != commit:
            write_atomically(ref, commit)


def _link(blob: Path, link: Path) -> None:
    try:
        link.symlink_to(os.path.relpath(blob, link.parent))
    except FileExistsError:
        pass  # another process was faster
    except OSError:  # a file system without links
        shutil.copyfile(blob, link)


def _as_name(text: str) -> str:
    """A commit or tag that a server states, as a file's name: what could lead elsewhere is hashed."""
    plain = re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}", text)
    return text if plain else hashlib.md5(text.encode()).hexdigest()


def _of_the_disk(error: OSError, repo: str) -> TSLMError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TSLMError(f"the disk is full: {repo} could not be fetched; free some space and try again")
    where = f" ({error.filename})" if error.filename else ""
    return TSLMError(
        f"{repo} could not be stored: {error.strerror or error}{where}; HF_HOME names a folder for the Hub's files"
    )


class _Bar:
    """Progress as the caller wants it, else as the Hub's own bar (which HF_HUB_DISABLE_PROGRESS_BARS turns off)."""

    def __init__(self, progress: http.Progress | None) -> None:
        self._progress = progress
        self._bar: Any = None

    def __enter__(self) -> http.Progress:
        return self._progress or self._draw

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _draw(self, what: str, done: int, total: int | None) -> None:
        from huggingface_hub.utils import tqdm

        if self._bar is None:
            self._bar = tqdm(desc=what, total=total, unit="B", unit_scale=True)
        self._bar.update(done - self._bar.n)
