"""The server's page in headless Chromium: dropping files, dragging the window, asking, stopping, reloading."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_serve import Served

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to open the page")
FLAGS = "--no-sandbox --disable-gpu --disable-quic --disable-background-networking --disable-component-update"
VALUES = np.sin(np.arange(200) / 5) + np.arange(200) / 50
TABLE = "time,load\n" + "".join(f"{i / 10:.1f},{value:.4f}\n" for i, value in enumerate(VALUES))
DROP = """([name, data]) => {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0)), carried = new DataTransfer();
    carried.items.add(new File([bytes], name));
    document.getElementById("drop").dispatchEvent(
        new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: carried }));
}"""


@pytest.fixture(scope="module")
def served(demo_folder: Path) -> Iterator[Served]:
    one = Served(str(demo_folder))
    assert one.service.wait(120)
    yield one
    one.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        one = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield one
        one.close()


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Any]:
    one = browser.new_page(viewport={"width": 1100, "height": 900})
    one.set_default_timeout(60_000)
    problems: list[str] = []
    one.on("pageerror", lambda error: problems.append(str(error)))
    outside: list[str] = []
    here = f"http://127.0.0.1:{served.port}/"
    one.on(
        "request", lambda request: None if request.url.startswith((here, "about:")) else outside.append(request.url)
    )
    one.goto(here)
    one.locator("#stage option").nth(4).wait_for(state="attached")
    yield one
    assert problems == []
    assert [url for url in outside if not url.startswith((here, "about:"))] == []
    one.close()


def drop(page: Any, name: str, data: bytes) -> None:
    page.evaluate(DROP, [name, base64.b64encode(data).decode()])


def text(page: Any, selector: str) -> str:
    return str(page.locator(selector).inner_text())


def test_a_dropped_file_is_drawn_and_a_window_dragged(page: Any) -> None:
    drop(page, "load.csv", TABLE.encode())
    page.wait_for_selector(".overview")
    assert "load.csv" in text(page, "#facts") and "10 Hz" in text(page, "#facts")
    box = page.locator(".overview").bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 30, steps=5)
    page.mouse.up()
    assert float(page.input_value("#start")) == pytest.approx(5, abs=0.1)
    assert float(page.input_value("#length")) == pytest.approx(10, abs=0.2)
    page.click("#whole")
    assert float(page.input_value("#length")) == 20


def test_what_cannot_be_read_says_so(page: Any) -> None:
    drop(page, "<b>x</b>.npy", b"no array")
    page.wait_for_selector("#problem:not([hidden])")
    assert "is not a NumPy file" in text(page, "#problem")
    assert page.locator("#problem b").count() == 0
    assert page.is_disabled("#go")


def test_a_search_is_watched_and_its_result_kept(page: Any, served: Served) -> None:
    page.select_option("#samples", "airline")
    page.wait_for_selector(".overview")
    page.select_option("#count", "8")
    page.fill("#question", "")
    page.click("#go")
    page.wait_for_selector("#links:not([hidden])")
    page.locator("#go:enabled").wait_for()
    assert text(page, "#progress").startswith("8 of 8")
    assert text(page, "#headline")
    frame = page.frame_locator("#frames iframe")
    assert "completions" in frame.locator("body").inner_text()
    link = page.locator("#links a").nth(1).get_attribute("href")
    saved = json.loads(page.request.get(f"http://127.0.0.1:{served.port}/{link}").text())
    assert saved["stats"]["rollouts"] == 8
    again = page.locator("#links a").nth(2).get_attribute("href")
    page.goto(f"http://127.0.0.1:{served.port}/{again}")
    assert "airline" in page.locator("body").inner_text().lower() or page.title()


def test_stopping_keeps_what_there_is(page: Any, served: Served) -> None:
    page.select_option("#samples", "stage3")
    page.wait_for_selector(".overview")
    page.select_option("#count", "64")
    page.click("#go")
    page.wait_for_selector("#links:not([hidden])")
    page.click("#stop")
    page.locator("#go:enabled").wait_for()
    assert "stopped" in text(page, "#progress")
    assert page.locator("#frames iframe").count() >= 1
    for _ in range(600):  # the search ends with the wave under way
        if served.service._searches == 0:
            break
        page.wait_for_timeout(100)
    assert served.service._searches == 0
    page.reload()
    page.locator("#stage option").nth(4).wait_for(state="attached")
    assert page.is_disabled("#go")


@pytest.mark.parametrize("width", [390, 768, 1300])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_at_any_width(browser: Any, served: Served, width: int, scheme: str) -> None:
    one = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    one.goto(f"http://127.0.0.1:{served.port}/")
    one.locator("#stage option").nth(4).wait_for(state="attached")
    drop(one, "load.csv", TABLE.encode())
    one.wait_for_selector(".overview")
    assert one.evaluate("document.documentElement.scrollWidth") <= width
    one.close()


def test_a_keyboard_is_enough(page: Any) -> None:
    drop(page, "load.csv", TABLE.encode())
    page.wait_for_selector(".overview")
    page.focus("#start")
    page.keyboard.type("3")
    page.keyboard.press("Tab")
    reached = set()
    for _ in range(12):
        reached.add(page.evaluate("document.activeElement.id"))
        page.keyboard.press("Tab")
    assert {"length", "whole", "stage", "question", "count", "go"} <= reached
