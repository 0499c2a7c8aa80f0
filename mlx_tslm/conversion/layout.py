"""Where in a file people have put the parts of an OpenTSLM checkpoint."""

import re
from collections.abc import Mapping
from typing import Any

from mlx_tslm.conversion import keymap
from mlx_tslm.conversion.pt.tensors import Record, Tensor
from mlx_tslm.errors import TSLMError

_ALIASES = {
    "encoder_state": ("encoder_state", "encoder_state_dict", "encoder"),
    "projector_state": ("projector_state", "projector_state_dict", "projector"),
    "lora_state": ("lora_state", "lora_state_dict", "lora"),
    "lora_config": ("lora_config", "peft_config"),
}
_CONTAINERS = (
    "model", "state_dict", "model_state", "model_state_dict", "trainable_state", "trainable_state_dict",
    "checkpoint",
)  # fmt: skip
_ENCODER = re.compile(r"(?P<prefix>(?:.+\.)?)encoder\.patch_embed\.weight")
_FLAMINGO = ("vision_encoder.", "perceiver.", "lang_encoder.")
_LORA = re.compile(r"(?:.+\.)?(?P<name>base_model\.model\..+\.lora_.+)")
_ADVICE = (
    'save it as OpenTSLM does, torch.save({"encoder_state": encoder.state_dict(), "projector_state": '
    "projector.state_dict(), …}, path)"
)


def find_parts(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The checkpoint's parts under OpenTSLM's own names, wherever they are.

    They may lie in a dictionary inside of the file's, under other names, or in one flat state dictionary of the
    whole model, from which they are told by their prefixes.

    Raises:
        TSLMError: they are not there, or more than one thing could be meant.
    """
    found = [parts for one in _candidates(content) if (parts := _parts(one))]
    if not found:
        has = ", ".join(str(name)[:40] for name in list(content)[:6])
        raise TSLMError(
            f"this is no OpenTSLM checkpoint: encoder_state is missing; it has {has or 'nothing'}; {_ADVICE}"
        )
    if len(found) > 1:
        raise TSLMError(f"more than one model is in it; {_ADVICE}")
    beside = {key: content[key] for key in ("lora_enabled", "lora_state", "lora_config") if key in content}
    return beside | found[0]


def find_flamingo(content: Mapping[Any, Any]) -> Mapping[Any, Any] | None:
    """The state dictionary of a Flamingo model, or None where there is none.

    OpenTSLM saves it as `llm` or `model_state`; whatever lies there and is no soft-prompt model is meant to be one.

    Raises:
        TSLMError: there is more than one.
    """
    own = [content[key] for key in ("llm", "model_state") if isinstance(content.get(key), dict)]
    states = [state for state in (*own, *_candidates(content)) if _is_flamingo(state)]
    found = list({id(state): state for state in states}.values())
    if len(found) > 1:
        raise TSLMError("more than one Flamingo model is in it; save the file with one of them")
    rest = (state for state in own if not any(_parts(one) for one in (content, state)))
    return found[0] if found else next(rest, None)


def _is_flamingo(state: Mapping[Any, Any]) -> bool:
    return any(part in str(name) for name in state for part in _FLAMINGO)


def _candidates(content: Mapping[Any, Any]) -> list[Mapping[Any, Any]]:
    inner = [content[key] for key in _CONTAINERS if isinstance(content.get(key), dict)]
    return [content, *inner]


def _parts(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The parts in one dictionary, or nothing."""
    parts: dict[str, Any] = {}
    for part, aliases in _ALIASES.items():
        present = [alias for alias in aliases if isinstance(content.get(alias), dict | Record)]
        if len(present) > 1:
            raise TSLMError(f"it has both {present[0]} and {present[1]}; {_ADVICE}")
        if present:
            parts[part] = content[present[0]]
    if "encoder_state" in parts:
        return parts | ({"lora_enabled": content["lora_enabled"]} if "lora_enabled" in content else {})
    return _split(content)


def _split(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The parts of a whole model's state dictionary."""
    names = {keymap.unwrapped(name): name for name in content if isinstance(name, str)}
    prefixes = {match["prefix"] for name in names if (match := _ENCODER.fullmatch(name))}
    if not prefixes:
        return {}
    if len(prefixes) > 1:
        raise TSLMError(f"more than one encoder is in it; {_ADVICE}")
    prefix = prefixes.pop()
    parts: dict[str, Any] = {"encoder_state": {}, "projector_state": {}, "lora_state": {}}
    for name, original in names.items():
        rest = name.removeprefix(prefix)
        part, _, inner = rest.partition(".")
        if part in ("encoder", "projector"):
            parts[f"{part}_state"][inner] = content[original]
        elif match := _LORA.fullmatch(rest):
            parts["lora_state"][match["name"]] = content[original]
        elif isinstance(content[original], Tensor):
            raise TSLMError(
                f"it holds weights of the LLM too ({name[:80]}), and whether they were trained it does not say; "
                f"{_ADVICE}"
            )
    return parts if parts["lora_state"] else {key: parts[key] for key in ("encoder_state", "projector_state")}
