"""What strangers' names and texts can do to a terminal: nothing. They are shown, not obeyed nor interpreted."""

import contextlib
import io
import json
import os
import pty
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text
from tiny import write_base, write_checkpoint

from mlx_tslm import conversion
from mlx_tslm.cli import main, terminal
from mlx_tslm.errors import visible

HOSTILE = {
    "CSI": "\x1b[2J\x1b[31mred",
    "OSC 8": "\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "OSC 52": "\x1b]52;c;ZXZpbA==\x07",
    "OSC 0": "\x1b]0;title\x07",
    "DCS": "\x1bP+q544e\x1b\\",
    "C1": "\x9b31mred\x9d52;c;ZXZpbA==\x9c",
    "right to left": "invoice_\u202efdp.exe",
    "isolates": "\u2066a\u2069\u200f",
    "backspace": "safe\x08\x08\x08\x08evil",
    "carriage return": "evil\rgood",
    "NUL and DEL": "a\x00b\x7f",
    "line separators": "a\u2028b\u2029c\x85d",
    "tags": "a\U000e0041b",
}
MARKUP = ["[bold red]x[/bold red]", "[/nope]", "[link=http://evil.example]x[/link]", ":smile:", "[[x]", "\\[x]"]
OWN = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[[0-9]*[AKGC]")  # Rich's own: colours, the cursor


def harmless(text: str) -> bool:
    """Whether a terminal would only print it, and from left to right."""
    return not [one for one in OWN.sub("", text) if one not in "\r\n\t" and visible(one) != one]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_is_obeyed(text: str) -> None:
    """Through each helper, and where a text is printed without one."""
    out = io.StringIO()
    console = terminal._SafeConsole(file=out, width=300, force_terminal=True, markup=False, emoji=False)
    for shown in (
        Text(text), text, terminal.table([text], [[text, text]], title=text), terminal.facts([(text, text)]),
        terminal.panel(text, title=text, subtitle=text), terminal.shares([(text, 0.5)]),
        terminal.one_line(text, 200),
    ):  # fmt: skip
        console.print(shown)
    assert harmless(out.getvalue())
    hidden = next(one for one in text if visible(one, lines=False) != one)
    assert visible(hidden) in out.getvalue()


@pytest.mark.parametrize("text", MARKUP)
def test_nothing_is_interpreted(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    for console in (terminal.console, terminal.status):
        with console.capture() as got:
            console.print(text)
            console.print(terminal.table([text], [[text]], title=text))
            console.print(terminal.panel(text, title=text))
        assert got.get().count(text) == 6


def test_no_command_relies_on_markup() -> None:
    """It is off on both consoles: styles are given as such, so that no name can smuggle one in."""
    for path in Path(terminal.__file__).parent.glob("*.py"):
        assert not re.search(r"\[/\w*\]|\.from_markup|status\.status\(f", path.read_text("utf-8")), path.name


@given(st.text())
def test_what_is_visible(text: str) -> None:
    """Only characters with a shape are left, ordinary text is as it was, and twice is as once."""
    shown = visible(text, lines=False)
    kinds = {unicodedata.category(one) for one in shown if one not in "\u200c\u200d\u00ad"}
    assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"} and visible(shown) == shown
    ordinary = "".join(one for one in text if visible(one) == one)
    assert visible(ordinary) == ordinary


@given(st.text())
def test_json_reads_back_the_same(text: str) -> None:
    out = io.StringIO()
    terminal.print_json({"a": text}, out)
    assert json.loads(out.getvalue()) == {"a": text}
    assert visible(out.getvalue()[:-1], lines=False) == out.getvalue()[:-1]


PROGRAM = """
import dataclasses, json, sys
from pathlib import Path
import mlx_tslm
from mlx_tslm import generation
from mlx_tslm.cli import main
folder, hostile = Path(sys.argv[1]), json.loads(sys.argv[2])
real = generation.stream_generate
for name, text in hostile.items():
    def evil(*arguments, text=text):
        for response in real(*arguments):
            yield dataclasses.replace(response, text=text)
    generation.stream_generate = evil
    safe = text.replace("/", "_").replace("\\0", "")
    series = folder / f"{safe}.csv"
    series.write_text(f'"{text}"\\n' + "\\n".join(map(str, range(32))), "utf-8")
    asked = ["--stage", "stage2", "--series", str(series), "--max-tokens", "2"]
    print(main(["generate", "--model", str(folder / "model"), *asked]))
    print(main(["generate", "--model", str(folder / "model"), *asked, "--json"]))
    print(main(["generate", "--model", text, *asked]))
    print(main(["generate", "--model", str(folder / "model"), "--series", text]))
    print(main(["generate", "--model", str(folder / "model"), *asked, "--channel", text]))
    page = str(folder / f"{safe}.html")
    print(main(["search", "--model", str(folder / "model"), *asked, "-n", "2", "--html", page]))
    print(main(["search", "--model", str(folder / "model"), "--batch", str(series), "--max-tokens", "2", "-n", "2",
                "--stage", "stage2", "--json", str(folder / f"{safe}.jsonl")]))
    print(main(["convert", text, "-o", str(folder / safe)]))
    print(main([text]))
"""


def test_in_a_terminal(tmp_path: Path) -> None:
    """File names, channel names, --model, outputs' names and a model's text, on a terminal of its own."""
    base = write_base("llama", tmp_path / "base")
    checkpoint = write_checkpoint("llama", tmp_path / "tiny.pt", max_patches=32)
    conversion.convert(checkpoint, tmp_path / "model", llm=str(base))
    hostile = HOSTILE | {"markup": "[/nope] [bold]x[/bold] :smile:"}
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "HF_HUB_OFFLINE": "1", "COLUMNS": "400"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), json.dumps(hostile)]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment, close_fds=True)
    os.close(slave)
    said = b""
    with contextlib.suppress(OSError):  # the terminal is closed
        while chunk := os.read(master, 1 << 16):
            said += chunk
    assert process.wait() == 0, said[-2000:]
    os.close(master)
    text = said.decode("utf-8")
    assert harmless(text), [line for line in text.split("\n") if not harmless(line)][:3]
    assert "Traceback" not in text and "MarkupError" not in text
    for payload in ("\\x1b]52;c;", "\\x9b31m", "\\u202efdp", "[/nope] [bold]x[/bold] :smile:"):
        assert text.count(payload) >= 5, payload
    codes = re.findall(r"^(\d)\r?$", text, re.MULTILINE)
    assert len(codes) == 9 * len(hostile) and set(codes) <= {"0", "2"} and codes.count("0") >= 2 * len(hostile)


def test_errors_do_not_forge_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--model", "demo", "--series", "x\nerror: all is lost\x1b[1A.csv"]) == 2
    *_, last = capsys.readouterr().err.rstrip("\n").split("\n")
    assert last.startswith("error: there is no file") and "\\x1b[1A" in last


def test_the_tests_can_fail() -> None:
    assert not harmless("\x1b]0;title\x07") and not harmless("\u202e") and not harmless("\x9b")
    assert harmless("\x1b[1;31mred\x1b[0m\x1b[?25l")
