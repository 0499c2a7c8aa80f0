"""What a torch checkpoint holds, without torch: tensors over storages, and inert records of Python objects."""

import mmap
import zlib
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.errors import TSLMError

# torch's dtype -> NumPy's dtype of the stored bits. NumPy knows neither bfloat16 nor the 8-bit floats.
DTYPES: dict[str, str] = {
    "float64": "<f8",
    "float32": "<f4",
    "float16": "<f2",
    "bfloat16": "<u2",
    "int64": "<i8",
    "int32": "<i4",
    "int16": "<i2",
    "int8": "|i1",
    "uint64": "<u8",
    "uint32": "<u4",
    "uint16": "<u2",
    "uint8": "|u1",
    "bool": "|b1",
    "complex64": "<c8",
    "complex128": "<c16",
    "float8_e4m3fn": "|u1",
    "float8_e5m2": "|u1",
    "float8_e4m3fnuz": "|u1",
    "float8_e5m2fnuz": "|u1",
    "float8_e8m0fnu": "|u1",
}


_BLOCK = 1 << 26  # bytes that are summed before they are given back


@dataclass(eq=False)
class Storage:
    """The bytes that one or more tensors share; `crc` is the sum the file states for them, 0 for none."""

    buffer: memoryview
    name: str = "storage"
    crc: int = 0
    _checked: bool = field(default=False, repr=False)

    def read(self) -> memoryview:
        """The bytes, compared with their checksum the first time.

        Raises:
            TSLMError: the bytes are damaged.
        """
        if not self._checked and self.crc and self._sum() != self.crc:
            raise TSLMError(f"{self.name} is damaged: its checksum does not match; fetch the file again")
        self._checked = True
        return self.buffer

    def release(self) -> None:
        """Give the pages that were read back to the system; reading them again costs time, and nothing else."""
        if isinstance(self.buffer.obj, mmap.mmap):
            self.buffer.obj.madvise(mmap.MADV_DONTNEED)

    def _sum(self) -> int:
        crc = 0
        for start in range(0, len(self.buffer), _BLOCK):
            crc = zlib.crc32(self.buffer[start : start + _BLOCK], crc)
            self.release()
        return crc


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor that lies in a storage, described in elements as torch does; nothing is read until `numpy()`."""

    storage: Storage
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int = 0
    conjugate: bool = False
    negative: bool = False

    def __post_init__(self) -> None:
        numbers = (*self.shape, *self.stride, self.offset)
        sane = all(type(n) is int and 0 <= n < 2**62 for n in numbers) and len(self.shape) == len(self.stride)
        if not sane or len(self.shape) > 32:
            raise TSLMError(f"{self.storage.name}: a tensor has an impossible shape or stride")
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        if self.size and (last + 1) * self.itemsize > len(self.storage.buffer):
            raise TSLMError(f"{self.storage.name}: a tensor of shape {list(self.shape)} reaches beyond its storage")

    @classmethod
    def from_numpy(cls, array: NDArray[Any], dtype: str | None = None) -> "Tensor":
        """A contiguous tensor with an array's values; `dtype` names bits that NumPy has no type for."""
        name = dtype or array.dtype.name
        if name not in DTYPES:
            raise TSLMError(f"torch has no dtype for arrays of {array.dtype}")
        flat = np.ascontiguousarray(array, dtype=DTYPES[name]).reshape(-1)
        stride = tuple(prod(array.shape[axis + 1 :]) for axis in range(array.ndim))
        return cls(Storage(flat.view(np.uint8).data), name, array.shape, stride)

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes an element."""
        return np.dtype(DTYPES[self.dtype]).itemsize

    def numpy(self) -> NDArray[Any]:
        """The values: a read-only view where NumPy has the dtype, widened to float32 (exactly) where not."""
        bits = np.ndarray(
            self.shape,
            DTYPES[self.dtype],
            self.storage.read() if self.size else b"",
            self.offset * self.itemsize if self.size else 0,
            tuple(step * self.itemsize for step in self.stride) if self.size else None,
        )
        bits.flags.writeable = False
        if self.dtype == "bfloat16":
            return (bits.astype(np.uint32) << 16).view(np.float32)
        if self.dtype.startswith("float8"):
            return _float8_values(self.dtype)[bits]
        if self.conjugate:
            bits = bits.conj()
        return -bits if self.negative else bits


@cache
def _float8_values(dtype: str) -> NDArray[np.float32]:
    """The float32 value of each of the 256 bit patterns of an 8-bit float (OCP FP8 and MX, and the fnuz kinds)."""
    patterns = np.arange(256)
    if dtype == "float8_e8m0fnu":
        values = np.ldexp(1.0, patterns - 127)
        values[255] = np.nan
        return values.astype(np.float32)
    mantissa_bits, bias = {"e4m3fn": (3, 7), "e5m2": (2, 15), "e4m3fnuz": (3, 8), "e5m2fnuz": (2, 16)}[dtype[7:]]
    exponent = (patterns & 0x7F) >> mantissa_bits
    mantissa = (patterns & (2**mantissa_bits - 1)) / 2**mantissa_bits
    normal = exponent > 0
    values = np.ldexp(mantissa + normal, np.where(normal, exponent, 1) - bias)
    values[patterns >= 128] *= -1
    if dtype.endswith("fnuz"):
        values[128] = np.nan  # there is no negative zero: its pattern is the only NaN
    elif dtype == "float8_e4m3fn":
        values[[127, 255]] = np.nan
    else:
        values[[124, 252]] = np.inf, -np.inf
        values[[125, 126, 127, 253, 254, 255]] = np.nan
    return values.astype(np.float32)


@dataclass(frozen=True)
class Name:
    """The name of a Python object, e.g. `torch.bfloat16`, and nothing more."""

    name: str


@dataclass(eq=False)
class Record:
    """An inert stand-in for a Python object: its class's name, its arguments and its attributes, and no code.

    `state` is None for an object made by a call (`TaskType("CAUSAL_LM")`), a dictionary for one that was made
    empty and then filled (`LoraConfig`).
    """

    name: str
    args: tuple[Any, ...] = ()
    state: dict[str, Any] | None = None

    def get(self, key: str, default: Any = None) -> Any:
        """An attribute of the object, or `default`."""
        return (self.state or {}).get(key, default)
