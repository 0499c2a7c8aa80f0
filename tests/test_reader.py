"""The torch-free reader and writer of `.pt` files, against files that torch and PEFT wrote, and hostile ones.

`data/checkpoints/make.py` says how the files were made, and with which versions.
"""

import io
import pickle
import struct
import subprocess
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_tslm.conversion.pt import writer as pt_writer
from mlx_tslm.conversion.pt.reader import read
from mlx_tslm.conversion.pt.tensors import DTYPES, Name, Record, Storage, Tensor
from mlx_tslm.errors import TSLMError

FILES = Path(__file__).parent / "data" / "checkpoints"
GRID = np.arange(24, dtype=np.float32).reshape(4, 6)


@pytest.fixture(scope="module")
def tensors() -> dict[str, Any]:
    return read(FILES / "tensors.pt")


@pytest.mark.parametrize("name", DTYPES)
def test_reads_every_dtype(tensors: dict[str, Any], name: str) -> None:
    tensor = tensors["dtypes"][name]
    expected = np.array([[0, 1, 2], [4, 8, 16]], dtype=np.float64)
    if name == "bool":
        expected = expected != 0
    if name == "float8_e8m0fnu":
        expected[0, 0] = 2.0**-127  # it has no zero
    assert tensor.dtype == name
    assert tensor.shape == (2, 3)
    np.testing.assert_array_equal(tensor.numpy(), expected)


@pytest.mark.parametrize("name", [name for name in DTYPES if name.startswith("float8")])
def test_reads_every_pattern_of_the_small_floats(name: str) -> None:
    content = read(FILES / "float8.pt")  # torch widened all 256 patterns to float32
    mine = Tensor.from_numpy(content["bits"].numpy(), name).numpy()
    np.testing.assert_array_equal(mine, content[name].numpy())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("scalar", np.float32(2.5)),
        ("empty", np.zeros((0, 3))),
        ("grid", GRID),
        ("transposed", GRID.T),
        ("slice", GRID[1:3, ::2]),
        ("column", GRID[:, 4]),
        ("expanded", np.array([[7.0] * 3, [8.0] * 3])),
        ("conjugate", np.array([1 - 2j, 3 + 4j])),
        ("negative", np.array([-2.0, 4.0])),
        ("parameter", np.ones(2)),
    ],
)
def test_reads_every_layout(tensors: dict[str, Any], name: str, expected: np.ndarray) -> None:
    assert tensors[name].shape == expected.shape
    np.testing.assert_array_equal(tensors[name].numpy(), expected)


def test_tied_tensors_share_memory(tensors: dict[str, Any]) -> None:
    assert tensors["tied"].storage is tensors["grid"].storage
    assert np.shares_memory(tensors["grid"].numpy(), tensors["slice"].numpy())
    assert not tensors["grid"].numpy().flags.writeable


def test_reads_plain_values(tensors: dict[str, Any]) -> None:
    assert tensors["set"] == {1, 2}
    assert tensors["size"] == (2, 3)
    assert tensors["bytes"] == b"\x00\xff"
    assert tensors["large"] == 2**70
    assert tensors["list"] == [None, True, -1, 1.5, "ä", (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ()]
    assert (tensors["device"], tensors["layout"]) == ("cpu", "torch.strided")
    assert tensors["dtype"] == Name("torch.bfloat16")


def test_reads_a_training_checkpoint() -> None:
    content = read(FILES / "training.pt")
    assert content["val_loss"] == 0.25  # a NumPy scalar in the file
    assert content["epoch"] == 3
    assert content["optimizer_state"]["state"][0]["step"].numpy() == 1.0
    config = content["lora_config"]["default"]
    assert isinstance(config, Record)
    assert config.name == "peft.tuners.lora.config.LoraConfig"
    assert (config.get("r"), config.get("lora_alpha"), config.get("use_rslora")) == (2, 4, True)
    assert config.get("target_modules") == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }
    assert {tensor.dtype for tensor in content["lora_state"].values()} == {"bfloat16"}


# ---- the writer ----


def test_what_is_read_can_be_written_again(tmp_path: Path, tensors: dict[str, Any]) -> None:
    pt_writer.write(tmp_path / "again.pt", tensors)
    again = read(tmp_path / "again.pt")
    assert list(again) == list(tensors)
    for name, tensor in {**tensors, **tensors["dtypes"]}.items():
        if isinstance(tensor, Tensor):
            copy = {**again, **again["dtypes"]}[name]
            assert (copy.dtype, copy.stride, copy.offset) == (tensor.dtype, tensor.stride, tensor.offset)
            np.testing.assert_array_equal(copy.numpy(), tensor.numpy())
    assert again["tied"].storage is again["grid"].storage


def test_writes_as_torch_does(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    pt_writer.write(path, {"a": np.ones(3, np.float32), "b": OrderedDict(c=np.zeros((2, 2), np.float32))})
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert names == [f"model/{name}" for name in ("data.pkl", "byteorder", "data/0", "data/1", "version")]
        assert archive.read("model/version") == b"3\n"
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            if "/data/" in info.filename:
                start = info.header_offset + 30 + len(info.filename) + len(info.extra)
                assert start % 64 == 0
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_writes_nothing_that_has_no_place(tmp_path: Path) -> None:
    with pytest.raises(TSLMError, match="cannot hold a object"):
        pt_writer.write(tmp_path / "model.pt", {"a": object()})
    with pytest.raises(TSLMError, match="no dtype"):
        pt_writer.write(tmp_path / "model.pt", {"a": np.array(["text"])})
    assert not list(tmp_path.iterdir())


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.sets(st.integers() | st.text())
    ),
    max_leaves=20,
)


@st.composite
def strided(draw: st.DrawFn) -> tuple[Tensor, np.ndarray]:
    """A tensor with any dtype, shape, strides and offset, and NumPy's own view of the same bytes."""
    dtype = draw(st.sampled_from([name for name in DTYPES if not name.startswith(("float8", "bfloat16"))]))
    shape = draw(st.lists(st.integers(0, 4), max_size=4).map(tuple))
    stride = draw(st.tuples(*(st.integers(0, 5) for _ in shape)))
    offset = draw(st.integers(0, 3))
    count = offset + sum(max(0, n - 1) * s for n, s in zip(shape, stride, strict=True)) + 1
    kind = np.dtype(DTYPES[dtype])
    values = np.arange(count).astype(kind)
    tensor = Tensor(Storage(values.view(np.uint8).data), dtype, shape, stride, offset)
    return tensor, np.lib.stride_tricks.as_strided(values[offset:], shape, [s * kind.itemsize for s in stride])


@settings(max_examples=60, deadline=None)
@given(value=st.dictionaries(st.text(), plain), tensor=strided(), values=st.lists(st.integers(0, 2**16 - 1)))
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    value: dict[str, Any],
    tensor: tuple[Tensor, np.ndarray],
    values: list[int],
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.pt"
    bits = np.array(values, dtype=np.uint16)
    pt_writer.write(path, {"value": value, "tensor": tensor[0], "brain": Tensor.from_numpy(bits, "bfloat16")})
    again = read(path)
    assert again["value"] == value
    assert again["tensor"].shape == tensor[1].shape
    np.testing.assert_array_equal(again["tensor"].numpy(), tensor[1])
    np.testing.assert_array_equal(again["brain"].numpy().view(np.uint32), bits.astype(np.uint32) << 16)


# ---- bad files ----


def archive(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as target:
        for name, data in entries.items():
            target.writestr(name, data)
    return path


def with_pickle(path: Path, description: bytes, **data: bytes) -> Path:
    return archive(
        path, {"x/data.pkl": description, "x/version": b"3\n"} | {f"x/data/{k}": v for k, v in data.items()}
    )


def tensor_pickle(
    shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, count: int = 4, key: str = "0"
) -> bytes:
    """A checkpoint of one float32 tensor whose layout is made up."""
    pickler = pt_writer._Pickler()
    storage = (
        b"(" + pickler.value("storage") + b"ctorch\nFloatStorage\n" + pickler._many([key, "cpu", count]) + b"tQ"
    )
    layout = pickler._many([offset, shape, stride, False, OrderedDict()])
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + layout + b"tR"
    return b"\x80\x02}(" + pickler.value("a") + tensor + b"u."


class Evil:
    """What a hostile file asks the reader to call."""

    def __init__(self, target: Callable[..., Any], *args: Any) -> None:
        self.call = (target, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "target", [subprocess.call, eval, exec, getattr, io.open, pickle.loads], ids=lambda f: f.__name__
)
def test_runs_no_code(tmp_path: Path, target: Callable[..., Any], protocol: int) -> None:
    witness = tmp_path / "witness"
    evil = Evil(target, f"touch {witness}")
    path = with_pickle(tmp_path / "x.pt", pickle.dumps({"a": evil}, protocol))
    with pytest.raises(TSLMError, match=rf"x\.pt: it wants to run code, \S+\.{target.__name__};"):
        read(path)
    assert not witness.exists()


@pytest.mark.parametrize(
    "description",
    [
        b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.",
        b"\x80\x02(X\x02\x00\x00\x00lsios\nsystem\n.",  # INST
        b"\x80\x02(cos\nsystem\nX\x02\x00\x00\x00lso.",  # OBJ
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x02cmlx_tslm.errors\nTSLMError\n.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
        b"\x80\x02ccollections\nOrderedDict\n}X\x08\x00\x00\x00__init__Nsb.",  # BUILD on a class
    ],
)
def test_refuses_opcodes_and_names_off_the_list(tmp_path: Path, description: bytes) -> None:
    with pytest.raises(TSLMError):
        read(with_pickle(tmp_path / "x.pt", description))
    assert OrderedDict().__init__ is not None


def test_deep_nesting_is_refused_and_does_not_crash(tmp_path: Path) -> None:
    nested = b"\x80\x02})" + b"\x85" * 300_000 + b"Ns."  # as a key it would be hashed, one C frame a level
    with pytest.raises(TSLMError, match="damaged"):
        read(with_pickle(tmp_path / "x.pt", nested))


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"shape": (5,), "stride": (1,)}, "reaches beyond its storage"),
        ({"shape": (2, 2), "stride": (3, 1)}, "reaches beyond its storage"),
        ({"shape": (2,), "stride": (1,), "offset": 3}, "reaches beyond its storage"),
        ({"shape": (2,), "stride": (-1,), "offset": 1}, "impossible"),
        ({"shape": (2,), "stride": (1,), "offset": -1}, "impossible"),
        ({"shape": (2**70,), "stride": (0,)}, "impossible"),
        ({"shape": (2,), "stride": (1, 1)}, "impossible"),
        ({"shape": (4,), "stride": (1,), "count": 5}, "should hold 5 elements"),
        ({"shape": (4,), "stride": (1,), "key": "1"}, "data/1 is missing"),
        ({"shape": (4,), "stride": (1,), "key": "../data.pkl"}, "is missing"),
        ({"shape": (4,), "stride": (1,), "key": "/etc/passwd"}, "is missing"),
    ],
)
def test_tensors_stay_within_their_storage(tmp_path: Path, layout: dict[str, Any], message: str) -> None:
    path = with_pickle(tmp_path / "x.pt", tensor_pickle(**layout), **{"0": bytes(16)})
    with pytest.raises(TSLMError, match=message):
        read(path)
    read(with_pickle(tmp_path / "y.pt", tensor_pickle((4,), (1,)), **{"0": bytes(16)}))["a"].numpy()


@pytest.mark.parametrize("keep", [0, 1, 40, 0.3, 0.7, 0.99, -1])
def test_truncated_files(tmp_path: Path, keep: float) -> None:
    whole = (FILES / "sp_plain.pt").read_bytes()
    path = tmp_path / "part.pt"
    path.write_bytes(whole[: int(keep * len(whole)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(TSLMError, match=r"part\.pt"):
        read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello", "is not a torch checkpoint"),
        (np.random.default_rng(0).bytes(5000), "is not a torch checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (struct.pack("<Q", 20) + b'{"a":{}}' + bytes(20), "safetensors"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(content)
    with pytest.raises(TSLMError, match=message) as error:
        read(path)
    assert "\n" not in str(error.value)


def test_other_archives(tmp_path: Path) -> None:
    good = tensor_pickle((4,), (1,))
    cases = {
        "not a torch checkpoint": {"readme.txt": b"hello"},
        "big-endian": {"x/data.pkl": good, "x/byteorder": b"big", "x/data/0": bytes(16)},
        "no single data.pkl": {"x/data.pkl": good, "y/data.pkl": good},
        "holds a list": {"x/data.pkl": pickle.dumps([1], 2)},
    }
    for message, entries in cases.items():
        with pytest.raises(TSLMError, match=message):
            read(archive(tmp_path / "x.pt", entries))
    compressed = archive(tmp_path / "x.pt", {"x/data.pkl": good, "x/data/0": bytes(16)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(TSLMError, match="compressed"):
        read(compressed)
    with pytest.raises(TSLMError, match="before version"):
        read(FILES / "legacy.pt")
    with pytest.raises(TSLMError, match="TorchScript"):
        read(FILES / "torchscript.pt")
    with pytest.raises(TSLMError, match="No such file"):
        read(tmp_path / "none.pt")
    with pytest.raises(TSLMError, match="directory"):
        read(tmp_path)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    data = bytearray((FILES / "sp_plain.pt").read_bytes())
    tensor = read(FILES / "sp_plain.pt")["projector_state"]["projector.1.weight"]
    where = bytes(data).index(bytes(tensor.storage.buffer))
    data[where + 100] ^= 1
    path = tmp_path / "flipped.pt"
    path.write_bytes(data)
    with pytest.raises(TSLMError, match=r"flipped\.pt, data/\d+ is damaged: its checksum"):
        read(path)["projector_state"]["projector.1.weight"].numpy()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_garbage_gives_an_error_or_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Bytes changed at random in a real file's description never raise anything else."""
    with zipfile.ZipFile(FILES / "tensors.pt") as source:
        entries = {info.filename: source.read(info) for info in source.infolist()}
    description = bytearray(entries["tensors/data.pkl"])
    for _ in range(data.draw(st.integers(1, 4))):
        description[data.draw(st.integers(0, len(description) - 1))] = data.draw(st.integers(0, 255))
    path = archive(
        tmp_path_factory.getbasetemp() / "garbage.pt", entries | {"tensors/data.pkl": bytes(description)}
    )
    try:
        content = read(path)
    except TSLMError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(content, dict)
