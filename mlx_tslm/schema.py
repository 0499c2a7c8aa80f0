"""Checking what a file says against a dataclass: one line that names the field where it is wrong."""

import json
from functools import cache
from numbers import Integral
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from mlx_tslm.errors import TSLMError

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

_adapter = cache(TypeAdapter)


def validate(kind: Any, values: Any, where: str = "", forbid: bool = False, within: str = "") -> Any:
    """A dataclass (or another type that pydantic knows) from what a JSON or TOML file holds.

    Types are strict, but that a whole number may stand for a fraction.

    Args:
        where: put before the field's name.
        forbid: refuse keys that are no field.
        within: which of several such tables it is, for the error.

    Raises:
        TSLMError: a field is missing, unknown, of a wrong type or out of range; one line that names it.
    """
    try:
        text = json.dumps(values, default=str)
        return _adapter(kind).validate_json(text, strict=True, extra="forbid" if forbid else "ignore")
    except ValidationError as error:
        raise TSLMError(_line(error, where, f" in {within}" if within else "")) from None
    except (RecursionError, ValueError, TypeError):
        raise TSLMError(f"{where or 'the file'}: it cannot be understood") from None


def shown(value: Any, limit: int = 60) -> str:
    """A value from a file, short enough for an error's line."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        return f"a {type(value).__name__}"
    return text if len(text) <= limit else text[:limit] + "…"


def checked_seed(seed: int) -> int:
    """A seed of draws, which are made of unsigned numbers of 64 bits.

    Raises:
        TSLMError: it is none.
    """
    if not (isinstance(seed, Integral) and 0 <= int(seed) < 2**64):
        raise TSLMError(f"seed is {shown(seed)}; it must be a whole number, 0 or more and below 2^64")
    return int(seed)


_TYPES = {"int": "int", "float": "float", "bool": "bool", "list": "list", "tuple": "list", "dict": "table"}


def _line(error: ValidationError, where: str, within: str) -> str:
    first = error.errors(include_url=False)[0]
    kind, message, context = first["type"], first["msg"].removeprefix("Value error, "), first.get("ctx", {})
    field = ".".join(str(part) for part in first["loc"])[:200]
    expected = _TYPES.get(kind.partition("_")[0])
    match kind:
        case "missing":
            said = f"{field} is missing{within}"
        case "unexpected_keyword_argument":
            said = f"unknown key {field!r}{within}"
        case "greater_than_equal":
            said = f"{field} must be at least {context['ge']}{within}, not {shown(first['input'])}"
        case "string_type":
            said = f"{field} must be text, not {shown(first['input'])}{within}"
        case "value_error" if message.startswith("must"):
            said = f"{field} {message}{within}, not {shown(first['input'])}"
        case "value_error" if not field or isinstance(first["input"], dict):
            said = f"{field}: {message}" if field else message
        case _ if expected and field:
            said = f"{field} = {shown(first['input'])}{within}; it must be of type {expected}"
        case _:
            said = f"{field} = {shown(first['input'])}{within}: {message[:1].lower()}{message[1:]}"
    return f"{where}: {said}" if where else said
