"""Hostile `.pt` files: whatever they ask for, nothing runs, and neither memory nor time is theirs to take."""

import pickletools
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_tslm.conversion.pt.reader import read
from mlx_tslm.conversion.pt.tensors import Record
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
