"""A curriculum as a TOML file says it: what to start from, and the stages to train in turn."""

import dataclasses
import hashlib
import json
import tomllib
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_origin

from mlx_tslm import data, stages
from mlx_tslm.errors import TSLMError
from mlx_tslm.models.config import DTYPES

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The layers that get adapters, as in OpenTSLM."""


@dataclass(frozen=True)
class StageConfig:
    """How one stage is trained. A learning rate of 0 freezes its part.

    Args:
        name: of the stage, and of its folder. One that is no stage of the curriculum needs `samples`.
        samples: how many samples of which stage an epoch has, `{"stage1": 4000}`; by default the stage's own whole
            training split. Published rows are drawn anew for each epoch, synthetic ones never come twice.
        epochs, batch_size: batch_size is that of all processes together.
        lr_encoder, lr_projector, lr_lora, lr_llm: peak learning rates. lr_lora is for the adapters, lr_llm for
            all of the LLM's own weights.
        lora: put adapters on the LLM, if it has none yet. They stay for the stages after this one.
        lora_rank, lora_alpha: of new adapters.
        weight_decay: AdamW's.
        warmup: share of the steps in which the learning rates rise; then they fall linearly to 0.
        clip: the gradient's largest norm.
        patience: epochs without a better validation loss after which the stage ends.
        validation_samples: of each stage in `samples`, the first ones; all of them by default.
        gradient_checkpointing: compute each layer twice to keep only its input: less memory, a third more time.
    """

    name: str
    samples: dict[str, int] = field(default_factory=dict)
    epochs: int = 1
    batch_size: int = 4
    lr_encoder: float = 2e-4
    lr_projector: float = 1e-4
    lr_lora: float = 1e-4
    lr_llm: float = 0.0
    lora: bool = False
    lora_rank: int = 16
    lora_alpha: float = 32.0
    weight_decay: float = 0.01
    warmup: float = 0.03
    clip: float = 1.0
    patience: int = 5
    validation_samples: int | None = None
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "lora_rank", "patience"):
            _check(getattr(self, name) >= 1, f"{self.name}: {name} must be at least 1")
        for name in ("lr_encoder", "lr_projector", "lr_lora", "lr_llm"):
            _check(0 <= getattr(self, name) <= 1, f"{self.name}: {name} must lie between 0 and 1")
        for name in ("lora_alpha", "clip"):
            _check(getattr(self, name) > 0, f"{self.name}: {name} must be positive")
        _check(self.weight_decay >= 0, f"{self.name}: weight_decay must not be negative")
        _check(0 <= self.warmup < 1, f"{self.name}: warmup is a share of the steps, from 0 to below 1")
        known = stages.names()
        for stage, count in self.samples.items():
            _check(stage in known, f"{self.name}: samples of {stage!r}; the stages are {', '.join(known)}")
            _check(count >= 1, f"{self.name}: {count} samples of {stage}; give at least 1")
        _check(bool(self.samples) or self.name in known, f"{self.name} is no stage, so it needs samples = {{…}}")
        _check(Path(self.name).name == self.name, f"{self.name!r} cannot be the name of a folder")

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
        source: "published" data sets, the "synthetic" curriculum, or its "realistic" form.
        data_dir: folder with the published files; by default where `mlx-tslm data fetch` puts them.
        leads: of ECGs, the leads to read; all twelve by default.
        max_patches: rows of a fresh encoder's positional table, four samples each.
        dtype: of the LLM, by default its own; "float32" is fastest on a CPU.
        seed: of fresh weights, of the samples' order, and of synthetic rows.
    """

    model: str
    stages: tuple[StageConfig, ...]
    source: str = "published"
    data_dir: str | None = None
    leads: tuple[str, ...] = ()
    max_patches: int = 1024
    dtype: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.source in data.SOURCES, f"source = {self.source!r}; choose {', '.join(data.SOURCES)}")
        _check(self.dtype in (None, *DTYPES), f"there is no dtype {self.dtype!r}")
        _check(self.max_patches >= 1, "max_patches must be at least 1")
        _check(bool(self.stages), "there is no [[stages]]: nothing to train")
        names = [stage.name for stage in self.stages]
        _check(len(set(names)) == len(names), "two stages have the same name")

    def digest(self) -> str:
        """Changes when anything in the curriculum does."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def builtin() -> list[str]:
    """Names of the curricula that come with the package."""
    folder = resources.files(__package__).joinpath("curricula")
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load(source: str | Path, **changes: Any) -> Curriculum:
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
        raise TSLMError(f"there is no curriculum {source}; give a TOML file, or one of {', '.join(builtin())}")
    try:
        raw = tomllib.loads(entry.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TSLMError(f"{source} is no TOML: {error}") from None
    raw |= {key: value for key, value in changes.items() if value is not None}
    defaults = raw.pop("defaults", {})
    listed = raw.pop("stages", [])
    try:
        _check(isinstance(defaults, dict), "[defaults] must be a table")
        _check(isinstance(listed, list) and all(isinstance(one, dict) for one in listed), "stages are [[stages]]")
        return _build(Curriculum, raw | {"stages": [_build(StageConfig, defaults | one) for one in listed]})
    except TSLMError as error:
        raise TSLMError(f"{source}: {error}") from None


def _build(kind: Any, values: dict[str, Any]) -> Any:
    """A dataclass from a table, its keys and the types of its values checked."""
    where = values.get("name", "")
    fields = {one.name: one for one in dataclasses.fields(kind)}
    ready = {}
    for key, value in values.items():
        _check(
            key in fields, f"unknown key {key!r}{f' in {where}' if where else ''}; known are {', '.join(fields)}"
        )
        expected = fields[key].type
        ready[key] = tuple(value) if get_origin(expected) is tuple and isinstance(value, list) else value
        if not _fits(ready[key], expected):
            name = getattr(expected, "__name__", str(expected))
            raise TSLMError(f"{key} = {value!r}{f' in {where}' if where else ''}; it must be of type {name}")
    for name, one in fields.items():
        required = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        _check(not required or name in ready, f"{name} is missing")
    return kind(**ready)


def _fits(value: Any, expected: Any) -> bool:
    origin, inner = get_origin(expected), get_args(expected)
    if origin is tuple:
        return isinstance(value, tuple) and all(isinstance(one, inner[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(one, inner[1]) for one in value.values())
    if inner:  # a union
        return any(_fits(value, one) for one in inner)
    if isinstance(value, bool):
        return expected is bool
    return isinstance(value, (int, float) if expected is float else expected)


def _check(right: bool, message: str) -> None:
    if not right:
        raise TSLMError(message)
