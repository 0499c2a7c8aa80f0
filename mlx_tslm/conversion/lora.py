"""PEFT's LoRA as a checkpoint states it: which layers it updates, by how much, and whether all of it is there."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator

from mlx_tslm.conversion import keymap
from mlx_tslm.conversion.pt.tensors import Record, Tensor
from mlx_tslm.errors import TSLMError
from mlx_tslm.models.config import Count
from mlx_tslm.schema import Finite, shown, validate

OPENTSLM_RANK, OPENTSLM_ALPHA = 16, 32.0  # its own default, which some of its files do not state
_PEFT_DEFAULT = 8  # of both r and lora_alpha

# Options of PEFT's LoraConfig that change the arithmetic of a forward pass in ways not implemented here.
_UNSUPPORTED = (
    "use_dora", "lora_bias", "fan_in_fan_out", "modules_to_save", "target_parameters", "layer_replication",
    "use_qalora", "alora_invocation_tokens", "trainable_token_indices", "use_bdlora", "arrow_config",
    "kasa_config", "monteclora_config",
)  # fmt: skip
_HARMLESS = {
    *_UNSUPPORTED, "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying",
    "eva_config", "inference_mode", "lora_dropout", "lora_ga_config", "loftq_config", "megatron_config",
    "megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config", "task_type",
    "velora_config", "_custom_modules",
}  # fmt: skip
_KEYWORDS = {"r", "lora_alpha", "target_modules", "peft_type", "lora_dropout", "init_lora_weights"}
_PATTERN_SECONDS = 0.5


@dataclass(frozen=True, eq=False)
class Adapter:
    """A low-rank update of a linear layer: `scale * b @ a`, with a `[r, in]` and b `[out, r]`."""

    a: Tensor
    b: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """The inner size of the product."""
        return self.a.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """`[out, in]`, the shape of the weight it updates."""
        return self.b.shape[0], self.a.shape[1]


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """What of a LoraConfig has a say here. Other initialisations than these change the base's weights too."""

    r: Count
    lora_alpha: Finite
    peft_type: Literal["LORA"] = "LORA"
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    rank_pattern: dict[str, Count] = field(default_factory=dict)
    alpha_pattern: dict[str, Finite] = field(default_factory=dict)
    use_rslora: bool = False
    init_lora_weights: Annotated[
        bool | Literal["gaussian", "orthogonal", "eva", "mica"], BeforeValidator(_lower)
    ] = True

    def alpha(self, module: str) -> float:
        """The numerator of a module's scale."""
        for pattern, alpha in self.alpha_pattern.items():
            if not re.fullmatch(r"[\w.]+", pattern):
                raise TSLMError(
                    f"lora_config: alpha_pattern {shown(pattern)} is a regular expression, which is not supported"
                )
            if f".{module}".endswith(f".{pattern}"):
                return alpha
        return self.lora_alpha

    def scale(self, module: str, rank: int) -> float:
        """What a module's product is multiplied by."""
        return self.alpha(module) / (math.sqrt(rank) if self.use_rslora else rank)

    def targets(self, module: str) -> bool:
        """Whether PEFT would have put an adapter beside a linear layer."""
        if self.exclude_modules and _named(self.exclude_modules, module):
            return False
        if isinstance(self.target_modules, str) and self.target_modules.lower() == "all-linear":
            return module != "lm_head"
        if not self.target_modules or not _named(self.target_modules, module):
            return False
        layers = self.layers_to_transform
        if isinstance(self.target_modules, str) or module in self.target_modules or layers in (None, []):
            return True
        patterns = [self.layers_pattern] if isinstance(self.layers_pattern, str) else self.layers_pattern
        for pattern in patterns or [r"[^.]*"]:
            if found := _match(rf"(?:|.*?\.){pattern}\.(?P<index>\d+)\..*", module):
                return int(found["index"]) in ([layers] if isinstance(layers, int) else layers or [])
        return False


@dataclass(frozen=True, eq=False)
class Lora:
    """A checkpoint's adapters by the base's module names, and which modules ought to have one."""

    adapters: dict[str, Adapter]
    target_modules: list[str]
    targets: Callable[[str], bool]
    notes: list[str] = field(default_factory=list)


def read_lora(state: Mapping[str, Tensor], config: Any, alpha: float | None = None) -> Lora:
    """Put a checkpoint's LoRA tensors and its statement of them together.

    Args:
        state: PEFT's names and tensors.
        config: what the file says of them, in any of the forms that people save, or None.
        alpha: LoRA's alpha, where the file does not say.

    Raises:
        TSLMError: a tensor has no partner or does not fit what is stated, or something is not supported (named).
    """
    sides, name = _sort(state)
    if not sides:
        raise TSLMError("lora_state is empty, although the checkpoint says that LoRA was enabled")
    notes: list[str] = []
    if config is None:
        settings = _assumed({pair["A"].shape[0] for pair in sides.values() if "A" in pair}, alpha, notes)
    else:
        settings = _settings(_choose(config, name), notes)
        if alpha is not None and alpha != settings.lora_alpha:
            raise TSLMError(
                f"the checkpoint states lora_alpha {settings.lora_alpha:g}; leave out --lora-alpha {alpha:g}"
            )
    adapters = {module: _adapter(module, pair, settings) for module, pair in sides.items()}
    kinds = sorted({module.rpartition(".")[2] for module in adapters})
    stated = settings.target_modules
    if stated is None:
        return Lora(adapters, kinds, lambda module: module.rpartition(".")[2] in kinds, notes)
    return Lora(adapters, sorted(stated) if isinstance(stated, list) else kinds, settings.targets, notes)


def _sort(state: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], str | None]:
    """Each module's tensors by their side, and the adapter's name."""
    sides: dict[str, dict[str, Tensor]] = {}
    names = set()
    for name, tensor in state.items():
        module, side, adapter = keymap.lora_name(name)
        names.add(adapter)
        if len(tensor.shape) != 2 or "float" not in tensor.dtype:
            raise TSLMError(
                f"lora_state: {name} is {tensor.dtype} {list(tensor.shape)}, not a floating-point matrix"
            )
        sides.setdefault(module, {})[side] = tensor
    if len(names) > 1:
        raise TSLMError(
            f"lora_state: there are adapters called {' and '.join(sorted(map(str, names)))}, of which nobody knows "
            "how they go together; save the checkpoint with one of them"
        )
    return sides, next(iter(names), None)


def _choose(config: Any, name: str | None) -> Any:
    """The configuration of the adapter that was saved."""
    if not isinstance(config, dict) or _KEYWORDS & set(config):
        return config
    if name in config:
        return config[name]
    if len(config) == 1:
        return next(iter(config.values()))
    has = ", ".join(map(str, list(config)[:6])) or "none"
    raise TSLMError(f"lora_config is of {len(config)} adapters ({has}), but the one that was saved is {name}")


def _settings(config: Any, notes: list[str]) -> LoraSettings:
    if isinstance(config, Record):
        values = dict(config.state or {})
    elif isinstance(config, dict):
        values = dict(config)
        for key in ("r", "lora_alpha"):
            if values.get(key) is None:
                notes.append(f"lora_config does not say {key}: PEFT's default of {_PEFT_DEFAULT} is assumed")
                values[key] = _PEFT_DEFAULT
    else:
        raise TSLMError(f"lora_config is a {type(config).__name__}, not a configuration")
    if option := next((option for option in _UNSUPPORTED if values.get(option)), None):
        raise TSLMError(f"lora_config: {option} is set, which is not supported; merge the adapters with PEFT first")
    if values.get("bias") not in (None, "none"):
        raise TSLMError("lora_config: trained biases are not supported; merge the adapters with PEFT first")
    known = {one.name for one in fields(LoraSettings)}
    if odd := sorted(str(key) for key in values.keys() - known - _HARMLESS if values[key] not in (None, False)):
        notes.append(f"lora_config says things that are not known here: {', '.join(odd)[:200]}")
    plain = {key: _plain(values[key]) for key in known & values.keys() if values[key] is not None}
    if isinstance(plain.get("init_lora_weights"), str):
        start = plain["init_lora_weights"].lower()
        if start not in ("gaussian", "orthogonal", "eva", "mica"):
            raise TSLMError(
                f"lora_config: init_lora_weights {shown(start)} changes the base's weights too, which the file "
                "does not hold; merge the adapters with PEFT first, or convert them with "
                "save_pretrained(path_initial_model_for_weight_conversion=…)"
            )
    settings: LoraSettings = validate(LoraSettings, plain, "lora_config")
    return settings


def _plain(value: Any) -> Any:
    """A value without sets and enumerations, as JSON has it."""
    if isinstance(value, Record):
        return value.args[0] if value.args else None
    if isinstance(value, set | frozenset | tuple):
        return sorted(value, key=str)
    return value


def _assumed(ranks: set[int], alpha: float | None, notes: list[str]) -> LoraSettings:
    """What nobody has stated: the tensors show the rank, and OpenTSLM's own default has the alpha for one."""
    rank = max(ranks, default=0)
    if alpha is None:
        if ranks != {OPENTSLM_RANK}:
            raise TSLMError(
                f"lora_config is missing, and with it the adapters' scale; their rank is {rank}, where OpenTSLM's "
                f"own is {OPENTSLM_RANK}: give the alpha they were trained with, --lora-alpha"
            )
        alpha = OPENTSLM_ALPHA
        notes.append(
            f"the checkpoint does not state LoRA's alpha: OpenTSLM's own, {alpha:g} for rank {rank}, is assumed"
        )
    return LoraSettings(r=rank, lora_alpha=alpha, rank_pattern={str(one): one for one in ranks})


def _adapter(module: str, pair: dict[str, Tensor], settings: LoraSettings) -> Adapter:
    for side in "AB":
        if side not in pair:
            raise TSLMError(f"lora_state: the tensor {keymap.LORA_PREFIX}{module}.lora_{side} is missing")
    a, b = pair["A"], pair["B"]
    if a.shape[0] != b.shape[1] or a.shape[0] not in {settings.r, *settings.rank_pattern.values()}:
        raise TSLMError(
            f"lora_state: {module} has A {list(a.shape)} and B {list(b.shape)}, but rank {settings.r} is stated"
        )
    return Adapter(a, b, settings.scale(module, a.shape[0]))


def _named(names: list[str] | str, module: str) -> bool:
    """PEFT's rule: a text is a regular expression for the whole name; a list has names, or their ends."""
    if isinstance(names, str):
        return _match(names, module) is not None
    return any(f".{module}".endswith(f".{name}") for name in names)


def _match(pattern: str, text: str) -> "re.Match[str] | None":
    """A stranger's regular expression, in bounded time and memory.

    Raises:
        TSLMError: it is none, or takes too long.
    """
    compiled = _compiled(pattern)
    try:
        found: re.Match[str] | None = compiled(text, timeout=_PATTERN_SECONDS)
    except (TimeoutError, RecursionError, MemoryError):
        raise TSLMError(f"lora_config: the regular expression {shown(pattern)} takes too long") from None
    return found


@cache
def _compiled(pattern: str) -> Callable[..., Any]:
    import regex

    repeats = re.findall(r"\{[^}]*\}?", pattern)
    modest = len(repeats) <= 2 and all(re.fullmatch(r"\{\d{0,2}(,\d{0,2})?\}", one) for one in repeats)
    if not modest or len(pattern) > 2000 or re.search(r"\(\?(R|&|P>|[-+]?\d)", pattern):  # it may call itself
        raise TSLMError(f"lora_config: the regular expression {shown(pattern)} is too intricate to be evaluated")
    try:
        return cast(Callable[..., Any], regex.compile(pattern).fullmatch)
    except (regex.error, RecursionError):
        raise TSLMError(f"lora_config: {shown(pattern)} is no regular expression") from None
