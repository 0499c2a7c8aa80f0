"""Writes torch's `.pt` format without torch: what `torch.load` and the original OpenTSLM read.

The reverse of `reader`: a zip of stored entries, 64-byte aligned, with a pickle (protocol 2) that names torch's
and PEFT's own classes, so that a reader which has them gets the real objects.
"""

import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mlx_tslm.conversion import keymap
from mlx_tslm.conversion.pt.tensors import DTYPES, Name, Record, Storage, Tensor
from mlx_tslm.errors import TSLMError
from mlx_tslm.files import replacing

_STORAGE_CLASSES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
    "complex64": "ComplexFloatStorage",
    "complex128": "ComplexDoubleStorage",
}
_ALIGNMENT = 64


def write(path: str | Path, checkpoint: dict[str, Any]) -> None:
    """Write a checkpoint as torch's zip format; the file appears whole or not at all.

    Args:
        path: where to; the file's stem becomes the folder inside the zip, as torch has it.
        checkpoint: dictionaries, lists, tuples, sets, text, numbers, NumPy arrays, `Tensor` and `Record`. Tensors
            over one `Storage` go on sharing it.

    Raises:
        TSLMError: something in it has no place in a checkpoint.
    """
    path = Path(path)
    pickler = _Pickler()
    description = b"\x80\x02" + pickler.value(checkpoint) + b"."
    with replacing(path) as scratch, zipfile.ZipFile(scratch, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, f"{path.stem}/data.pkl", description)
        _add(archive, f"{path.stem}/byteorder", b"little")
        for key, storage in enumerate(pickler.storages):
            _add(archive, f"{path.stem}/data/{key}", storage.read())
        _add(archive, f"{path.stem}/version", b"3\n")


def save_opentslm(
    path: str | Path,
    weights: Mapping[str, ArrayLike],
    *,
    alpha: float | None = None,
    target_modules: Iterable[str] = (),
    base: str | None = None,
    **extra: Any,
) -> None:
    """Write a soft-prompt model's trained part as OpenTSLM's `store_to_file` does.

    Args:
        path: the `.pt` file.
        weights: arrays under their names in this project: all of `encoder.*` and `projector.*`, and adapters as
            `language_model.<module>.lora_a` `[in, r]` and `.lora_b` `[r, out]`. Stored as float32.
        alpha: LoRA's alpha (the product's scale is alpha / r); needed where there are adapters.
        target_modules: the last part of the adapted modules' names, e.g. `q_proj`.
        base: the base LLM's name, for the adapters' configuration.
        extra: more entries, e.g. `epoch` and `val_loss`.

    Raises:
        TSLMError: a name that does not belong there, or adapters without `alpha`.
    """
    encoder, projector, lora = keymap.to_torch(weights)
    checkpoint: dict[str, Any] = {
        "encoder_state": encoder,
        "projector_state": projector,
        "lora_enabled": bool(lora),
    }
    if lora:
        if alpha is None:
            raise TSLMError("there are adapters among the weights: alpha is needed to save them")
        rank = next(array.shape[0] for name, array in lora.items() if ".lora_A." in name)
        config = lora_record(rank, alpha, target_modules, base)
        checkpoint |= {"lora_state": dict(lora), "lora_config": {"default": config}}
    write(path, checkpoint | extra)


def lora_record(rank: int, alpha: float, target_modules: Iterable[str], base: str | None = None) -> Record:
    """A record that PEFT reads as its own `LoraConfig` (the fields that have no default in the class included)."""
    state: dict[str, Any] = {
        "task_type": Record("peft.utils.peft_types.TaskType", ("CAUSAL_LM",)),
        "peft_type": Record("peft.utils.peft_types.PeftType", ("LORA",)),
        "auto_mapping": None,
        "base_model_name_or_path": base,
        "revision": None,
        "inference_mode": False,
        "r": rank,
        "target_modules": set(target_modules),
        "exclude_modules": None,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "fan_in_fan_out": False,
        "bias": "none",
        "use_rslora": False,
        "modules_to_save": None,
        "init_lora_weights": True,
        "layers_to_transform": None,
        "layers_pattern": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        "megatron_config": None,
        "megatron_core": "megatron.core",
        "loftq_config": {},
        "eva_config": None,
        "corda_config": None,
        "use_dora": False,
        "layer_replication": None,
        "runtime_config": Record(
            "peft.tuners.lora.config.LoraRuntimeConfig", state={"ephemeral_gpu_offload": False}
        ),
        "lora_bias": False,
        "_custom_modules": None,
    }
    return Record("peft.tuners.lora.config.LoraConfig", state=state)


def _add(archive: zipfile.ZipFile, name: str, data: bytes | memoryview) -> None:
    """Add a stored entry whose bytes start at a multiple of 64, padded by an extra field as torch does."""
    info = zipfile.ZipInfo(name)
    assert archive.fp is not None
    header = archive.fp.tell() + 30 + len(name.encode()) + 4
    padding = -header % _ALIGNMENT
    info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    info.file_size = len(data)
    with archive.open(info, "w") as entry:
        entry.write(data)


class _Pickler:
    """Writes values as pickle opcodes, and collects the storages that tensors refer to."""

    def __init__(self) -> None:
        self.storages: list[Storage] = []
        self._keys: dict[Storage, int] = {}
        self._arrays: dict[int, Tensor] = {}

    def value(self, value: Any) -> bytes:
        """The opcodes that make a value."""
        match value:
            case None:
                return b"N"
            case bool():
                return b"\x88" if value else b"\x89"
            case int():
                data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
                return b"\x8a" + bytes([len(data)]) + data
            case float():
                return b"G" + struct.pack(">d", value)
            case str():
                data = value.encode()
                return b"X" + struct.pack("<I", len(data)) + data
            case bytes():
                return _global("_codecs.encode") + self.value((value.decode("latin1"), "latin1")) + b"R"
            case tuple():
                return b"(" + self._many(value) + b"t"
            case list():
                return b"](" + self._many(value) + b"e"
            case set() | frozenset():
                return _global("__builtin__.set") + self.value(([*sorted(value, key=repr)],)) + b"R"
            case OrderedDict():
                return _global("collections.OrderedDict") + b")R(" + self._items(value) + b"u"
            case dict():
                return b"}(" + self._items(value) + b"u"
            case Tensor():
                return self._tensor(value)
            case np.ndarray():
                if id(value) not in self._arrays:  # one array under two names stays one storage
                    self._arrays[id(value)] = Tensor.from_numpy(value)
                return self._tensor(self._arrays[id(value)])
            case np.generic():
                return self.value(value.item())
            case Name():
                return _global(value.name)
            case Record(state=None):
                return _global(value.name) + self.value(value.args) + b"R"
            case Record():
                return _global(value.name) + self.value(value.args) + b"\x81" + self.value(value.state) + b"b"
        raise TSLMError(f"a checkpoint cannot hold a {type(value).__name__}")

    def _many(self, values: Iterable[Any]) -> bytes:
        return b"".join(map(self.value, values))

    def _items(self, mapping: Mapping[Any, Any]) -> bytes:
        return b"".join(self.value(key) + self.value(value) for key, value in mapping.items())

    def _tensor(self, tensor: Tensor) -> bytes:
        if tensor.storage not in self._keys:
            self._keys[tensor.storage] = len(self.storages)
            self.storages.append(tensor.storage)
        size = len(tensor.storage.buffer)
        typed = tensor.dtype in _STORAGE_CLASSES
        kind = f"torch.{_STORAGE_CLASSES[tensor.dtype]}" if typed else "torch.storage.UntypedStorage"
        count = size // np.dtype(DTYPES[tensor.dtype]).itemsize if typed else size
        key = str(self._keys[tensor.storage])
        storage = b"(" + self.value("storage") + _global(kind) + self._many([key, "cpu", count]) + b"tQ"
        layout = self._many([tensor.offset, tensor.shape, tensor.stride, False, OrderedDict()])
        flags = {"conj": tensor.conjugate, "neg": tensor.negative}
        metadata = (
            self.value({name: True for name, is_set in flags.items() if is_set}) if any(flags.values()) else b""
        )
        if typed:
            return _global("torch._utils._rebuild_tensor_v2") + b"(" + storage + layout + metadata + b"tR"
        dtype = _global(f"torch.{tensor.dtype}")
        return _global("torch._utils._rebuild_tensor_v3") + b"(" + storage + layout + dtype + metadata + b"tR"


def _global(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()
