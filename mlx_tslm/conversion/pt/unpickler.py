"""The pickle of a `.pt` file, read by Python's own unpickler with everything taken out that could call or import.

It is `pickle._Unpickler`, the one in Python: the one in C makes room for 2³¹ objects because a file names a number
(`LONG_BINPUT`), and hashes a nested key on the C stack until that overflows. Here a table has the opcodes that
torch writes, every step is counted, and what a name stands for is never looked up.
"""

import io
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from mlx_tslm.conversion.pt import names
from mlx_tslm.conversion.pt.tensors import DTYPES, Name, Record, Storage, Tensor
from mlx_tslm.errors import TSLMError
from mlx_tslm.schema import shown

SAVE_AGAIN = (
    'save it again with what is needed alone: torch.save({key: checkpoint[key] for key in ("encoder_state", '
    '"projector_state", "lora_enabled", "lora_state", "lora_config") if key in checkpoint}, path)'
)
_MOST_STEPS = 1_000_000  # opcodes: a published checkpoint has a few thousand
_OPCODES = {
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1",
    "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8", "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "TUPLE", "EMPTY_LIST",
    "EMPTY_DICT", "EMPTY_SET", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "GLOBAL",
    "STACK_GLOBAL", "BINPERSID",
}  # fmt: skip


class _Opcodes(dict[int, Callable[[Any], None]]):
    def __missing__(self, code: int) -> Callable[[Any], None]:
        name = next(opcode.name for opcode in pickletools.opcodes if ord(opcode.code) == code)  # or it is garbage
        raise TSLMError(f"its pickle uses {name}, which torch never writes; not read")


class Unpickler(pickle._Unpickler):
    """Reads a pickle into dictionaries, lists, numbers, `Tensor`, `Name` and `Record`.

    Args:
        data: the pickle.
        name: of the file, for errors.
        entry: gives an entry of the file, `data/0`, as its bytes and their checksum.
    """

    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, data: memoryview, name: str, entry: Callable[[str], tuple[memoryview, int]]) -> None:
        super().__init__(io.BytesIO(data))
        self._name, self._entry = name, entry
        self._storages: dict[str, Storage] = {}
        self._steps = self._large = 0

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in _CALLS and not names.may_be_mentioned(module, name):
            raise _refusal(full)
        return Name(full)

    def persistent_load(self, pid: Any) -> tuple[Storage, str]:
        """A storage that the pickle refers to, read once, and the dtype it is seen as here."""
        tag, kind, key, _location, size = _of(tuple, pid)
        dtype = names.STORAGES.get(_of(Name, kind).name.removeprefix("torch."), "uint8")  # untyped ones count bytes
        if tag != "storage":
            raise ValueError
        if _of(str, key) not in self._storages:
            data, crc = self._entry(f"data/{key}")
            self._storages[key] = Storage(data, f"{self._name}, data/{key}", crc)
        storage = self._storages[key]
        if _of(int, size) * np.dtype(DTYPES[dtype]).itemsize > len(storage.buffer):
            raise TSLMError(f"it is truncated: data/{key} should hold {shown(size)} elements of {dtype}")
        return storage, dtype

    # What acts on an object acts on one of ours, or on nothing.

    def _append(self) -> None:
        item = self.stack.pop()
        _extend(self.stack[-1], [item])

    def _appends(self) -> None:
        items = self.pop_mark()
        _extend(self.stack[-1], items)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _update(self.stack[-1], [key, value])

    def _set_items(self) -> None:
        items = self.pop_mark()
        _update(self.stack[-1], items)

    def _add_items(self) -> None:
        items = self.pop_mark()
        _of(set, self.stack[-1]).update(map(_key, items))

    def _frozen_set(self) -> None:
        self.append(set(map(_key, self.pop_mark())))

    def _reduce(self) -> None:
        args = _of(tuple, self.stack.pop())
        self.stack[-1] = _call(_of(Name, self.stack[-1]).name, args)

    def _new(self) -> None:
        args = _of(tuple, self.stack.pop())
        name = _of(Name, self.stack[-1]).name
        self.stack[-1] = _CALLS[name](*args) if name in _CALLS else Record(name, args, {})

    def _new_with_keywords(self) -> None:
        keywords = _of(dict, self.stack.pop())
        self._new()
        _build(self.stack[-1], keywords)

    def _build(self) -> None:
        state = self.stack.pop()
        _build(self.stack[-1], state)

    def _long(self, load: Callable[[Any], None]) -> None:
        load(self)
        self._large += not -(2**60) < self.stack[-1] < 2**60
        if self._large > 10_000:  # as keys of one dictionary they could all be made to collide
            raise ValueError

    def _byte_array(self) -> None:
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    def _count(self) -> None:
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise TSLMError(f"it describes more than {_MOST_STEPS:,} things, which no checkpoint does; not read")

    dispatch = _Opcodes()  # filled below


def _counted(load: Callable[[Any], None]) -> Callable[[Any], None]:
    def step(unpickler: Unpickler) -> None:
        unpickler._count()
        load(unpickler)

    return step


_dispatch: dict[int, Callable[[Any], None]] = pickle._Unpickler.dispatch
_OURS: dict[str, Callable[[Any], None]] = {
    "APPEND": Unpickler._append,
    "APPENDS": Unpickler._appends,
    "SETITEM": Unpickler._set_item,
    "SETITEMS": Unpickler._set_items,
    "ADDITEMS": Unpickler._add_items,
    "FROZENSET": Unpickler._frozen_set,
    "REDUCE": Unpickler._reduce,
    "NEWOBJ": Unpickler._new,
    "NEWOBJ_EX": Unpickler._new_with_keywords,
    "BUILD": Unpickler._build,
    "BYTEARRAY8": Unpickler._byte_array,
    "LONG1": partial(Unpickler._long, load=_dispatch[pickle.LONG1[0]]),
    "LONG4": partial(Unpickler._long, load=_dispatch[pickle.LONG4[0]]),
}
for _opcode in pickletools.opcodes:
    _code = ord(_opcode.code)
    if _opcode.name in _OURS:
        Unpickler.dispatch[_code] = _counted(_OURS[_opcode.name])
    elif _opcode.name in _OPCODES:
        Unpickler.dispatch[_code] = _counted(_dispatch[_code])


def _refusal(full: str) -> TSLMError:
    shown_name = full[:80] if full.isprintable() else ascii(full)[:80]
    return TSLMError(
        f"it wants to run code, {shown_name}; nothing in a file is run, so it was not read further; where it is "
        f"your own, {SAVE_AGAIN}"
    )


def _call(name: str, args: tuple[Any, ...]) -> Any:
    if name in _CALLS:
        return _CALLS[name](*args)
    if not names.may_be_called(name):
        raise _refusal(name)
    return Record(name, args)


def _build(target: Any, state: Any) -> None:
    """Give an object its attributes: a dictionary, or a pair of them where the class has slots."""
    if isinstance(target, Record):
        both = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
        parts = [part for part in both if isinstance(part, dict)]
        whole = {key: value for part in parts for key, value in part.items()}
        target.state = (target.state or {}) | (whole if parts else {"state": state})
    elif not isinstance(target, OrderedDict | Tensor):  # their attributes do not matter
        raise ValueError


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, Record):  # a subclass of list, or a deque
        target.state = target.state or {}
        _of(list, target.state.setdefault("items", [])).extend(items)
    else:
        _of(list, target).extend(items)


def _update(target: Any, items: list[Any]) -> None:
    pairs = {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}
    if isinstance(target, Record):  # a subclass of dict
        target.state = (target.state or {}) | pairs
    else:
        _of(dict, target).update(pairs)


def _of(kind: type[Any], value: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError
    return value


def _key(value: Any) -> Any:
    """A dictionary's key: plain values, records, small tuples of them; hashing others can exhaust the C stack."""
    budget = 64
    queue = [value]
    while queue:
        one = queue.pop()
        budget -= 1
        if budget < 0:
            raise ValueError
        if isinstance(one, tuple):
            queue.extend(one[: budget + 1])
        elif not isinstance(one, str | int | float | bytes | Record | Name | None):
            raise ValueError
    return value


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
) -> Tensor | Record:
    name = dtype.name.removeprefix("torch.")
    if name not in DTYPES:
        return Record(dtype.name, (tuple(shape),))
    return _tensor((storage[0], name), offset, shape, stride, requires_grad, hooks, metadata)


def _numpy_scalar(dtype: Record, data: Any) -> Any:
    code = _of(str, dtype.args[0])
    if code[:1] not in "fiub" or not code[1:].isdigit():
        return Record("numpy.generic", (code, data))  # a text, a date: nothing that is needed
    return np.frombuffer(_of(bytes, data), np.dtype(code), count=1)[0].item()


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError
    data: bytes = _of(str, text).encode("latin1")  # how protocol 2 writes bytes
    return data


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "collections.Counter": _ordered,
    "collections.defaultdict": lambda *_: {},
    "__builtin__.set": lambda items=(): set(map(_key, items)),
    "__builtin__.frozenset": lambda items=(): set(map(_key, items)),
    "builtins.set": lambda items=(): set(map(_key, items)),
    "builtins.frozenset": lambda items=(): set(map(_key, items)),
    "_codecs.encode": _encoded,
    "copyreg._reconstructor": lambda kind, *_: Record(_of(Name, kind).name, (), {}),
    "copy_reg._reconstructor": lambda kind, *_: Record(_of(Name, kind).name, (), {}),
    "numpy.dtype": lambda *args: Record("numpy.dtype", args),
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "torch.Size": tuple,
    "torch.device": lambda *args: ":".join(map(str, args)),
    "torch.serialization._get_layout": str,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "torch._tensor._rebuild_from_type_v2": lambda function, _type, args, _state: _call(
        _of(Name, function).name, _of(tuple, args)
    ),
}
