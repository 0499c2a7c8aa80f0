"""Which samples of a stage's data set a command takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlx_tslm.cli.terminal import status
from mlx_tslm.errors import TSLMError

if TYPE_CHECKING:
    from mlx_tslm.data import Dataset
    from mlx_tslm.models.base import BaseModel

_SAMPLES = "Samples"

Source = Annotated[
    str,
    typer.Option(
        "--source", help="published; or synthetic or realistic: rows made from a seed.", rich_help_panel=_SAMPLES
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Folder with the published files. [default: where `data fetch` puts them]",
        rich_help_panel=_SAMPLES,
    ),
]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Where the samples come from."""

    source: Source = "published"
    data_dir: DataDir = None

    def check(self) -> None:
        """Raise a TSLMError where there is no such source."""
        from mlx_tslm import data

        if self.source not in data.SOURCES:
            raise TSLMError(f"--source {self.source}: choose {', '.join(data.SOURCES)}")

    def open(self, stage: str, split: str, limit: int, model: "BaseModel") -> "Dataset":
        """The first `limit` rows of a stage's split, as the model reads them.

        Raises:
            TSLMError: the data are not there, or there is no such split.
        """
        from mlx_tslm import data

        if limit < 1:
            raise TSLMError(f"--limit {limit}: give how many samples to take")
        size: dict[str, Any] = {"size": limit} if self.source != "published" else {}
        with status.status(f"opening {stage}"):
            rows = data.load(stage, split, self.data_dir, limit, source=self.source, **size)  # type: ignore[arg-type]
            rows.stage = rows.stage.reading(model.config.leads)
        return rows


def stages_of(model: "BaseModel", name: str, asked: list[str] | None) -> tuple[list[str], list[str]]:
    """The stages that were asked for, by default those that a model was trained on; and notes for a person.

    Raises:
        TSLMError: there is no such stage, or nobody says which.
    """
    from mlx_tslm import stages

    trained = list(model.config.trained_on or {}) or [one.name for one in (model.stage,) if one is not None]
    if not asked and not trained:
        raise TSLMError(f"{name} does not say what stage it was trained on; choose one: --stage stage1 … stage5")
    if not asked and model.stage is not None and model.stage.name not in stages.names():
        raise TSLMError(f"{name} learnt from a table of one's own: `eval --data` zeroes the series, too")
    chosen = list(dict.fromkeys(stages.get(one).name for one in asked or trained))
    notes = [
        f"{name} was not trained on {one}, but on {', '.join(trained)}"
        for one in chosen
        if trained and one not in trained
    ]
    return chosen, notes
