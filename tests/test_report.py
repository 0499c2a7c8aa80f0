"""The HTML page: what its data says, that no text breaks out of it, and that a browser draws it without errors."""

import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_tslm import signals, stages
from mlx_tslm.completion import Completion
from mlx_tslm.errors import TSLMError, visible
from mlx_tslm.report import write_html
from mlx_tslm.report.branches import list_branches
from mlx_tslm.report.page import fill, page_data
from mlx_tslm.report.series import MOST_POINTS, envelope, panel
from mlx_tslm.rewards import default_reward
from mlx_tslm.search.config import SearchConfig
from mlx_tslm.search.result import ScoredCompletion, SearchResult, SearchStats
from mlx_tslm.search.tree import ROOT, Tree
from mlx_tslm.series import Series
from mlx_tslm.stages.base import Prompt, Question

HOSTILE = (
    "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> & \"' {{data}} \u2028\u202e \x00 é 心"
)
TEXTS = [
    "The trend is upward with a season of 12 months.",
    "The trend is upward with a season of 9 months.",
    "The trend is flat.",
    "No trend.",
    HOSTILE,
]


class Characters:
    """A tokenizer whose tokens are characters; 0 ends an answer."""

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return "".join(chr(one) for one in ids if one)


def grow(context: Question, texts: list[str]) -> SearchResult:
    """A result whose completions are these texts, each with the same prior at every fork."""
    tree, ends = Tree(), []
    for text in texts:
        node = ROOT
        for token in [*map(ord, text), 0]:
            end = np.array([token == 0])
            edge = np.array([node], np.int32), np.array([token], np.int32), np.array([math.log(0.5)])
            node = int(tree.add(*edge, end, end)[0])
        ends.append(node)
    found = [
        Completion(text, tuple(tree.path(end)), -1.0, context.stage and context.parse(text))
        for text, end in zip(texts, ends, strict=True)
    ]
    scores = default_reward(context.stage).score(found, context)
    tree.count_along(tree.visits, np.array(ends, np.int32), 1)
    tree.value[:] = 0.5
    completions = [
        ScoredCompletion(
            **vars(one),
            reward=float(scores.total[i]),
            weight=1 / len(found),
            columns={
                name: None if np.isnan(column[i]) else float(column[i]) for name, column in scores.columns.items()
            },
            node=ends[i],
        )
        for i, one in enumerate(found)
    ]
    stats = SearchStats(
        rollouts=len(texts),
        started=len(texts),
        waves=1,
        nodes=tree.size,
        depth=int(tree.depth.max()),
        branching=1.1,
        prompt_tokens=80,
        forward_passes=40,
        tokens_decoded=tree.size,
        seconds={"prefill": 0.1, "decode": 1.0, "total": 1.5},
        peak_memory=10**8,
    )
    return SearchResult(completions, 0.5, tree, stats, SearchConfig(num_rollouts=len(texts)))


@pytest.fixture(scope="module")
def recording(airline: Path) -> signals.Recording:
    return signals.read(airline)


@pytest.fixture(scope="module")
def context(recording: signals.Recording) -> Question:
    return stages.get("stage2").prompt(recording, "Why?")


def written(text: str) -> dict[str, Any]:
    """The data in a page, as a browser reads it."""
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert block is not None
    return json.loads(block[1])  # type: ignore[no-any-return]


def test_page_holds_the_result(tmp_path: Path, context: Question, recording: signals.Recording) -> None:
    result = grow(context, [*TEXTS, TEXTS[0]])
    path = tmp_path / "page.html"
    write_html(result, path, question=context, tokenizer=Characters(), model="demo")
    data = written(path.read_text("utf-8"))
    assert data["question"] == "Why?"
    assert data["finished"] == 6
    assert [panel["name"] for panel in data["signals"]] == ["Passengers"]
    assert data["signals"][0]["values"] == recording.values[0].tolist()
    assert sum(row["weight"] for row in data["completions"]) == pytest.approx(1, abs=1e-5)
    twice = data["completions"][0]
    assert (twice["text"], twice["times"], twice["weight"]) == (TEXTS[0], 2, pytest.approx(1 / 3, abs=1e-5))
    assert ["period 12 months", 1.0] in [[claim, round(value, 1)] for claim, value in twice["claims"]]
    assert {row["text"]: row["weight"] for row in data["answers"]} == pytest.approx(result.answers, abs=1e-5)
    lines = {line["label"]: line for line in data["spectra"]["lines"]}
    assert lines["period 12 months"]["at"] == pytest.approx(1 / 12, rel=1e-4)
    assert lines["period 12 months"]["distance"] < 0.5 < lines["period 9 months"]["distance"]
    peak = np.argmax(data["spectra"]["input"][1])
    assert data["spectra"]["input"][0][peak] == pytest.approx(1 / 12, rel=0.05)


def test_no_text_breaks_out_of_the_data(context: Question) -> None:
    asked = replace(context, asked=HOSTILE.strip())
    data = page_data(grow(context, TEXTS), asked, Characters(), HOSTILE, notes=[HOSTILE])
    page = fill(data)
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img" not in page and "\u2028" not in page.partition("<body>")[2]
    read = written(page)
    assert read["question"] == visible(HOSTILE.strip()) and read["notes"] == [visible(HOSTILE)]
    assert visible(HOSTILE) in [row["text"] for row in read["completions"]]


def test_the_page_asks_nothing_of_a_network(context: Question) -> None:
    page = fill(page_data(grow(context, ["plain"]), context, Characters(), "demo"))
    assert "default-src 'none'" in page
    outside = re.compile(r"\b(?:src|href)=|@import|url\(|\bfetch\(|XMLHttp|innerHTML|//www|https?:")
    assert outside.findall(page.replace("http://www.w3.org/2000/svg", "")) == []


def test_nan_and_infinity_are_no_figures(context: Question) -> None:
    result = grow(context, TEXTS)
    result.tree.value[3] = -np.inf
    data = written(fill(page_data(replace(result, root_value=math.nan), context, Characters(), "demo")))
    assert data["root_value"] is None


def test_branches_join_runs_of_single_children(context: Question) -> None:
    result = grow(context, ["abc", "abd", "x"])
    # An answer under way, not scored: it is no fork of "x" and no branch.
    unscored = np.array([result.tree.path(0) or 0], np.int32), np.array([ord("q")], np.int32)
    result.tree.add(*unscored, np.zeros(1), np.zeros(1, bool), np.zeros(1, bool))
    ends = [one.node for one in result.completions]
    tree = list_branches(result, Characters(), {node: [node] for node in ends})
    assert list(zip(tree["text"], tree["parent"], strict=True)) == [
        ("", -1), ("ab", 0), ("c", 1), ("d", 1), ("x", 0)
    ]  # fmt: skip
    assert tree["visits"] == [3, 2, 1, 1, 1]
    assert tree["tokens"] == [0, 2, 4, 4, 2]
    assert tree["row"] == [-1, -1, 0, 1, 2]
    assert tree["log_prior"] == pytest.approx([math.log(0.5) * n for n in (0, 2, 2, 2, 2)])
    assert tree["first"] == pytest.approx([0.0] + [math.log(0.5)] * 4)


def test_half_a_character_goes_to_the_branch_that_completes_it(context: Question) -> None:
    class Bytes:
        def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
            return bytes(one for one in ids if one).decode("utf-8", errors="replace")

    result = grow(context, ["a\xc3\xa9", "a\xc3\xa8"])  # two bytes each of é and è: they fork inside the character
    tree = list_branches(result, Bytes(), {})
    assert tree["text"] == ["", "a", "é", "è"]


def test_a_long_series_keeps_its_peaks() -> None:
    values = np.zeros(100_000)
    values[54_321], values[77_777] = 9.0, -9.0
    where, points = envelope(values)
    assert len(where) <= MOST_POINTS and (np.diff(where) > 0).all()
    assert points[where == 54_321] == 9 and points[where == 77_777] == -9


def test_series_are_drawn_under_their_own_names_and_in_their_units() -> None:
    stage, rng = stages.get("stage3"), np.random.default_rng(0)
    values = rng.normal(size=(3, 128)) + 3
    named = stage.prompt(signals.Recording(values, ("ax", "ay", "az"), 50.0, ("g",) * 3))
    drawn = [panel(one) for one in named.series]
    assert [(one["name"], one["unit"]) for one in drawn] == [("ax", "g"), ("ay", "g"), ("az", "g")]
    assert drawn[0]["values"] == values[0].tolist()
    assert [panel(one)["name"] for one in stage.prompt(values).series] == ["x", "y", "z"]


def test_flat_input_without_a_stage(tmp_path: Path) -> None:
    free = Prompt("What is it?", [Series("a line", np.zeros(32))])
    result = grow(free, ["nothing"])
    data = page_data(result, free, Characters(), "demo")
    assert data["spectra"] is None and data["stage"] is None and data["answers"] == []
    write_html(result, tmp_path / "page.html", question=free, tokenizer=Characters(), model="demo")


def test_a_folder_that_is_not_there(tmp_path: Path, context: Question) -> None:
    with pytest.raises(TSLMError, match="cannot write"):
        write_html(
            grow(context, TEXTS),
            tmp_path / "no" / "page.html",
            question=context,
            tokenizer=Characters(),
            model="demo",
        )


def test_without_javascript_the_answers_and_the_signal_are_there(context: Question) -> None:
    page = fill(page_data(grow(context, TEXTS), context, Characters(), "demo", recording="airline.csv"))
    still = re.search(r"<noscript>(.*?)</noscript>", page, re.DOTALL)
    assert still is not None and "<polyline" in still[1] and "Passengers: 144 samples" in still[1]
    assert TEXTS[0] in still[1] and "alert(1)&lt;/script&gt;" in still[1]
    assert "<title>Why? - airline.csv</title>" in page


# --- in a browser ---

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to open the page")


def browse(page: Path, profile: Path, *more: str) -> tuple[str, list[str]]:
    """The page's document once its scripts have run, and what they wrote to the console."""
    assert CHROMIUM is not None
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=3000 --dump-dom"
    )
    command = [
        CHROMIUM,
        *flags.split(),
        "--window-size=1300,2000",
        f"--user-data-dir={profile}",
        *more,
        page.as_uri(),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return run.stdout, [line for line in run.stderr.splitlines() if "CONSOLE" in line]


def scripted(page: str, script: str) -> str:
    """The page with one more script, which runs when the page has drawn itself."""
    return page.replace("</body>", f"<script>setTimeout(() => {{ {script} }}, 500);</script></body>")


@in_browser
def test_a_browser_draws_everything(tmp_path: Path, context: Question, recording: signals.Recording) -> None:
    result = grow(context, [*TEXTS, TEXTS[0]])
    path = tmp_path / "page.html"
    write_html(result, path, question=context, tokenizer=Characters(), model="demo")
    page, console = browse(path, tmp_path / "profile")
    assert console == []
    shown = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "6 completions" in shown and "5 distinct texts" in shown
    for answer in [*result.answers][:4]:
        assert answer in shown
    assert shown.count('role="treeitem"') >= 8
    assert shown.count('class="node') >= 8  # branches in the drawing
    assert 'class="line"' in shown and 'class="stated"' in shown
    assert "alert(1)&lt;/script&gt;" in shown and "<img" not in shown


@in_browser
def test_a_browser_only_shows_what_strangers_wrote(tmp_path: Path, context: Question) -> None:
    """Markup, scripts and marks of direction in a model's text and in its name."""
    evil = "a\u202eb</script><script>document.title='owned'</script>"
    evil += "<img src=x onerror=\"document.title='owned'\">\x1b]0;x"
    path = tmp_path / "page.html"
    write_html(grow(context, [evil, "b"]), path, question=context, tokenizer=Characters(), model=evil)
    page, console = browse(path, tmp_path / "profile")
    shown = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert console == [] and "<title>owned" not in page and "<img" not in shown
    assert "a\\u202eb" in shown and "\u202e" not in page and "\x1b" not in page


@in_browser
def test_the_tree_unfolds_by_keyboard(tmp_path: Path, context: Question) -> None:
    words = [f"{a}{b}{c}{d}" for a in "abc" for b in "de" for c in "fg" for d in "hij"]
    page = fill(page_data(grow(context, words), context, Characters(), "demo"))
    script = """
      const press = (key) => document.activeElement.dispatchEvent(
        new KeyboardEvent("keydown", {key, bubbles: true}));
      const rows = () => outline.querySelectorAll("[role=treeitem]").length, found = [];
      outline.firstElementChild.focus();
      press("ArrowLeft"); found.push(rows());
      press("ArrowRight"); found.push(rows());
      press("End"); press("Enter"); found.push(rows());
      press("ArrowDown"); found.push(document.activeElement.getAttribute("aria-level"));
      press("ArrowLeft"); press("Enter"); found.push(rows());
      document.body.replaceChildren(found.join(" "));
    """
    path = tmp_path / "page.html"
    path.write_text(scripted(page, script), "utf-8")
    shown, console = browse(path, tmp_path / "profile")
    assert console == []
    assert re.search(r"<body>\s*1 4 6 3 4\s*</body>", shown), shown[-200:]


@in_browser
def test_a_large_tree_is_drawn_as_far_as_it_is_unfolded(tmp_path: Path, context: Question) -> None:
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), 6)) for _ in range(1500)]
    path = tmp_path / "page.html"
    path.write_text(fill(page_data(grow(context, words), context, Characters(), "demo")), "utf-8")
    shown, console = browse(path, tmp_path / "profile")
    assert console == []
    assert shown.count('role="treeitem"') < 300
    assert "1,2" in shown and "most visited of" in shown


@in_browser
@pytest.mark.parametrize("width", [390, 820, 1300])
def test_nothing_is_cut_at_any_width(width: int, tmp_path: Path, context: Question) -> None:
    """In a frame of that width nothing is wider than the page; on a phone no text is cut where answers differ."""
    long = [f"{'The trend is upward and the same words go on and on. ' * 6}{end}" for end in ("Yes.", "No.")]
    (tmp_path / "inner.html").write_text(
        fill(page_data(grow(context, long), context, Characters(), "demo")), "utf-8"
    )
    script = """
      const d = document.querySelector("iframe").contentDocument;
      const texts = [...d.querySelectorAll("td .text, .answers .text")];
      const cut = texts.filter((e) => e.scrollHeight > e.clientHeight + 2 && e.clientHeight);
      document.body.replaceChildren(`wide ${d.documentElement.scrollWidth} cut ${cut.length}`);
    """
    path = tmp_path / "page.html"
    frame = f'<iframe src="inner.html" style="width:{width}px;height:1500px;border:0"></iframe>'
    path.write_text(f"<body>{frame}<script>setTimeout(() => {{ {script} }}, 1500)</script></body>", "utf-8")
    shown, _ = browse(path, tmp_path / "profile", "--allow-file-access-from-files")
    found = re.search(r"wide (\d+) cut (\d+)", shown)
    assert found is not None and int(found[1]) <= width, shown[-300:]
    assert int(found[2]) == 0 or width > 736


@in_browser
def test_one_sample_is_a_dot(tmp_path: Path) -> None:
    free = Prompt("What is it?", [Series("a point", np.zeros(1))])
    path = tmp_path / "page.html"
    write_html(grow(free, ["nothing"]), path, question=free, tokenizer=Characters(), model="demo")
    shown, console = browse(path, tmp_path / "profile")
    assert console == [] and 'class="sample"' in shown
