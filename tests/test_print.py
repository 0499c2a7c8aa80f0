"""The page on paper: what a browser prints of a search with many completions."""

import shutil
from pathlib import Path

import pytest

from mlx_tslm.cli import main

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to print the page")


def test_tables_have_their_headers_on_each_page_and_no_text_is_cut(
    demo_folder: Path, airline: Path, tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    asked = ["--model", str(demo_folder), "--series", str(airline), "--html", str(path), "--temperature", "1.5"]
    assert main(["search", *asked, "--num-rollouts", "40", "--no-stop-early", "--max-tokens", "60"]) == 0
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 700, "height": 990})
        page.emulate_media(media="print")
        page.goto(path.as_uri())
        page.locator("table thead").first.wait_for(state="attached")
        heads = page.eval_on_selector_all("table thead", "all => all.map((one) => getComputedStyle(one).display)")
        cut = page.eval_on_selector_all(
            "table td",
            "all => all.filter((one) => one.scrollWidth > one.clientWidth + 1 && one.clientWidth).length",
        )
        wide = page.evaluate("document.documentElement.scrollWidth")
        pages = page.pdf(format="A4").count(b"/Type /Page\n")
        browser.close()
    assert heads and set(heads) == {"table-header-group"}
    assert cut == 0 and wide <= 700
    assert pages >= 2
