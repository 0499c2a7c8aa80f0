"""The folder an evaluation lives in: what was asked for, and every finished sample on a line of its own.

config.json              what the answers depend on
METHOD.jsonl             one record a sample; while several processes run, METHOD.rankN.jsonl beside it
metrics.json             the figures
confusion-METHOD.svg     where a stage has labels
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from mlx_tslm.errors import TSLMError
from mlx_tslm.files import whole_lines, write_atomically

FORMAT = 2
Record = dict[str, Any]


class Folder:
    """An evaluation's folder, made where it does not exist.

    Args:
        path: the folder.
        rank: of this process; each writes a file of its own.
    """

    def __init__(self, path: Path, rank: int = 0) -> None:
        self.path, self._rank = path, rank

    def agree(self, common: dict[str, Any], methods: dict[str, dict[str, Any]]) -> None:
        """Note what the answers depend on, or find it noted already.

        Args:
            common: what all methods must share.
            methods: each method's own settings. Methods noted before and not named here stay as they are.

        Raises:
            TSLMError: the folder holds an evaluation with other settings, or something else.
        """
        file = self.path / "config.json"
        noted: dict[str, Any] = {"methods": {}}
        if file.exists():
            try:
                noted = json.loads(file.read_text())
                self._compare({**noted, "methods": None}, {"format": FORMAT, **common, "methods": None})
                for name in methods.keys() & noted["methods"].keys():
                    self._compare(noted["methods"][name], methods[name], f"{name} with ")
            except (OSError, KeyError, AttributeError, TypeError, json.JSONDecodeError) as error:
                raise TSLMError(
                    f"{file} is not an evaluation's config.json ({error}); choose another --output"
                ) from None
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.glob("*.jsonl"))):
            raise TSLMError(f"{self.path} exists and is not an evaluation's folder; choose another --output")
        self.path.mkdir(parents=True, exist_ok=True)
        whole = {"format": FORMAT, **common, "methods": noted["methods"] | methods}
        write_atomically(file, json.dumps(whole, indent=2) + "\n")

    def _compare(self, noted: dict[str, Any], asked: dict[str, Any], of: str = "") -> None:
        for name in {**noted, **asked}:
            old, new = noted.get(name), asked.get(name)
            if old != new:
                raise TSLMError(
                    f"{self.path} holds an evaluation of {of}{name} {old!r}, not {new!r}; choose another --output"
                )

    def methods(self) -> list[str]:
        """The methods noted, in the order they were first asked for."""
        return list(json.loads((self.path / "config.json").read_text())["methods"])

    def read(self, method: str) -> dict[int, Record]:
        """The finished samples of all processes, by index and in its order. A line that was cut off does not count.

        Raises:
            TSLMError: another line is no record.
        """
        records: dict[int, Record] = {}
        for file in (self._file(method), *self._parts(method)):
            if not file.exists():
                continue
            for number, line in enumerate(whole_lines(file), 1):
                try:
                    record = json.loads(line)
                    records[record["index"]] = record
                except (json.JSONDecodeError, KeyError, TypeError):
                    raise TSLMError(
                        f"{file}, line {number}, is not a record of an evaluation; remove the line to do it again"
                    ) from None
        return dict(sorted(records.items()))

    def open(self, method: str) -> TextIO:
        """This process's file, to append records to with `write`."""
        file = self._file(method) if self._rank == 0 else self.path / f"{slug(method)}.rank{self._rank}.jsonl"
        if file.exists():
            with file.open("rb+") as torn:  # a process was killed in the middle of its last line
                torn.truncate(torn.read().rfind(b"\n") + 1)
        return file.open("a", encoding="utf-8")

    def merge(self, method: str, records: Iterable[Record]) -> None:
        """Put all records into one file, in the order of the samples, and remove the processes' own."""
        lines = [
            json.dumps(one, ensure_ascii=False) + "\n" for one in sorted(records, key=lambda one: one["index"])
        ]
        write_atomically(self._file(method), "".join(lines))
        for part in self._parts(method):
            part.unlink()

    def _file(self, method: str) -> Path:
        return self.path / f"{slug(method)}.jsonl"

    def _parts(self, method: str) -> list[Path]:
        return sorted(self.path.glob(f"{slug(method)}.rank*.jsonl"))


def write(file: TextIO, record: Record) -> None:
    """Append a record, and hand it to the system at once: a process that is killed loses nothing finished."""
    file.write(json.dumps(record, ensure_ascii=False) + "\n")
    file.flush()


def slug(method: str) -> str:
    """A method's name as part of a file's: "dts*" is "dts-star"."""
    return method.replace("*", "-star")
