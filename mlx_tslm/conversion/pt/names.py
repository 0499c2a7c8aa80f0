"""Which names a checkpoint's pickle may mention, and which of them it may call: none is ever imported.

Whatever a file mentions becomes an inert stand-in, so nothing could run in any case. This list is about what is
read on past: a class that makes a value (a path, a date, somebody's configuration) may stand in a file; what a
pickle calls a function for ends the reading.
"""

import re
import sys

from mlx_tslm.conversion.pt.tensors import DTYPES

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}

_STDLIB = sys.stdlib_module_names | {"__builtin__", "copy_reg", "cPickle", "commands", "exceptions", "UserDict"}
_BUILTINS = (
    "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "range", "set",
    "slice", "str", "tuple", "xrange",
)  # fmt: skip
# Of the standard library, only these values.
_VALUES = {
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _BUILTINS),
    *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
    *(
        f"{module}.{name}"
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
    ),
    "argparse.Namespace",
    "collections.deque",
    "decimal.Decimal",
    "fractions.Fraction",
    "random.Random",
    "re._compile",
    "types.SimpleNamespace",
    "uuid.UUID",
}
# Functions by which NumPy and torch put their own values together; what they make is not needed here.
_MAKERS = re.compile(
    r"torch\._utils\._rebuild_\w+"
    r"|numpy\._?core\.(multiarray\._reconstruct|numeric\._frombuffer)"
    r"|numpy\.random\._pickle\.__(randomstate|generator|bit_generator)_ctor"
    r"|numpy\.random\.\w+\.__pyx_unpickle_\w+"
    r"|numpy\.(ndarray|dtype|datetime64|timedelta64)"
    r"|torch\.(Size|device|dtype|layout)"
)
_CLASS = re.compile(r"_*[A-Z]\w*")  # as Python's classes are written
_NEVER = {"Popen", "CDLL", "PyDLL", "FunctionType", "CodeType", "LambdaType", "InteractiveInterpreter", "Pool"}

CONSTANTS = {
    *(f"torch.{name}" for name in (*DTYPES, *STORAGES)),
    "torch.storage.UntypedStorage",
    "torch.Tensor",
    "torch._tensor.Tensor",
    "torch.nn.parameter.Parameter",
}


def may_be_mentioned(module: str, name: str) -> bool:
    """Whether a pickle may hold a reference to a name (that is not among the calls that are understood)."""
    full = f"{module}.{name}"
    if full in CONSTANTS or full in _VALUES or _MAKERS.fullmatch(full) or module == "typing":
        return True
    parts = name.split(".")
    if not module or module.partition(".")[0] in _STDLIB or any(part.startswith("__") for part in parts):
        return False
    return not (_NEVER & set(parts)) and all(_CLASS.fullmatch(part) for part in parts[:-1])


def may_be_called(full: str) -> bool:
    """Whether what a call of a mentioned name makes is a mere value: then it becomes an inert record."""
    return (
        full in _VALUES
        or _MAKERS.fullmatch(full) is not None
        or (full.partition(".")[0] not in _STDLIB and _CLASS.fullmatch(full.rpartition(".")[2]) is not None)
    )
