"""Hostile `.pt` files: whatever they ask for, nothing runs, and neither memory nor time is theirs to take."""

import io
import pickletools
import re
import stat
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_tslm.conversion.checkpoint import _tensors
from mlx_tslm.conversion.pt.reader import read
from mlx_tslm.conversion.pt.tensors import Record, Tensor
from mlx_tslm.errors import TSLMError

PEOPLE = Path(__file__).parent / "data" / "people"


def with_pickle(path: Path, description: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("x/data.pkl", description)
        target.writestr("x/version", b"3\n")
        target.writestr("x/data/0", bytes(16))
    return path


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def called(module: str, name: str, args: bytes = b")", call: bytes = b"R") -> bytes:
    """`{"a": module.name(...)}`."""
    return b"\x80\x02}" + text("a") + f"c{module}\n{name}\n".encode() + args + call + b"s."


# What was newly accepted (classes, dates, paths, configurations), abused: functions that look like them, attributes
# of what is accepted, classes that do things, and names by which one gets at others.
CALLS = [
    ("os", "system"), ("posix", "system"), ("nt", "system"), ("builtins", "eval"), ("__builtin__", "exec"),
    ("builtins", "getattr"), ("builtins", "__import__"), ("builtins", "compile"), ("builtins", "open"),
    ("builtins", "type"), ("builtins", "map"), ("builtins", "print"), ("subprocess", "Popen"),
    ("subprocess", "check_output"), ("importlib", "import_module"), ("runpy", "run_path"), ("shutil", "rmtree"),
    ("functools", "partial"), ("operator", "attrgetter"), ("operator", "methodcaller"), ("types", "FunctionType"),
    ("types", "CodeType"), ("types", "MethodType"), ("code", "InteractiveInterpreter"), ("ctypes", "CDLL"),
    ("pickle", "loads"), ("_pickle", "Unpickler"), ("marshal", "loads"), ("copyreg", "__newobj__"),
    ("copyreg", "_reduce_ex"), ("pathlib", "os.system"), ("pathlib", "PosixPath.write_text"),
    ("pathlib", "PosixPath.unlink"), ("datetime", "sys.exit"), ("datetime", "datetime.now"),
    ("argparse", "_sys.exit"), ("argparse", "FileType"), ("argparse", "ArgumentParser"), ("collections", "abc"),
    ("collections", "OrderedDict.__init__"), ("types", "SimpleNamespace.__init__"), ("uuid", "os.system"),
    ("random", "_os.system"), ("decimal", "getcontext"), ("re", "compile"), ("webbrowser", "open"),
    ("multiprocessing", "Process"), ("threading", "Thread"), ("socket", "socket"), ("tempfile", "mkstemp"),
    ("http.client", "HTTPSConnection"), ("urllib.request", "urlopen"), ("logging.config", "dictConfig"),
    ("torch", "load"), ("torch.hub", "load"), ("torch.storage", "_load_from_bytes"), ("torch.jit", "load"),
    ("torch._utils", "os.system"), ("torch.serialization", "os.system"), ("torch.serialization", "load"),
    ("torch._utils", "_rebuild_tensor_v2.__globals__"), ("torch.utils.cpp_extension", "load_inline"),
    ("torch._dynamo.utils", "subprocess.Popen"), ("numpy", "load"), ("numpy", "fromfile"), ("numpy", "save"),
    ("numpy.f2py", "compile"), ("numpy.testing", "runstring"), ("numpy.lib.npyio", "os.system"),
    ("numpy.random._pickle", "os.system"), ("numpy.core.multiarray", "fromfile"), ("pip", "main"),
    ("pip._internal", "main"), ("setuptools.sandbox", "run_setup"), ("transformers.utils", "subprocess.Popen"),
    ("peft", "os.system"), ("peft.utils", "subprocess.call"), ("mlx_tslm.cli", "main"),
    ("mlx_tslm.conversion.pt.reader", "read"), ("__main__", "run"), ("__main__", "__builtins__.eval"),
    ("__main__", "Config.__init__.__globals__"), ("joblib", "load"), ("yaml", "unsafe_load"), ("", "eval"),
    ("Config", "os.system"), ("my.Config", "method"), ("typing", "get_type_hints"), ("enum", "Enum"),
]  # fmt: skip


@pytest.mark.parametrize("name", CALLS, ids=".".join)
@pytest.mark.parametrize("way", ["REDUCE", "STACK_GLOBAL", "INST", "OBJ"])
def test_calls_are_refused(tmp_path: Path, name: tuple[str, str], way: str) -> None:
    args = b"(" + text("touch /tmp/x") + b"t"
    module, function = name
    description = {
        "REDUCE": called(module, function, args),
        "STACK_GLOBAL": b"\x80\x04}" + text("a") + text(module) + text(function) + b"\x93" + args + b"Rs.",
        "INST": b"\x80\x02}" + text("a") + b"(" + text("ls") + f"i{module}\n{function}\n".encode() + b"s.",
        "OBJ": b"\x80\x02}" + text("a") + b"(" + f"c{module}\n{function}\n".encode() + text("ls") + b"os.",
    }[way]
    with pytest.raises(TSLMError) as error:
        read(with_pickle(tmp_path / "x.pt", description))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["argparse.Namespace", "__main__.Config", "pathlib.PosixPath", "my.pkg.Config"])
def test_what_is_accepted_is_inert(tmp_path: Path, name: str) -> None:
    """A record, whatever its class is called and whatever it is built with; methods are keys like others."""
    module, _, kind = name.rpartition(".")
    state = b"}(" + text("__reduce__") + text("x") + text("get") + text("y") + text("__class__") + text("z") + b"u"
    for call in (b"R", b"\x81"):
        content = read(with_pickle(tmp_path / "x.pt", called(module, kind, b")", call + state + b"b")))
        record = content["a"]
        assert type(record) is Record and record.name == name
        assert record.get("__class__") == "z" and callable(record.get)


# Memory, time and the C stack: (what, the pickle).
BOMBS = {
    "a memo of 2^31": b"\x80\x02}r\xff\xff\xff\x7f.",
    "many memos": b"\x80\x02}" + b"\x94" * 20_000_000 + b".",
    "many sets": b"\x80\x04}" + text("a") + b"(" + b"\x8f" * 20_000_000 + b"ts.",
    "many marks": b"\x80\x02}" + b"(" * 20_000_000 + b".",
    "many records": b"\x80\x02}" + text("a") + b"cmy\nConfig\nq\x00" + b"h\x00)\x81" * 4_000_000 + b"s.",
    "a tuple in a tuple": b"\x80\x02})" + b"\x85" * 2_000_000 + b"Ns.",
    "a list in a list": b"\x80\x02}" + text("a") + b"]" * 400_000 + b"a" * 399_999 + b"s.",
    "a key of doubling tuples": b"\x80\x02}" + text("k") + b"".join(
        b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(60)
    ) + b"Ns.",
    "a key of a million": b"\x80\x02}(" + b"K\x01" * 1_000_000 + b"tNs.",
    "colliding keys": b"\x80\x02}(" + b"".join(
        b"\x8a\x0c" + ((2**61 - 1) * n).to_bytes(12, "little") + b"N" for n in range(1, 200_000)
    ) + b"u.",
    "a text of 2^62": b"\x80\x04}\x8d" + (2**62).to_bytes(8, "little") + b"x.",
    "bytes of 2^62": b"\x80\x04}\x8e" + (2**62).to_bytes(8, "little") + b"x.",
    "a bytearray of 2^40": b"\x80\x05}\x96" + (2**40).to_bytes(8, "little") + b"x.",
    "a frame of 2^62": b"\x80\x04\x95" + (2**62).to_bytes(8, "little") + b"}.",
    "a long of 2^31": b"\x80\x02}\x8b" + (2**31 - 1).to_bytes(4, "little") + b"x.",
    "a long of -1": b"\x80\x02}\x8b\xff\xff\xff\xff.",
    "a bytearray called": called("builtins", "bytearray", b"(J\xff\xff\xff\x7ft"),
    "a range called": called("builtins", "list", b"(J\xff\xff\xff\x7ft"),
    "persistent text": b"\x80\x02}P/etc/passwd\n.",
    "an extension": b"\x80\x02}\x82\x01.",
    "out-of-band buffers": b"\x80\x05}\x97.",
    "building a name": b"\x80\x02}" + text("a") + b"ccollections\nOrderedDict\n}" + text("x") + b"Nsbs.",
    "slots of a name": b"\x80\x02}" + text("a") + b"cmy\nConfig\nN}" + text("x") + b"Ns\x86bs.",
    "building a text": b"\x80\x02}" + text("a") + text("b") + b"}" + text("x") + b"Nsbs.",
    "calling a record": b"\x80\x02}" + text("a") + b"cmy\nConfig\n)\x81)Rs.",
    "calling a text": b"\x80\x02}" + text("a") + text("b") + b")Rs.",
    "appending to a name": b"\x80\x02}" + text("a") + b"cmy\nConfig\nNas.",
    "_rebuild_from_type of a function": called(
        "torch._tensor", "_rebuild_from_type_v2", b"(cos\nsystem\nN)Nt"
    ),
    "a scalar of objects": called(
        "numpy.core.multiarray", "scalar", b"(cnumpy\ndtype\n" + text("O8") + b"\x85R" + text("x") + b"t"
    ),
}  # fmt: skip
PROGRAM = """
import resource, sys, time
from mlx_tslm.conversion.pt.reader import read
from mlx_tslm.errors import TSLMError
before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
try:
    read(sys.argv[1])
    print("read", end=" ")
except TSLMError as error:
    assert "\\n" not in str(error)
    print("refused", end=" ")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.perf_counter() - started)
"""
HARMLESS = {
    "a memo of 2^31",
    "a frame of 2^62",
    "a list in a list",
    "many records",
    "a scalar of objects",
    "a range called",
    "a bytearray called",
}


@pytest.mark.parametrize("what", BOMBS)
def test_bombs_do_not_go_off(tmp_path: Path, what: str) -> None:
    """In a process of its own: at most 700 MB and half a minute of a slow machine, and no crash."""
    path = with_pickle(tmp_path / "x.pt", BOMBS[what])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])
    said, memory, seconds = done.stdout.split()
    assert said == "refused" or what in HARMLESS
    assert float(memory) * (1 if sys.platform == "darwin" else 1024) < 700e6
    assert float(seconds) < 30


def test_every_opcode_is_decided() -> None:
    """Those that pickle's protocols from 2 on write, without those that call or import in their own ways."""
    from mlx_tslm.conversion.pt.unpickler import Unpickler

    refused = {
        opcode.name for opcode in pickletools.opcodes if ord(opcode.code) not in Unpickler.dispatch
    }  # fmt: skip
    assert refused == {
        "INT", "LONG", "STRING", "BINSTRING", "SHORT_BINSTRING", "NEXT_BUFFER", "READONLY_BUFFER", "UNICODE",
        "FLOAT", "LIST", "DICT", "DUP", "GET", "PUT", "EXT1", "EXT2", "EXT4", "INST", "OBJ", "PERSID",
    }  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_changed_company_gives_an_error_or_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Bytes changed at random in a file with everything that is read past."""
    with zipfile.ZipFile(PEOPLE / "company.pt") as source:
        description = bytearray(source.read("company/data.pkl"))
    for _ in range(data.draw(st.integers(1, 4))):
        description[data.draw(st.integers(0, len(description) - 1))] = data.draw(st.integers(0, 255))
    path = with_pickle(tmp_path_factory.getbasetemp() / "changed.pt", bytes(description))
    try:
        assert isinstance(read(path), dict)
    except TSLMError as error:
        assert "\n" not in str(error)


def test_the_unpickler_in_c_would_not_do() -> None:
    """Why the one in Python is used: on a file's word the other makes room for 2^27 objects, over a gigabyte."""
    program = (
        "import io, pickle, resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "pickle.Unpickler(io.BytesIO(b'\\x80\\x02}r\\xff\\xff\\xff\\x07.')).load()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "MemoryError" in done.stderr


# Containers and what they say of their contents: (what, the file).
def number(value: int) -> bytes:
    """LONG1."""
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    key: bytes = text("0"),
    numel: int = 4,
    offset: int = 0,
    size: bytes = b"",
    stride: bytes = b"",
    kind: str = "Float",
) -> bytes:
    """`{"a": tensor}`, of the storage `data/0` (16 bytes) unless it says otherwise."""
    storage = (
        b"(" + text("storage") + f"ctorch\n{kind}Storage\n".encode() + key + text("cpu") + number(numel) + b"tQ"
    )
    shape = (size or numbers(4)) + (stride or numbers(1))
    args = b"(" + storage + number(offset) + shape + b"\x89ccollections\nOrderedDict\n)Rt"
    return called("torch._utils", "_rebuild_tensor_v2", args)


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that names are doubled
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for name, content in entries:
                archive.writestr(name, content)
    return buffer.getvalue()


def linked(name: str, target: str) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info, target.encode()


def patched(content: bytes, signature: bytes, at: int, value: bytes, which: int = -1) -> bytes:
    """A zip with other bytes in one of its directory's records."""
    places = [place.start() for place in re.finditer(re.escape(signature), content)]
    start = places[which] + at
    return content[:start] + value + content[start + len(value) :]


GOOD, SOUND = ("x/data.pkl", tensor()), ("x/data/0", bytes(16))
DIRECTORY, END = b"PK\1\2", b"PK\5\6"
EVIL = b"\x80\x02cos\nsystem\n" + text("touch /tmp/x") + b"\x85R."
ARCHIVES = {
    "a zip bomb": zipped(GOOD, ("x/data/0", bytes(1 << 28)), method=zipfile.ZIP_DEFLATED),
    "a compressed description": zipped(GOOD, method=zipfile.ZIP_DEFLATED),
    "bzip2": zipped(GOOD, SOUND, method=zipfile.ZIP_BZIP2),
    "a link for a storage": zipped(GOOD, linked("x/data/0", "/etc/passwd")),
    "a link for the description": zipped(linked("x/data.pkl", "/etc/passwd"), SOUND),
    "an absolute name": zipped(("/tmp/x/data.pkl", EVIL), ("/tmp/x/data/0", bytes(16))),
    "a name that climbs": zipped(("../../x/data.pkl", EVIL), ("../../x/data/0", bytes(16))),
    "two descriptions": zipped(GOOD, SOUND, ("x/data.pkl", EVIL)),
    "two storages of one name": zipped(GOOD, SOUND, SOUND),
    "two roots": zipped(GOOD, SOUND, ("y/data.pkl", EVIL)),
    "no root": zipped(("data.pkl", tensor()), ("data/0", bytes(16))),
    "seventy thousand entries": zipped(GOOD, *((f"x/data/{n}", b"") for n in range(70_000))),
    "a long name": zipped(GOOD, SOUND, ("x/" + "y" * 65_000, b"")),
    "a deep folder": zipped(("x/" * 5_000 + "data.pkl", tensor()), ("x/" * 5_000 + "data/0", bytes(16))),
    "an archive in an archive": zipped(("x/data.pkl", zipped(GOOD, SOUND)), SOUND),
    "a pickle in a pickle": zipped(
        ("x/data.pkl", b"\x80\x04}" + text("a") + b"B" + len(EVIL).to_bytes(4, "little") + EVIL + b"s."), SOUND
    ),
    "TorchScript": zipped(GOOD, SOUND, ("x/constants.pkl", EVIL), ("x/code/__torch__.py", b"import os")),
    "big-endian": zipped(GOOD, SOUND, ("x/byteorder", b"big")),
    "a wrong checksum": patched(zipped(GOOD, SOUND), DIRECTORY, 16, b"\1\2\3\4", which=0),
    "an encrypted entry": patched(zipped(GOOD, SOUND), DIRECTORY, 8, b"\1\0", which=0),
    "an entry beyond the end": patched(zipped(GOOD, SOUND), DIRECTORY, 42, b"\xff\xff\xff\x7f"),
    "an entry of four gigabytes": patched(zipped(GOOD, SOUND), DIRECTORY, 20, b"\xf0\xff\xff\xff\xf0\xff\xff\xff"),
    "an entry within another": patched(zipped(GOOD, SOUND), DIRECTORY, 42, b"\x04\0\0\0"),
    "a directory of other sizes": patched(zipped(GOOD, SOUND), END, 12, b"\xff\xff\xff\x7f"),
    "a directory elsewhere": patched(zipped(GOOD, SOUND), END, 16, b"\xff\xff\xff\x7f"),
    "a million entries stated": patched(zipped(GOOD, SOUND), END, 8, b"\xff\xff\xff\xff"),
    "something before the zip": b"#!/bin/sh\ntouch /tmp/x\n" + zipped(GOOD, SOUND),
    "two zips": zipped(("x/data.pkl", EVIL)) + zipped(GOOD, SOUND),
    "the format before 1.6": b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + EVIL,
    "a tar": b"\0" * 257 + b"ustar" + b"\0" * 250 + EVIL,
    "a bare pickle": EVIL,
    "a storage outside": zipped(("x/data.pkl", tensor(text("../../../etc/passwd"))), SOUND),
    "an absolute storage": zipped(("x/data.pkl", tensor(text("/etc/passwd"))), SOUND),
    "a storage that is not there": zipped(("x/data.pkl", tensor(text("7"))), SOUND),
    "a storage's key a number": zipped(("x/data.pkl", tensor(number(0))), SOUND),
    "a storage of 2^62": zipped(("x/data.pkl", tensor(numel=2**62)), SOUND),
    "a storage of -1": zipped(("x/data.pkl", tensor(numel=-1)), SOUND),
    "a tensor beyond its storage": zipped(("x/data.pkl", tensor(size=numbers(5))), SOUND),
    "an offset of 2^62": zipped(("x/data.pkl", tensor(offset=2**62)), SOUND),
    "an offset of -1": zipped(("x/data.pkl", tensor(offset=-1)), SOUND),
    "a size of -1": zipped(("x/data.pkl", tensor(size=numbers(-1))), SOUND),
    "sizes that overflow": zipped(
        ("x/data.pkl", tensor(size=numbers(2**33, 2**33), stride=numbers(0, 0))), SOUND
    ),
    "a negative stride": zipped(("x/data.pkl", tensor(stride=numbers(-1))), SOUND),
    "a stride of 2^62": zipped(("x/data.pkl", tensor(stride=numbers(2**62))), SOUND),
    "a thousand dimensions": zipped(
        ("x/data.pkl", tensor(size=numbers(*[1] * 1000), stride=numbers(*[1] * 1000))), SOUND
    ),
    "a storage of no kind": zipped(("x/data.pkl", tensor(kind="Evil")), SOUND),
    "a persistent text": zipped(("x/data.pkl", b"\x80\x02}" + text("a") + text("/etc/passwd") + b"Qs."), SOUND),
    "a persistent call": zipped(
        ("x/data.pkl", b"\x80\x02}" + text("a") + b"(cos\nsystem\n" + text("ls") + b"tQs."), SOUND
    ),
}  # fmt: skip
INERT = {
    "a pickle in a pickle", "something before the zip", "two zips", "seventy thousand entries", "a long name",
    "a deep folder", "an absolute name", "a name that climbs", "a zip bomb", "a link for a storage", "bzip2",
    "an entry within another", "an entry of four gigabytes", "an entry beyond the end", "a size of -1",
    "a million entries stated", "a storage of -1", "a storage of no kind",
}  # fmt: skip


@pytest.mark.parametrize("what", ARCHIVES)
def test_archives(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused in one line; some are read as far as they make sense, and hold nothing but their own bytes."""
    path = tmp_path / "x.pt"
    path.write_bytes(ARCHIVES[what])
    monkeypatch.chdir(tmp_path)
    started = time.perf_counter()
    try:
        value = read(path)["a"]
        if isinstance(value, Tensor):
            values = _tensors("x.pt", {"a": value})["a"].numpy()
            assert values.nbytes <= 16 and not values.any()
        assert what in INERT
    except TSLMError as error:
        assert "\n" not in str(error) and "x.pt" in str(error)
    assert time.perf_counter() - started < 20
    assert [one.name for one in tmp_path.iterdir()] == ["x.pt"] and not Path("/tmp/x").exists()


def test_the_sound_archive_is_read(tmp_path: Path) -> None:
    """The one that the others are made of."""
    path = tmp_path / "x.pt"
    path.write_bytes(zipped(GOOD, SOUND))
    assert read(path)["a"].numpy().shape == (4,)
    assert len(ARCHIVES) + len(BOMBS) + 4 * len(CALLS) > 400
