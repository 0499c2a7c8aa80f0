"""A curriculum as a TOML file says it: what to start from, and the stages to train in turn."""

import dataclasses
import hashlib
import json
import tomllib
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from mlx_tslm import stages
from mlx_tslm.data import SOURCES
from mlx_tslm.data.own import is_table
from mlx_tslm.errors import TSLMError
from mlx_tslm.schema import Positive, validate
from mlx_tslm.suggest import did_you_mean

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The layers that get adapters, as in OpenTSLM."""

OWN = "own"
"""The curriculum that a table of one's own is trained by, unless one is written for it."""

AtLeastOne = Annotated[int, Field(ge=1)]


def _share(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError("must lie between 0 and 1")
    return value


Rate = Annotated[float, AfterValidator(_share)]


@dataclass(frozen=True)
class StageConfig:
    """How one stage is trained. A learning rate of 0 freezes its part.

    Args:
        name: of the stage, and of its folder. One that is no stage of the curriculum needs `samples`; on a table of
            one's own any name will do.
        samples: how many samples of which stage an epoch has, `{"stage1": 4000}`; by default the stage's own whole
            training split. Published rows are drawn anew for each epoch, synthetic ones never come twice.
        epochs, batch_size: batch_size is that of all processes together.
        lr_encoder, lr_projector, lr_lora, lr_llm: peak learning rates. lr_lora is for the adapters, lr_llm for
            all of the LLM's own weights. A Flamingo model has lr_cross in place of lr_projector and lr_lora: for
            the perceiver, the gated blocks and the LLM's input embeddings.
        lora: put adapters on the LLM, if it has none yet. They stay for the stages after this one.
        lora_rank, lora_alpha: of new adapters.
        weight_decay: AdamW's; of a Flamingo model, that of its gated blocks alone.
        warmup: share of the steps in which the learning rates rise; then they fall linearly to 0.
        clip: the gradient's largest norm.
        patience: epochs without a better validation loss after which the stage ends.
        validation_samples: of each stage in `samples`, the first ones; all of them by default.
        gradient_checkpointing: compute each layer twice to keep only its input: less memory, a third more time.
    """

    name: str
    samples: dict[str, int] = field(default_factory=dict)
    epochs: AtLeastOne = 1
    batch_size: AtLeastOne = 4
    lr_encoder: Rate = 2e-4
    lr_projector: Rate = 1e-4
    lr_lora: Rate = 1e-4
    lr_llm: Rate = 0.0
    lr_cross: Rate = 2e-4
    lora: bool = False
    lora_rank: AtLeastOne = 16
    lora_alpha: Positive = 32.0
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03
    clip: Positive = 1.0
    patience: AtLeastOne = 5
    validation_samples: AtLeastOne | None = None
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        known = stages.names()
        if odd := next((stage for stage in self.samples if stage not in known), None):
            raise TSLMError(f"{self.name}: samples of {odd!r}; the stages are {', '.join(known)}")
        if few := next((stage for stage, count in self.samples.items() if count < 1), None):
            raise TSLMError(f"{self.name}: {self.samples[few]} samples of {few}; give at least 1")
        if Path(self.name).name != self.name:
            raise TSLMError(f"{self.name!r} cannot be the name of a folder")

    @property
    def trains_language_model(self) -> bool:
        """Whether the LLM's own weights change."""
        return self.lr_llm > 0


@dataclass(frozen=True)
class Curriculum:
    """What to start from, and the stages to train in turn.

    Args:
        model: a base LLM (a Hub repository or a Hugging Face folder), which gets a fresh encoder and projector, or
            a converted mlx-tslm folder, which is trained on.
        stages: in their order; each starts from the best of the one before.
        source: "published" data sets, the "synthetic" curriculum, its "realistic" form, or a table of questions
            about one's own recordings.
        task: of a table: a stage, or the TOML file of a task of one's own; made of the table where None.
        data_dir: folder with the published files; by default where `mlx-tslm data fetch` puts them.
        leads: of ECGs, the leads to read; all twelve by default.
        max_patches: rows of a fresh encoder's positional table, four samples each.
        variant: what a base LLM becomes: "sp" (soft prompt) or "flamingo".
        dtype: of the LLM, by default its own; "float32" is fastest on a CPU. What is trained is float32 in any
            case, and so is the optimizer's state; it is rounded to the LLM's own dtype where it is written.
        seed: of fresh weights, of the samples' order, and of synthetic rows.
    """

    model: str
    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1)]
    source: str = "published"
    task: str | None = None
    data_dir: str | None = None
    leads: tuple[str, ...] = ()
    max_patches: AtLeastOne = 1024
    variant: Literal["sp", "flamingo"] = "sp"
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 64)] = 0

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise TSLMError(f"two stages have the same name, {twice}")
        if self.on_table and not is_table(self.source):
            raise TSLMError(f"source must be {', '.join(SOURCES)} or a table of questions, not {self.source!r}")
        for stage in self.stages:
            if self.on_table and stage.samples:
                raise TSLMError(f"{stage.name}: a table's stages take its whole training split; leave out samples")
            if not self.on_table and not stage.samples and stage.name not in stages.names():
                raise TSLMError(f"{stage.name} is no stage, so it needs samples = {{…}}")
        if self.task is not None and not self.on_table:
            raise TSLMError("task is of a table of questions; name it as the source")

    @property
    def on_table(self) -> bool:
        """Whether it is a table of one's own that is trained on."""
        return self.source not in SOURCES

    def digest(self) -> str:
        """Changes when anything in the curriculum does."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def builtin() -> list[str]:
    """Names of the curricula that come with the package, all but `OWN`."""
    folder = resources.files(__package__).joinpath("curricula")
    names = sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return [name for name in names if name != OWN]


def load(source: str | Path, /, **changes: Any) -> Curriculum:
    """Read a curriculum.

    Args:
        source: a TOML file, or the name of one that comes with the package.
        changes: top-level values that take the file's place, where they are not None.

    Raises:
        TSLMError: there is none, it is no TOML, a key is unknown, or a value of the wrong type or out of range.
    """
    path = Path(source)
    entry = path if path.is_file() else resources.files(__package__).joinpath("curricula", f"{source}.toml")
    if not entry.is_file():
        known = ", ".join(builtin()) + did_you_mean(str(source), builtin())
        raise TSLMError(f"there is no curriculum {source}; give a TOML file, or one of {known}")
    try:
        raw = tomllib.loads(entry.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TSLMError(f"{source} is no TOML: {error}") from None
    raw |= {key: value for key, value in changes.items() if value is not None}
    defaults = validate(dict[str, Any], raw.pop("defaults", {}), f"{source}: [defaults]")
    tables = validate(list[dict[str, Any]], raw.pop("stages", []), f"{source}: [[stages]]")
    listed = [
        validate(StageConfig, defaults | table, str(source), forbid=True, within=str(table.get("name", "a stage")))
        for table in tables
    ]
    raw["stages"] = [dataclasses.asdict(stage) for stage in listed]
    curriculum: Curriculum = validate(Curriculum, raw, str(source), forbid=True)
    return curriculum
