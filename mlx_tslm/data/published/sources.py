"""Where the published data sets are: on the web, and on this machine once they have been fetched."""

import shutil
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlx_tslm import stages
from mlx_tslm.errors import TSLMError
from mlx_tslm.fetching import hub
from mlx_tslm.fetching.http import Progress, download
from mlx_tslm.files import cache_dir

M4_FREQUENCIES = ("Daily", "Hourly", "Monthly", "Quarterly", "Weekly", "Yearly")
_POLYBOX = "https://polybox.ethz.ch/index.php/s"


@dataclass(frozen=True)
class Archive:
    """One download of a data set.

    Args:
        url: where it is, or the Hub's data set (owner/name) that has the file.
        name: of the file it is saved as; a `.zip` is unpacked into a folder of this name.
        holds: names that are there once it has been fetched.
        only: of a zip, take members with these in their path; all of them where empty.
    """

    url: str
    name: str
    holds: tuple[str, ...]
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A stage's published data set: its title, how large it is to download, how it is divided, its archives."""

    title: str
    size: str
    split: str
    archives: tuple[Archive, ...]


SOURCES = {
    "stage1": Source(
        "TSQA (Hugging Face Hub: ChengsenWang/TSQA)",
        "181 MB",
        "10 % / 10 % at random",
        (Archive("ChengsenWang/TSQA", "TSQA.csv", ("TSQA.csv",)),),
    ),
    "stage2": Source(
        "M4 captions (OpenTSLM)",
        "89 MB",
        "10 % / 10 % at random",
        (
            Archive(
                f"{_POLYBOX}/MT3y9WdEebT8wfj/download/M4TimeSeriesCaptionDatasetV02.zip",
                "m4_captions.zip",
                tuple(f"m4_{kind}_{name}.csv" for name in M4_FREQUENCIES for kind in ("series", "captions")),
            ),
        ),
    ),
    "stage3": Source(
        "HAR CoT (OpenTSLM)",
        "size not stated",
        "as published",
        (
            Archive(
                f"{_POLYBOX}/kD74GnMYxn3HBEM/download",
                "har_cot.zip",
                tuple(f"har_cot_{split}_cot.csv" for split in ("train", "val", "test")),
            ),
        ),
    ),
    "stage4": Source(
        "Sleep-EDF CoT (OpenTSLM)",
        "about 300 MB",
        "10 % / 10 % by label",
        (Archive(f"{_POLYBOX}/ZryWSdCFJZ9JR3R/download", "sleep_cot.csv", ("sleep_cot.csv",)),),
    ),
    "stage5": Source(
        "ECG-QA CoT (OpenTSLM) on PTB-XL 1.0.3 (PhysioNet)",
        "about 2 GB",
        "as published",
        (
            Archive(
                f"{_POLYBOX}/D5QaJSEw4dXkzXm/download/ecg_qa_cot_final.zip",
                "ecg_qa_cot.zip",
                tuple(f"ecg_qa_cot_{split}.csv" for split in ("train", "val", "test")),
            ),
            Archive(
                "https://physionet-open.s3.amazonaws.com/ptb-xl/ptb-xl-1.0.3.zip",
                "ptb-xl-1.0.3.zip",
                ("records500",),
                ("/records500/", "/LICENSE", "/ptbxl_database.csv"),
            ),
        ),
    ),
}


def cache(stage: str) -> Path:
    """Where a stage's data are kept after `fetch`."""
    return cache_dir() / "data" / stages.get(stage).key


def folder(stage: str, data_dir: str | Path | None = None) -> Path:
    """The folder that holds a stage's files: `data_dir`, else the cache.

    Raises:
        TSLMError: there is no such folder, or nothing has been fetched.
    """
    if data_dir is not None:
        path = Path(data_dir).expanduser()
        if not path.is_dir():
            raise TSLMError(f"--data-dir {data_dir}: there is no such folder")
        return path
    path = cache(stage)
    if not path.is_dir():
        raise TSLMError(
            f"the data of {stage} are not on this machine: run `mlx-tslm data fetch {stage}`, "
            "or give the folder that has them with --data-dir"
        )
    return path


def find(folder: Path, name: str) -> Path:
    """A file or folder of this name in `folder`, or up to two folders below.

    Raises:
        TSLMError: there is none.
    """
    for pattern in (name, f"*/{name}", f"*/*/{name}"):
        if found := sorted(folder.glob(pattern)):
            return found[0]
    stage = next(stage for stage, source in SOURCES.items() if any(name in one.holds for one in source.archives))
    raise TSLMError(f"{folder} has no {name}; run `mlx-tslm data fetch {stage}`, or give another --data-dir")


def present(archive: Archive, folder: Path) -> bool:
    """Whether all that an archive holds is in the folder."""
    try:
        return all(find(folder, name) for name in archive.holds)
    except TSLMError:
        return False


def fetch(stage: str, progress: Progress | None = None) -> Path:
    """Download and unpack what is not there yet of a stage's data set.

    Downloads that broke off are taken up where they ended. A zip's members are checked against their CRC.

    Args:
        progress: called with what is being done, bytes done and bytes in all (None where not known).

    Returns:
        The folder that holds it.

    Raises:
        TSLMError: something cannot be fetched, or is not what it should be.
    """
    stage = stages.get(stage).name
    target = cache(stage)
    target.mkdir(parents=True, exist_ok=True)
    report = progress or (lambda what, done, total: None)
    for archive in SOURCES[stage].archives:
        file = target / archive.name
        if present(archive, target):
            if file.suffix == ".zip":
                file.unlink(missing_ok=True)  # unpacked; a kill may have left it
            continue
        if file.suffix == ".zip" and file.exists():
            pass  # whole, but not unpacked yet
        elif "://" in archive.url:
            download(archive.url, file, report)
        else:
            try:
                hub.save_dataset_file(archive.url, archive.name, file, report)
            except TSLMError as error:
                raise TSLMError(
                    f"{archive.name} cannot be fetched from the Hub: {error}; or download it by hand and give its "
                    "folder with --data-dir"
                ) from None
        if file.suffix == ".zip":
            _unpack(file, archive, report)
    return target


def _unpack(file: Path, archive: Archive, report: Callable[[str, int, int | None], None]) -> None:
    """Unpack a zip into a folder beside it, which appears when it is whole; then delete the zip."""
    target = file.with_suffix("")
    partial = file.with_name(f".{file.stem}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with zipfile.ZipFile(file) as zipped:
            members = [
                member
                for member in zipped.infolist()
                if not archive.only or any(part in f"/{member.filename}" for part in archive.only)
            ]
            total, done = sum(member.file_size for member in members), 0
            for member in members:
                zipped.extract(member, partial)
                done += member.file_size
                report(f"unpacking {file.name}", done, total)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        file.unlink()
        raise TSLMError(
            f"{file.name} from {archive.url} is damaged ({error}) and was deleted; fetch it again"
        ) from None
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    missing = [name for name in archive.holds if not _holds(partial, name)]
    if missing:
        shutil.rmtree(partial, ignore_errors=True)
        raise TSLMError(f"{file} from {archive.url} has no {missing[0]}: what is published there has changed")
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    file.unlink()


def _holds(folder: Path, name: str) -> bool:
    return any(True for pattern in (name, f"*/{name}") for _ in folder.glob(pattern))
