"""Ways to damage a model's folder: a list of them by hand, and a seeded stream of random ones.

A `Damage` names the file that it is done to and, of a JSON file, the field; it changes a folder in place.
"""

import json
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VALUES: dict[str, Any] = {
    "negative": -1, "zero": 0, "one": 1, "text": "seven", "fraction": 1.5, "huge": 10**30, "large": 2**31 - 1,
    "float huge": 1e300, "nan": float("nan"), "infinite": float("inf"), "true": True, "null": None, "list": [],
    "object": {}, "list of lists": [[1], [2]], "object within": {"a": {"b": {"c": []}}}, "control": "\x1b[31mred\x07",
    "long text": "x" * 100_000,
}  # fmt: skip
DEEP = "[" * 100_000 + "]" * 100_000
TEXTS: dict[str, bytes] = {
    "empty": b"", "a space": b" ", "a list": b"[]", "an object": b"{}", "null": b"null", "a number": b"7",
    "no JSON": b"{]", "deeply nested": DEEP.encode(), "binary": bytes(range(256)) * 4,
    "UTF-16": '{"a": 1}'.encode("utf-16"), "half a character": b'{"a": "\xc3"}', "HTML": b"<!doctype html><html></html>",
    "an LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "a number of 5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
}  # fmt: skip


@dataclass(frozen=True)
class Damage:
    """What is done to which file of a folder, and to which of its fields."""

    name: str
    file: str
    do: Callable[[Path], None]
    field: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.field + ' ' if self.field else ''}{self.name}"


def written(file: str, name: str, content: bytes) -> Damage:
    """A file with another content."""
    return Damage(name, file, lambda path: _bytes(path, content))


def fields(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all values of a JSON document but those of long lists."""
    if path:
        yield path
    entries = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content[:2] if isinstance(content, list) else [])
    )
    for key, value in entries:
        yield from fields(value, (*path, key))


def edited(file: str, field: tuple[Any, ...], name: str, value: Any, remove: bool = False) -> Damage:
    """A JSON file with another value in one place, or with none."""

    def do(path: Path) -> None:
        content = json.loads(path.read_text("utf-8"))
        inner = content
        for key in field[:-1]:
            inner = inner[key]
        if remove:
            del inner[field[-1]]
        else:
            inner[field[-1]] = value
        _bytes(path, json.dumps(content).encode())

    return Damage(name, file, do, ".".join(map(str, field)))


def of_json(folder: Path, file: str, deep: bool = True) -> Iterator[Damage]:
    """Everything in `VALUES` in every field, every field removed, and other contents altogether."""
    content = json.loads((folder / file).read_text("utf-8"))
    for name, text in TEXTS.items():
        yield written(file, name, text)
    for part in (2, 10):
        yield Damage(f"cut to 1/{part}", file, lambda path, part=part: _cut(path, path.stat().st_size // part))  # type: ignore[misc]
    yield Damage("missing", file, Path.unlink)
    yield Damage("a folder", file, lambda path: (path.unlink(), path.mkdir())[0])
    yield Damage("a link to itself", file, lambda path: (path.unlink(), path.symlink_to(path.name))[0])
    for field in fields(content):
        if deep or len(field) == 1:
            yield edited(file, field, "removed", None, remove=True)
            for name, value in VALUES.items():
                yield edited(file, field, name, value)


def header(path: Path) -> tuple[dict[str, Any], bytes]:
    """A safetensors file's header, and what comes after it."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(path: Path, head: Any, data: bytes, length: int | None = None) -> None:
    """Write a safetensors file with this header, of this stated length."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    _bytes(path, struct.pack("<Q", len(text) if length is None else length) + text + data)


def of_safetensors(file: str = "model.safetensors") -> Iterator[Damage]:
    """Cut, empty, with a header that lies about length, offsets, dtypes, shapes and names."""
    for name, text in TEXTS.items():
        yield written(file, name, text)
    for size in (1, 7, 8, 9, 100):
        yield Damage(f"cut to {size} bytes", file, lambda path, size=size: _cut(path, size))  # type: ignore[misc]
    for part in (0.01, 0.5, 0.99):
        yield Damage(
            f"cut to {part:.0%}", file, lambda path, part=part: _cut(path, int(path.stat().st_size * part))  # type: ignore[misc]
        )  # fmt: skip
    yield Damage("a byte less", file, lambda path: _cut(path, path.stat().st_size - 1))
    yield Damage("a byte more", file, lambda path: _bytes(path, path.read_bytes() + b"\0"))
    yield Damage("missing", file, Path.unlink)
    yield Damage("a folder", file, lambda path: (path.unlink(), path.mkdir())[0])
    yield Damage("a link to nothing", file, lambda path: (path.unlink(), path.symlink_to("nothing"))[0])
    for length in (0, 1, 2**31, 2**63 - 1, 2**64 - 1, 100_000_001):
        yield Damage(
            f"a header of {length} bytes", file,
            lambda path, length=length: with_header(path, *header(path), length=length),  # type: ignore[misc]
        )  # fmt: skip
    for name, head in {
        "a list": [], "null": None, "text": "x", "nothing": {}, "nested": DEEP.encode(), "not UTF-8": b'{"\xff": 1}',
        "metadata a list": {"__metadata__": []}, "metadata of numbers": {"__metadata__": {"a": 1}},
    }.items():  # fmt: skip
        yield Damage(
            f"header: {name}", file, lambda path, head=head: with_header(path, head, header(path)[1])  # type: ignore[misc]
        )  # fmt: skip
    entries: dict[str, dict[str, Any]] = {
        "offsets swapped": {"data_offsets": [64, 0]},
        "offsets negative": {"data_offsets": [-64, 0]},
        "offsets huge": {"data_offsets": [0, 2**62]},
        "offsets beyond 64 bits": {"data_offsets": [0, 2**70]},
        "offsets far out": {"data_offsets": [2**40, 2**40 + 64]},
        "offsets text": {"data_offsets": ["0", "64"]},
        "offsets three": {"data_offsets": [0, 1, 2]},
        "offsets null": {"data_offsets": None},
        "offsets of another tensor": {"data_offsets": "next"},
        "dtype odd": {"dtype": "F7"},
        "dtype F64": {"dtype": "F64"},
        "dtype C64": {"dtype": "C64"},
        "dtype F8": {"dtype": "F8_E4M3"},
        "dtype I8": {"dtype": "I8"},
        "dtype number": {"dtype": 4},
        "dtype null": {"dtype": None},
        "shape empty": {"shape": []},
        "shape zero": {"shape": [0]},
        "shape negative": {"shape": [-1, 64]},
        "shape overflowing": {"shape": [2**33, 2**33]},
        "shape huge": {"shape": [2**62]},
        "shape beyond 64 bits": {"shape": [2**70]},
        "shape fractional": {"shape": [1.5]},
        "shape text": {"shape": "64"},
        "shape of a thousand": {"shape": [1] * 1000},
    }
    for name, entry in entries.items():
        yield Damage(name, file, lambda path, entry=entry: _entry(path, entry))  # type: ignore[misc]
    for name, change in {
        "without data_offsets": lambda entry: entry.pop("data_offsets"),
        "without dtype": lambda entry: entry.pop("dtype"),
        "without shape": lambda entry: entry.pop("shape"),
    }.items():
        yield Damage(name, file, lambda path, change=change: _changed(path, change))  # type: ignore[misc]
    for name in ("", "\x1b[31m", "x" * 100_000, "a\nb", "__metadata__"):
        yield Damage(f"a tensor called {name[:8]!r}", file, lambda path, name=name: _renamed(path, name))  # type: ignore[misc]
    yield Damage("a tensor less", file, lambda path: _renamed(path, None))
    yield Damage("a name twice", file, _doubled)
    yield Damage("a hole", file, _hole)


def of_folder(folder: Path) -> Iterator[Damage]:
    """All of the above, for the files that a folder has."""
    yield from of_safetensors()
    for file in ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (folder / file).exists():
            yield from of_json(folder, file)
    yield from of_json(folder, "tokenizer.json", deep=False)
    content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    for field in fields(content["model"], ("model",)):
        if len(field) == 2:
            for name in ("null", "text", "negative", "list", "object"):
                yield edited("tokenizer.json", field, name, VALUES[name])
    for name, value in {"an id beyond the table": 10**6, "an id beyond 32 bits": 2**40}.items():
        yield edited("tokenizer.json", ("model", "vocab", next(iter(content["model"]["vocab"]))), name, value)
    index = "model.safetensors.index.json"
    for name, text in TEXTS.items():
        yield written(index, name, text)
    for name, weights in {
        "a list": [], "text": "x", "empty": {}, "numbers": {"a": 1}, "elsewhere": {"a": "../model.safetensors"},
        "absolute": {"a": "/etc/passwd"}, "not there": {"a": "model-2.safetensors"}, "itself": {"a": index},
        "a tensor that is not there": {"a": "model.safetensors"},
    }.items():  # fmt: skip
        yield written(index, f"weight_map {name}", json.dumps({"weight_map": weights}).encode())


def at_random(folder: Path, seed: int) -> Damage:
    """A damage drawn at random: bytes changed, cut out, doubled, or JSON values exchanged with one another."""
    rng = random.Random(seed)
    files = sorted(path.name for path in folder.iterdir() if path.suffix in (".json", ".safetensors"))
    file = rng.choice(files)
    kind = rng.choice(
        ["flip", "flip in front", "cut", "drop", "double", *(["value"] * 5 if file.endswith("json") else [])]
    )

    def do(path: Path) -> None:
        content = bytearray(path.read_bytes())
        at = rng.randrange(min(len(content), 200 if kind == "flip in front" else len(content)))
        length = rng.choice([1, 2, 8, 100])
        match kind:
            case "value":
                document = json.loads(content)
                places = list(fields(document))
                target, source = rng.choice(places), rng.choice(places)
                value = rng.choice([_at(document, source), *VALUES.values()])
                _at(document, target[:-1])[target[-1]] = value
                content = bytearray(json.dumps(document).encode())
            case "cut":
                del content[at:]
            case "drop":
                del content[at : at + length]
            case "double":
                content[at:at] = content[at : at + length]
            case _:
                for _ in range(rng.randint(1, 8)):
                    content[min(at + rng.randrange(20), len(content) - 1)] = rng.randrange(256)
        _bytes(path, bytes(content))

    return Damage(f"{kind}, seed {seed}", file, do)


def damaged(folder: Path, damage: Damage, target: Path) -> Path:
    """A copy of a folder with one damage done to it. What is not damaged is linked, not copied."""
    target.mkdir()
    for path in folder.iterdir():
        if path.is_file():
            if path.name == damage.file:
                shutil.copyfile(path, target / path.name)
            else:
                (target / path.name).symlink_to(path)
    damage.do(target / damage.file)
    return target


def _bytes(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def _cut(path: Path, size: int) -> None:
    _bytes(path, path.read_bytes()[:size])


def _at(content: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        content = content[key]
    return content


def _middle(head: dict[str, Any]) -> list[str]:
    names = sorted(name for name in head if name != "__metadata__")
    return names[len(names) // 2 :]


def _entry(path: Path, changes: dict[str, Any]) -> None:
    head, data = header(path)
    name, other = _middle(head)[:2]
    changes = {key: head[other][key] if value == "next" else value for key, value in changes.items()}
    head[name] |= changes
    with_header(path, head, data)


def _changed(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    head, data = header(path)
    change(head[_middle(head)[0]])
    with_header(path, head, data)


def _renamed(path: Path, name: str | None) -> None:
    head, data = header(path)
    entry = head.pop(_middle(head)[0])
    if name is not None:
        head[name] = entry
    with_header(path, head, data)


def _doubled(path: Path) -> None:
    head, data = header(path)
    name = _middle(head)[0]
    text = json.dumps(head)[:-1] + f", {json.dumps(name)}: {json.dumps(head[name])}}}"
    with_header(path, text.encode(), data)


def _hole(path: Path) -> None:
    head, data = header(path)
    for name, entry in head.items():
        if name != "__metadata__":
            entry["data_offsets"] = [offset + 64 for offset in entry["data_offsets"]]
    with_header(path, head, bytes(64) + data)
