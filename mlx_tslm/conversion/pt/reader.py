"""A reader of torch's `.pt` files that needs no torch and executes nothing.

The format (torch 1.6 and later) is a zip of stored entries in one folder: `data.pkl`, a pickle that describes
everything, and `data/N`, the raw bytes of each storage. The pickle is interpreted here, opcode by opcode: a name
that is not on the list below ends the reading, and those that are stand for functions of this module.
"""

import mmap
import pickletools
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlx_tslm.conversion.pt.tensors import DTYPES, Name, Record, Storage, Tensor
from mlx_tslm.errors import TSLMError

_STORAGES = {
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
_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")  # how torch's own format before 1.6 begins


def read(path: str | Path) -> dict[str, Any]:
    """Read a `.pt` file into dictionaries, lists, numbers, `Tensor` and `Record`.

    Tensors are views of the mapped file: their bytes are read when used.

    Raises:
        TSLMError: the file is missing, no checkpoint, truncated, damaged, in a form torch no longer writes,
            or wants to run code.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if file.seek(0, 2) == 0:
                raise TSLMError(f"{path.name} is empty")
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise TSLMError(f"cannot read {path}: {error.strerror}") from None
    archive = _Archive(path, data)
    try:
        content = _Machine(archive).run(archive.bytes("data.pkl"))
    except TSLMError as error:
        message = str(error)
        raise TSLMError(message if message.startswith(path.name) else f"{path.name}: {message}") from None
    except Exception:  # whatever garbage provokes in the interpreter, it is the file's fault
        raise TSLMError(f"{path.name} is damaged: its description (data.pkl) cannot be understood") from None
    if not isinstance(content, dict):
        raise TSLMError(f"{path.name} holds a {type(content).__name__}, not a checkpoint's dictionary")
    return content


class _Archive:
    """The entries of the zip, as slices of the mapped file."""

    def __init__(self, path: Path, data: memoryview) -> None:
        self.name = path.name
        self._data = data
        try:
            with zipfile.ZipFile(path) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error):
            raise TSLMError(_what_it_is(self.name, bytes(data[:512]))) from None
        self._entries = {info.filename: info for info in infos}
        if len(self._entries) != len(infos):
            raise TSLMError(f"{self.name}: two entries have the same name; this is no file that torch wrote")
        roots = [name.removesuffix("data.pkl") for name in self._entries if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise TSLMError(f"{self.name} is a zip file, but not a torch checkpoint: it has no single data.pkl")
        self._root = roots[0]
        if f"{self._root}constants.pkl" in self._entries:
            raise TSLMError(f"{self.name} is a TorchScript program, not a checkpoint; save the weights instead")
        if f"{self._root}byteorder" in self._entries and bytes(self.bytes("byteorder")) != b"little":
            raise TSLMError(f"{self.name} was written on a big-endian machine; save it again on a usual one")

    def entry(self, name: str) -> tuple[memoryview, int]:
        """An entry's bytes and the checksum that the zip states for them (0: torch left it out)."""
        info = self._entries.get(self._root + name)
        if info is None:
            raise TSLMError(f"{self.name} is truncated or damaged: {name} is missing")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
            raise TSLMError(f"{self.name}: {name} is compressed or encrypted, which torch never does; not read")
        header = bytes(self._data[info.header_offset : info.header_offset + 30])
        if len(header) < 30 or not header.startswith(b"PK\3\4"):
            raise TSLMError(f"{self.name} is truncated or damaged at {name}")
        start = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
        if start + info.file_size > len(self._data):
            raise TSLMError(f"{self.name} is truncated: {name} reaches beyond the end of the file")
        return self._data[start : start + info.file_size], info.CRC

    def bytes(self, name: str) -> memoryview:
        """An entry's bytes, checked."""
        data, crc = self.entry(name)
        if crc and zlib.crc32(data) != crc:
            raise TSLMError(f"{self.name} is damaged: the checksum of {name} does not match; fetch it again")
        return data


def _what_it_is(name: str, head: bytes) -> str:
    if head.startswith(b"PK"):
        return f"{name} is truncated or damaged: the directory at its end is missing; fetch it again"
    if head.startswith(_MAGIC) or head[257:262] == b"ustar":
        return f"{name} has torch's format before version 1.6; load and save it once with a newer torch"
    if head.startswith(b"version https://git-lfs"):
        return f"{name} is a Git LFS pointer, not the file itself; run `git lfs pull`"
    if head[8:9] == b"{":
        return f"{name} is a safetensors file; a checkpoint of OpenTSLM is torch's .pt"
    return f"{name} is not a torch checkpoint"


class _Machine:
    """An interpreter of the pickle opcodes that torch writes."""

    def __init__(self, archive: _Archive) -> None:
        self._archive = archive
        self._storages: dict[str, Storage] = {}

    def run(self, data: memoryview) -> Any:
        """Interpret a pickle and return what it describes."""
        stack: list[Any] = []
        marks: list[list[Any]] = []
        memo: dict[int, Any] = {}
        argument: Any
        for opcode, argument, _ in pickletools.genops(bytes(data)):
            match opcode.name:
                case "PROTO" | "FRAME":
                    pass
                case "STOP":
                    return stack.pop()
                case "MARK":
                    marks.append(stack)
                    stack = []
                case "NONE":
                    stack.append(None)
                case "NEWTRUE":
                    stack.append(True)
                case "NEWFALSE":
                    stack.append(False)
                case (
                    "BININT" | "BININT1" | "BININT2" | "LONG1" | "LONG4" | "BINFLOAT" | "BINUNICODE"
                    | "SHORT_BINUNICODE" | "BINUNICODE8" | "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8"
                ):  # fmt: skip
                    stack.append(argument)
                case "EMPTY_TUPLE":
                    stack.append(())
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    count = int(opcode.name[-1])
                    stack[-count:] = [tuple(stack[-count:])]
                case "TUPLE":
                    items, stack = tuple(stack), marks.pop()
                    stack.append(items)
                case "EMPTY_LIST":
                    stack.append([])
                case "APPEND":
                    item = stack.pop()
                    _of(list, stack[-1]).append(item)
                case "APPENDS":
                    many, stack = stack, marks.pop()
                    _of(list, stack[-1]).extend(many)
                case "EMPTY_DICT":
                    stack.append({})
                case "SETITEM":
                    value, key = stack.pop(), stack.pop()
                    _of(dict, stack[-1])[_key(key)] = value
                case "SETITEMS":
                    many, stack = stack, marks.pop()
                    pairs = zip(many[::2], many[1::2], strict=True)
                    _of(dict, stack[-1]).update((_key(key), value) for key, value in pairs)
                case "EMPTY_SET":
                    stack.append(set())
                case "ADDITEMS":
                    many, stack = stack, marks.pop()
                    _of(set, stack[-1]).update(map(_key, many))
                case "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "GLOBAL":
                    stack.append(_find(argument.replace(" ", ".")))
                case "STACK_GLOBAL":
                    name, module = stack.pop(), stack.pop()
                    stack.append(_find(f"{module}.{name}"))
                case "REDUCE":
                    args = _of(tuple, stack.pop())
                    stack.append(_call(_of(Name, stack.pop()).name, args))
                case "NEWOBJ":
                    args = _of(tuple, stack.pop())
                    name = _of(Name, stack.pop()).name
                    stack.append(_CALLS[name](*args) if name in _CALLS else Record(name, args, {}))
                case "BUILD":
                    state = stack.pop()
                    if isinstance(stack[-1], Record):
                        stack[-1].state = state if isinstance(state, dict) else {"state": state}
                    elif not isinstance(stack[-1], OrderedDict | Tensor):  # their attributes do not matter
                        raise ValueError
                case "BINPERSID":
                    stack.append(self._storage(*_of(tuple, stack.pop())))
                case _:
                    raise TSLMError(f"its pickle uses {opcode.name}, which torch never writes; not read")
        raise ValueError

    def _storage(self, tag: str, kind: Name, key: str, _location: str, size: int) -> tuple[Storage, str]:
        """A storage that the pickle refers to, read once, and the dtype it is seen as here."""
        dtype = _STORAGES.get(kind.name.removeprefix("torch."), "uint8")  # an untyped storage counts bytes
        if tag != "storage" or not isinstance(key, str):
            raise ValueError
        if key not in self._storages:
            data, crc = self._archive.entry(f"data/{key}")
            self._storages[key] = Storage(data, f"{self._archive.name}, data/{key}", crc)
        storage = self._storages[key]
        if _of(int, size) * np.dtype(DTYPES[dtype]).itemsize > len(storage.buffer):
            raise TSLMError(f"it is truncated: data/{key} should hold {size} elements of {dtype}")
        return storage, dtype


def _find(name: str) -> Name:
    harmless = name in _CALLS or name in _CONSTANTS or name.startswith("peft.")
    if not harmless:
        shown = name[:80] if name.isprintable() else ascii(name)[:80]
        raise TSLMError(f"it wants to run code, {shown}; a checkpoint has no need to, so it was not read further")
    return Name(name)


def _call(name: str, args: tuple[Any, ...]) -> Any:
    if name.startswith("peft."):
        return Record(name, args)
    return _CALLS[name](*args)


def _of(kind: type[Any], value: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError
    return value


def _key(value: Any) -> Any:
    """A dictionary's key: plain values only, since hashing nested ones can exhaust the C stack."""
    return _of(str | int | float | bytes | None, value)  # type: ignore[arg-type]


def _ordered(items: Any = ()) -> OrderedDict[Any, Any]:
    pairs = items.items() if isinstance(items, dict) else items
    return OrderedDict((_key(key), value) for key, value in pairs)


def _tensor(
    storage: tuple[Storage, str],
    offset: int,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    _requires_grad: bool = False,
    _hooks: Any = None,
    metadata: dict[str, bool] | None = None,
) -> Tensor:
    flags = metadata or {}
    return Tensor(
        storage[0], storage[1], tuple(shape), tuple(stride), offset, bool(flags.get("conj")), bool(flags.get("neg"))
    )


def _tensor_v3(
    storage: tuple[Storage, str],
    offset: int,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool,
    hooks: Any,
    dtype: Name,
    metadata: dict[str, bool] | None = None,
) -> Tensor:
    name = dtype.name.removeprefix("torch.")
    if name not in DTYPES:
        raise TSLMError(f"it has a tensor of {dtype.name}, which is not supported")
    return _tensor((storage[0], name), offset, shape, stride, requires_grad, hooks, metadata)


def _numpy_scalar(dtype: Record, data: bytes) -> Any:
    code = _of(str, dtype.args[0])
    if code[:1] not in "fiubc":
        raise ValueError
    return np.frombuffer(data, np.dtype(code), count=1)[0].item()


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "collections.Counter": _ordered,
    "__builtin__.set": lambda items=(): set(map(_key, items)),
    "__builtin__.frozenset": lambda items=(): set(map(_key, items)),
    "builtins.set": lambda items=(): set(map(_key, items)),
    "builtins.frozenset": lambda items=(): set(map(_key, items)),
    "_codecs.encode": lambda text, encoding: text.encode("latin1"),  # how protocol 2 writes bytes
    "numpy.dtype": lambda *args: Record("numpy.dtype", args),
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "torch.Size": tuple,
    "torch.device": lambda *args: ":".join(map(str, args)),
    "torch.serialization._get_layout": str,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": lambda data, *_: _of(Tensor, data),
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: _of(Tensor, data),
    "torch._tensor._rebuild_from_type_v2": lambda function, _type, args, _state: _call(function.name, args),
}
_CONSTANTS = {
    *(f"torch.{name}" for name in (*DTYPES, *_STORAGES)),
    "torch.storage.UntypedStorage",
    "torch.Tensor",
    "torch._tensor.Tensor",
    "torch.nn.parameter.Parameter",
}
