"""What a stage is trained and validated on: which samples an epoch has, and how they become batches."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mlx_tslm import data, depth, stages
from mlx_tslm.data import own
from mlx_tslm.data.fingerprint import fingerprint
from mlx_tslm.errors import TSLMError
from mlx_tslm.models.causal import CausalModel
from mlx_tslm.training.batches import Example, chunks, example, in_batches, steps_per_epoch
from mlx_tslm.training.config import Curriculum, StageConfig

_ENDLESS = 1 << 40  # rows of a synthetic split: each is made when it is asked for


def questions_of(curriculum: Curriculum, model: CausalModel) -> own.Questions:
    """The table that a curriculum trains on, and its task.

    Raises:
        TSLMError: rows of it are wrong, or the task is.
    """
    task = stages.get(curriculum.task, model.config.leads) if curriculum.task else None
    return own.Questions(curriculum.source, task, medical=model.stage is not None and model.stage.medical)


class StageData:
    """The samples of one stage of a curriculum.

    Args:
        model: tokenizes them.
        curriculum: says where the data are.
        stage: says how many of which.
        questions: the curriculum's table, where it has been opened already.

    Raises:
        TSLMError: the data are not there, or a stage has fewer rows than are asked for.
    """

    def __init__(
        self,
        model: CausalModel,
        curriculum: Curriculum,
        stage: StageConfig,
        questions: own.Questions | None = None,
    ) -> None:
        self._model, self._stage, self._seed = model, stage, curriculum.seed
        if curriculum.on_table:
            self._of_table(questions or questions_of(curriculum, model))
            return
        self._endless = curriculum.source != "published"
        names = list(stage.samples) or [stage.name]
        if self._endless and not stage.samples:
            raise TSLMError(f"{stage.name}: synthetic rows never end; say how many an epoch has: samples = {{…}}")

        def open_split(name: str, split: data.Split) -> data.Dataset:
            source: dict[str, Any] = {"source": curriculum.source, "seed": curriculum.seed, "size": _ENDLESS}
            rows = data.load(name, split, curriculum.data_dir, **(source if self._endless else {}))
            rows.stage = stages.get(name, curriculum.leads)
            return rows

        self._train = [open_split(name, "train") for name in names]
        self._validation = [open_split(name, "validation") for name in names]
        self._counts = [stage.samples.get(name, len(rows)) for name, rows in zip(names, self._train, strict=True)]
        for name, rows, count in zip(names, self._train, self._counts, strict=True):
            if count > len(rows):
                raise TSLMError(f"{stage.name}: {count} samples of {name} an epoch, but there are {len(rows)}")
        if self._endless and stage.validation_samples is None:
            raise TSLMError(f"{stage.name}: synthetic rows never end; say how many validate: validation_samples")

    def _of_table(self, questions: own.Questions) -> None:
        questions.check_ready(self._model.config.encoder_config.max_samples)
        self._endless = False
        self._train, self._validation = [questions.of("train")], [questions.of("validation")]
        self._counts = [len(self._train[0])]

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return steps_per_epoch(sum(self._counts), self._stage.batch_size)

    def spans(self) -> depth.TrainedOn:
        """What the recordings of the training split span."""
        samples = [rows.stage.from_row(row).prompt for rows in self._train for row in rows]
        return depth.measure(samples, self._train[0].stage.rate)

    def fingerprint(self) -> list[list[Any]]:
        """Changes when the data do: the length of each split, and a digest of its first sample."""
        return [[len(rows), fingerprint(rows)] for rows in (*self._train, *self._validation)]

    def epoch(self, number: int, skip: int = 0) -> Iterator[list[Example]]:
        """The batches of an epoch, the first `skip` of them left out.

        They depend on the seed and the epoch's number alone. A malformed row is reported by the data set and left
        out; a batch of which nothing is left is empty.
        """
        rng = np.random.default_rng([self._seed, number, *self._stage.name.encode()])
        picked = [
            (which, int(row))
            for which, (rows, count) in enumerate(zip(self._train, self._counts, strict=True))
            for row in (
                range(number * count, (number + 1) * count)
                if self._endless
                else rng.choice(len(rows), count, replace=False)
            )
        ]
        size, first = self._stage.batch_size, 0
        for part in chunks(picked, size, rng):
            shuffle = rng.permutation(-(-len(part) // size))
            if first + len(shuffle) > skip:
                read = [(which, self._read(self._train[which], row)) for which, row in part]
                found = [(which, one) for which, one in read if one is not None]
                # A stage's samples together: each batch is of one stage where that can be.
                order = [(which, one.length) for which, one in found]
                batches = in_batches([one for _, one in found], order, size)
                batches += [[] for _ in range(len(shuffle) - len(batches))]
                yield from (batches[i] for i in shuffle[max(0, skip - first) :])
            first += len(shuffle)

    def validation(self) -> Iterator[list[Example]]:
        """The batches to validate on, always the same."""
        for rows in self._validation:
            count = min(len(rows), self._stage.validation_samples or len(rows))
            size = 8 * self._stage.batch_size
            for first in range(0, count, size):
                read = [self._read(rows, row) for row in range(first, min(first + size, count))]
                found = [one for one in read if one is not None]
                yield from in_batches(found, [one.length for one in found], self._stage.batch_size)

    def _read(self, rows: data.Dataset, number: int) -> Example | None:
        row = rows.get(number)
        if row is None:
            return None
        where = f"row {row['from']['row']}" if "from" in row else f"{rows.stage.name} {rows.split} {number}"
        try:
            prompt, answer = rows.stage.from_row(row)
        except TSLMError as error:
            raise TSLMError(f"{where}: {error}") from None
        return example(self._model, prompt, answer, where)
