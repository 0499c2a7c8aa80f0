"""A table of questions about recordings, checked: every row is read before anything is done with one."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from mlx_tslm import stages
from mlx_tslm.data.dataset import SPLITS, Dataset, Row
from mlx_tslm.data.own import splits, task
from mlx_tslm.data.own.table import Bad, Entry, one_line, read
from mlx_tslm.errors import TSLMError
from mlx_tslm.signals.files import open_source, part
from mlx_tslm.signals.recording import Recording, resample
from mlx_tslm.signals.source import How, SeveralCases, Source
from mlx_tslm.stages import Stage
from mlx_tslm.stages.answers import folded

ENOUGH = 20
"""Fewer examples than that are not trained on."""

ALL = "all"
"""In place of a split: every row of the table."""

_KEPT_BYTES = 1 << 30  # of recordings that have been read
_RARE = 3  # rows of an answer, below which a note says so
_PATCH = 4  # samples: no series is shorter


class Questions:
    """The rows of a table as data sets, `train`, `validation` and `test`.

    Args:
        path: the table, or a folder with a `questions.csv`.
        stage: the task they are questions of; where None, one made of the table, see `task.make`.
        medical: whether answers might be taken for a diagnosis; of a task that is made.

    Attributes:
        stage: the task.
        notes: what a person should know of the table, one sentence each.

    Raises:
        TSLMError: rows are wrong (the first, what is wrong with it, and the number of the others), or the table is.
    """

    def __init__(self, path: str | Path, stage: Stage | None = None, medical: bool = False) -> None:
        self.path = Path(path) / "questions.csv" if Path(path).is_dir() else Path(path)
        table = read(self.path)
        self.entries, self.notes = table.entries, list(table.notes)
        self._kept: dict[int, Recording] = {}
        self._bytes = 0
        self._open: tuple[tuple[Path, How], Source] | None = None
        bad = list(table.bad)
        wrong: set[int] = set()
        for number, entry in enumerate(self.entries):
            try:
                self._read(number, stage.rate if stage else None)
            except TSLMError as error:
                wrong.add(number)
                bad.append(Bad(entry.row, str(error)))
        if stage is None:
            self.stage = self._make_task(medical, bad)
        else:  # a published stage's wording, with the table's answers
            self.stage = task.like(stage, self.path.stem, self.entries) if stage.name in stages.names() else stage
        for number, entry in enumerate(self.entries):
            try:
                if number not in wrong:
                    self._check(number)
            except TSLMError as error:
                bad.append(Bad(entry.row, f"{entry.recording}: {error}"))
        self.assigned, more = self._splits()
        bad += more
        if bad:
            raise one_line(self.path, bad)
        self._note()

    def of(self, split: str, limit: int | None = None) -> Dataset:
        """One split, or "all": rows with `recording`, `question` and `target`, and where they are `from`.

        Args:
            limit: the first rows only.

        Raises:
            TSLMError: there is no such split, or no row is in it.
        """
        if split not in (*SPLITS, ALL):
            raise TSLMError(f"there is no split {split!r}; choose {', '.join(SPLITS)} or {ALL}")
        numbers = [number for number, own in enumerate(self.assigned) if split in (own, ALL)][:limit]
        if not numbers:
            raise TSLMError(f"{self.path}: no row is in the {split} split ({self._sizes()}); {ALL} takes all")
        return Dataset(self.stage, split, len(numbers), lambda at: self._row(numbers[at]))

    def check_ready(self, max_samples: int) -> None:
        """See that a model can be trained on the table.

        Args:
            max_samples: the longest series that it reads.

        Raises:
            TSLMError: there are too few examples, an answer is never trained on, or a series is too long.
        """
        if len(self.entries) < ENOUGH:
            raise TSLMError(
                f"{self.path} has {len(self.entries)} examples (rows {self.entries[0].row} to "
                f"{self.entries[-1].row}), too few to train on; give at least {ENOUGH}, better some hundreds"
            )
        for split in ("train", "validation"):
            if split not in self.assigned:
                raise TSLMError(f"{self.path}: no row is in the {split} split; its splits are {self._sizes()}")
        bad = []
        for number, entry in enumerate(self.entries):
            length = self._recording(number).values.shape[1]
            if length > max_samples:
                said = f"has {length} samples, more than the {max_samples} the model reads"
                bad.append(Bad(entry.row, f"{entry.recording} {said}; cut it (start, seconds)"))
        if self.stage.labels:
            learnt = {self._answer(number) for number, own in enumerate(self.assigned) if own == "train"}
            for number, entry in enumerate(self.entries):
                if self._answer(number) not in learnt:
                    bad.append(Bad(entry.row, f"its answer {entry.answer!r} stands in no row that is trained on"))
        if bad:
            raise one_line(self.path, bad)

    def _row(self, number: int) -> Row:
        entry = self.entries[number]
        return {
            "recording": self._recording(number),
            "question": entry.question or None,
            "target": self.stage.target(self._answer(number), entry.rationale),
            "from": {"row": entry.row, "recording": entry.recording, "case": entry.how.case},
        }

    def _answer(self, number: int) -> str:
        """A row's answer in the spelling of its label.

        Raises:
            TSLMError: it is none of the labels.
        """
        entry = self.entries[number]
        labels = self.stage.texts(entry.question or None)[2]
        if not labels:
            return entry.answer
        found = self.stage.parse(f"{self.stage.marker or ''} {entry.answer}", labels)
        if found is None or found not in labels:
            listed = ", ".join(list(labels)[:12]) + (", …" if len(labels) > 12 else "")
            raise TSLMError(f"its answer {entry.answer!r} is none of the labels: {listed}")
        return found

    def _check(self, number: int) -> None:
        """See that a row makes a question.

        Raises:
            TSLMError: it does not.
        """
        recording, stage = self._read(number, self.stage.rate), self.stage
        if stage.rate is not None and recording.rate != stage.rate and not stage.resample:
            own = "has uneven steps" if recording.rate is None else f"is recorded at {recording.rate:g} Hz"
            raise TSLMError(f"it {own}, but the task is at {stage.rate:g} Hz; resample = true there allows it")
        row = self._row(number)
        samples, wanted = row["recording"].values.shape[1], stage.length or _PATCH
        if samples < wanted:
            raise TSLMError(f"it has {samples} samples, too short for the {wanted} that a question reads")
        if row["question"] is None and stage.takes_question and not stage.default_question:
            raise TSLMError("its question is empty, and the task has no default_question")
        stage.from_row(row)

    def _recording(self, number: int) -> Recording:
        """A row's part of its recording, at the task's rate, as long as the task reads."""
        recording, stage = self._read(number, self.stage.rate), self.stage
        if stage.resample and stage.rate is not None and recording.rate != stage.rate:
            recording = resample(recording, stage.rate)
        if stage.length is not None and recording.values.shape[1] > stage.length:
            recording = replace(recording, values=recording.values[:, : stage.length], times=None)
        return recording

    def _read(self, number: int, rate: float | None) -> Recording:
        """A row's part of its recording as the file has it.

        Raises:
            TSLMError: it cannot be read.
        """
        if number in self._kept:
            return self._kept[number]
        entry = self.entries[number]
        key = entry.path, entry.how
        try:
            if self._open is None or self._open[0] != key:  # rows of one file mostly follow each other
                self._open = key, open_source(*key)
            parts = entry.channels, entry.source_rate, entry.start, entry.seconds, entry.fill
            recording = part(self._open[1], entry.path, *parts, rate)
        except SeveralCases as error:
            raise TSLMError(f"{error.problem}; name one in a column case: {', '.join(error.cases[:6])}") from None
        if self._bytes < _KEPT_BYTES:
            self._kept[number] = recording
            self._bytes += recording.values.nbytes
        return recording

    def _make_task(self, medical: bool, bad: Sequence[Bad]) -> Stage:
        if not self._kept:
            raise one_line(self.path, bad)
        stage = task.make(self.path.stem, self.entries, list(self._kept.values()), medical)
        self.notes.append(f"no task was given, so one is made of the table: {task.said(stage)}")
        if stage.rate is not None:  # it holds for those that state none
            self._kept = {
                at: one for at, one in self._kept.items() if one.rate is not None or one.times is not None
            }
        return stage

    def _splits(self) -> tuple[list[str], list[Bad]]:
        """The split of each row, and the rows whose recording or person is in two."""
        keys = [
            [("recording", _name(one.path), one.how.case), *([("person", one.person)] if one.person else [])]
            for one in self.entries
        ]
        groups = splits.together(keys)
        stated = [one.split for one in self.entries]
        answers = [folded(one.answer) if self.stage.labels else "" for one in self.entries]
        if not any(stated):
            return splits.stratified(groups, answers, self.stage.split_seed, splits.SHARES), []
        bad = [Bad(one.row, "its split is empty, where others have one") for one in self.entries if not one.split]
        first: dict[object, Entry] = {}
        for of_row, entry in zip(keys, self.entries, strict=True):
            for key in of_row:
                other = first.setdefault(key, entry)
                if entry.split and other.split and entry.split != other.split:
                    what = f"person {entry.person!r}" if key[0] == "person" else f"recording {entry.recording!r}"
                    where = f"is in {entry.split}, but in {other.split} in row {other.row}"
                    bad.append(Bad(entry.row, f"{what} {where}"))
        if "validation" not in stated and "train" in stated:
            train = [at for at, split in enumerate(stated) if split == "train"]
            shares = {"validation": splits.SHARES["validation"], "train": 1 - splits.SHARES["validation"]}
            own = [groups[at] for at in train], [answers[at] for at in train]
            for at, split in zip(train, splits.stratified(*own, self.stage.split_seed, shares), strict=True):
                stated[at] = split
        return stated, bad

    def _sizes(self) -> str:
        counts = Counter(self.assigned)
        return ", ".join(f"{split} {counts[split]}" for split in SPLITS)

    def _note(self) -> None:
        persons = len({one.person for one in self.entries if one.person})
        by = "recording" + (f" and person ({persons})" if persons else "")
        how = "as the table says" if any(one.split for one in self.entries) else f"seed {self.stage.split_seed}"
        self.notes.append(f"{len(self.entries)} questions, split by {by}, {how}: {self._sizes()}")
        rate = self.stage.rate
        if rate is not None and (others := sum(one.rate != rate for one in self._kept.values())):
            self.notes.append(f"{others} recordings are brought to {rate:g} Hz, the rate of the task")
        counts = Counter(self._answer(at) for at in range(len(self.entries))) if self.stage.labels else Counter()
        if rare := [answer for answer, count in counts.items() if count < _RARE]:
            self.notes.append(f"answers in fewer than {_RARE} rows: {', '.join(rare)}")
        if unused := [label for label in self.stage.labels or () if label not in counts]:
            self.notes.append(f"labels that no row has: {', '.join(unused)}")


def _name(path: Path) -> str:
    """What tells a recording from others: the files of a WFDB record are one."""
    return str((path.with_suffix("") if path.suffix in (".hea", ".dat") else path).resolve())


@lru_cache(maxsize=2)
def open_table(path: str, task: str | Stage | None = None, medical: bool = False) -> Questions:
    """The table's questions, read once in a process; see `Questions`.

    Args:
        task: a stage, its name, or its TOML file.
    """
    return Questions(path, stages.get(task) if isinstance(task, str) else task, medical)
