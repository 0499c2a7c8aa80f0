"""`scripts/torture`: its registry, its page, and that it can find a promise broken."""

import json
import os
import signal
from pathlib import Path

import pytest

from benchmarks.reliability import __main__ as torture
from benchmarks.reliability import children, page
from benchmarks.reliability.cases import CASES, Case, Run
from benchmarks.reliability.modules import load

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def line(case: str, **more: object) -> str:
    whole = {
        "case": case, "part": "Numbers", "promise": "It holds.", "figures": {"tries": 1200, "share": 0.25},
        "faults": [], "machine": "a machine", "commit": "abc",
    }  # fmt: skip
    return json.dumps(whole | more) + "\n"


def test_the_page_shows_the_last_line_of_each_case(tmp_path: Path) -> None:
    results = tmp_path / "reliability.jsonl"
    results.write_text(line("one", faults=["broken"]) + line("one") + line("two", part="Downloads", faults=["no"]))
    text = page.page(results)
    assert "| It holds. (`one`) | tries: 1,200; share: 0.25 | 0 |" in text and "(`two`)" in text
    assert text.index("## Downloads") < text.index("## Numbers") < text.index("## Not tried")


def test_the_stored_page_is_that_of_the_stored_results() -> None:
    results = BENCHMARKS / "results" / "reliability.jsonl"
    if results.exists():
        assert (BENCHMARKS / "RELIABILITY.md").read_text("utf-8") == page.page(results)


def test_every_case_stands_under_a_heading_and_promises_something() -> None:
    load()
    assert CASES and all(one.part in page.PARTS and one.promise.endswith(".") for one in CASES.values())


def test_a_case_that_fails_is_a_promise_broken() -> None:
    def breaks(run: Run) -> None:
        run.count("tries")
        run.check(1 > 2, "one is not more than two")
        raise OSError("gone")

    run, _ = torture.attempt(Case("breaks", "Numbers", "It holds.", breaks), short=True)
    assert run.figures == {"tries": 1} and len(run.faults) == 2 and "gone" in run.faults[1]


@pytest.mark.parametrize("after", (False, True))
def test_a_child_dies_at_the_rename_it_is_told(tmp_path: Path, after: bool) -> None:
    folder = tmp_path / "work"
    folder.mkdir()

    def work() -> int:
        for number in range(3):
            Path(f"new-{number}").touch()
            Path(f"new-{number}").rename(f"old-{number}")
        return 0

    assert children.run(work, folder).changes == {"renames": 3, "changes": 3}
    for path in folder.iterdir():
        path.unlink()
    ended = children.run(work, folder, children.Death(change=1, after=after))
    assert ended.code == -signal.SIGKILL
    assert (
        sorted(path.name for path in folder.iterdir())
        == ["old-0", "old-1" if after else "new-1"][:: 1 if after else -1]
    )
    assert os.rename is not None and children.run(lambda: 7, folder).code == 7
