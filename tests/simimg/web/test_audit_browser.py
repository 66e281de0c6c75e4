"""The audit and selections in a real browser, and each view as axe-core sees it; skipped without Chromium."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys

from simimg.health.audited_images import AuditedImages
from simimg.health.collection_audit import Audit
from simimg.health.findings_file import save_findings
from simimg.similarity.decisions import read_decisions
from simimg.similarity.embeddings import Embedder
from simimg.similarity.search_index import SearchIndex
from simimg.web import ServedIndex, create_app, listening, serving
from tests.simimg.web.test_browser import CHROMIUM, DRIVER, TOKEN, Page, Scene, comparing, driver
from tests.simimg.web.test_collection_findings import FINDINGS

__all__ = ["driver"]  # a fixture


def _axe() -> Path | None:
    """axe-core, from a package of the extra `test` that is not imported: it drives browsers of its own."""
    spec = importlib.util.find_spec("axe_playwright_python")
    return Path(spec.origin).with_name("axe.min.js") if spec and spec.origin else None


AXE = _axe()

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver are installed")


@pytest.fixture
def opened(index: SearchIndex, tmp_path: Path) -> SearchIndex:
    """A copy of the index with the findings of an audit; the files are a day apart."""
    opened = SearchIndex.open(Path(shutil.copytree(index.index_dir, tmp_path / "i")))
    agreement = [0.1 if path == "cats/2.jpg" else 0.9 for path in opened.images.column("path").tolist()]
    likely = {"cats/2.jpg": ("dogs", "old")}
    audited = AuditedImages.of_index(opened)
    save_findings(opened, Audit(FINDINGS, 15, audited, agreement=np.array(agreement), likely=likely))
    return opened


class Described:
    """A text encoder for which every text describes one image."""

    def __init__(self, index: SearchIndex, path: str) -> None:
        self.vector = np.float32(index.embeddings[index.images.column("path").tolist().index(path)])

    def embed(self, text: str) -> np.ndarray:
        return self.vector


@pytest.fixture
def page(
    driver: Any, index: SearchIndex, opened: SearchIndex, embedder: Embedder, plan_path: Path, tmp_path: Path
) -> Iterator[Page]:
    """The index with findings, whose images can be described, and beside it the one without."""
    listener = listening("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/?token={TOKEN}"
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    text: Any = Described(opened, "dogs/3.jpg")
    served = ServedIndex(opened, embedder, plan_path, text), ServedIndex(index, embedder, tmp_path / "other.json")
    with serving(create_app(*served, token=TOKEN), listener):
        page = Page(driver, url)
        page.media(1280, 1600)  # all findings are in sight
        yield page
        complaints = [line["message"] for line in driver.get_log("browser") if line["level"] == "SEVERE"]
        driver.get("about:blank")
    assert not complaints


_CHOOSE = """
const one = document.querySelector(arguments[0]);
one.value = arguments[1];
one.dispatchEvent(new Event('input'));
one.dispatchEvent(new Event('change'));
"""


def open_audit(page: Page) -> None:
    page.open("audit")
    page.until("document.querySelectorAll('.finding').length === 5")


def tags(page: Page) -> list[str]:
    return [str(text) for text in page.run("return [...document.querySelectorAll('.finding')].map((one) => "
                                           "one.querySelector('.tag')?.textContent ?? '')")]  # fmt: skip


def saved(folder: Path, name: str) -> str:
    end = time.monotonic() + 30
    while not (folder / name).is_file() or not (folder / name).stat().st_size:
        assert time.monotonic() < end, os.listdir(folder)
        time.sleep(0.05)
    text = (folder / name).read_text()
    (folder / name).unlink()
    return text


def test_findings_are_decided_by_keys_and_undone(page: Page, opened: SearchIndex) -> None:
    open_audit(page)
    assert [one.text.split() for one in page.all(".kinds button")][:2] == [["All", "5"], ["Label", "1"]]
    assert "dogs fits" in page.one(".panel .reason").text.lower()
    assert [one.text.split("\n")[-1] for one in page.all(".classes button")] == ["dogs", "old"]
    assert len(page.all(".evidence .mount")) == 1
    page.press(Keys.ARROW_DOWN, "1")
    page.until("document.querySelectorAll('.finding .tag').length === 2")  # the label, and the conflict about it
    assert tags(page)[:2] == ["→ dogs", "→ dogs"]
    page.press("n", "k")
    page.until("document.querySelectorAll('.finding .tag').length === 3")
    page.press(Keys.END, "x")
    assert "can only be kept" in page.one("#toast").text
    page.press("p", Keys.DELETE)
    page.until("document.querySelectorAll('.finding.is-drop').length === 2")
    assert [one.decision for one in read_decisions(opened.index_dir).findings] == ["relabel", "right", "drop"]
    page.press("u")
    page.until("document.querySelectorAll('.finding.is-right').length === 1")
    page.run("for (const key of 'uu') document.dispatchEvent(new KeyboardEvent('keydown', { key }))")
    page.until("!document.querySelector('.finding .tag')")
    assert not len(read_decisions(opened.index_dir).findings)
    page.run("for (const key of 'u') document.dispatchEvent(new KeyboardEvent('keydown', { key }))")  # nothing is left
    page.press(Keys.HOME)
    page.run("for (const key of '1k') document.dispatchEvent(new KeyboardEvent('keydown', { key }))")  # faster than it
    page.until("document.querySelectorAll('.finding.is-right').length === 1")
    assert tags(page)[:2] == ["→ dogs", "Kept"]
    page.run("for (const key of 'uu') document.dispatchEvent(new KeyboardEvent('keydown', { key }))")
    page.until("!document.querySelector('.finding .tag')")
    page.press(Keys.HOME, "e")
    assert page.run("return document.activeElement.tagName") == "INPUT"
    page.press("fish", Keys.ENTER)
    page.until("document.querySelector('.finding .tag')")
    assert tags(page)[0] == "→ fish"
    page.run("document.querySelector('[data-choice=shown]').value = 'decided'; "
             "document.querySelector('[data-choice=shown]').dispatchEvent(new Event('change'))")  # fmt: skip
    page.until("document.querySelectorAll('.finding').length === 2")
    page.run("document.querySelector('.finding').focus()")
    page.press("z")
    page.until("!document.querySelector('.finding .tag')")
    page.press("c")
    page.until("document.querySelector('dialog.compare')")
    page.press(Keys.ESCAPE)
    page.until("!document.querySelector('dialog')")
    page.press("/")
    page.until("document.activeElement === document.querySelector('.audit input[type=search]')")
    page.press(Keys.ESCAPE, "v")
    page.until("document.querySelector('.drop')")


def test_images_of_findings_at_full_size_and_their_matches(page: Page) -> None:
    open_audit(page)
    page.press(Keys.ARROW_DOWN, "f")
    page.until("document.querySelector('dialog.photo[data-full]')")
    assert page.one(".photo .what .path").get_attribute("title") == "cats/2.jpg"
    page.press("1")  # decides nothing
    page.press("n", "n", "p", "n", "f")
    page.until("!document.querySelector('dialog')")
    assert page.run("return document.activeElement.dataset.index") == "2"  # the one that was shown last
    assert page.all(".finding.now") == [page.driver.switch_to.active_element]
    assert not page.all(".finding .tag")
    page.one(".panel .shown").click()
    page.until("document.querySelector('dialog.photo[data-full]')")
    title = page.one(".photo .what .path").get_attribute("title")
    page.press("m")
    page.matched()
    assert not page.all("dialog[open]")
    assert page.one(".query .title .path").get_attribute("title") == title
    page.driver.back()
    page.until("document.querySelectorAll('.finding').length === 5")
    page.press(Keys.ARROW_DOWN, Keys.HOME, "c")
    page.until("document.querySelector('dialog.compare')")
    page.press("f")
    page.until("document.querySelector('dialog.photo[data-full]')")
    page.driver.forward()  # leaves the dialogs behind
    page.matched()
    assert not page.all("dialog[open]")


def test_two_browsers_keep_one_truth(page: Page) -> None:
    open_audit(page)
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("window")
    other = Page(page.driver, page.url)
    try:
        other.media(1280, 1600)
        open_audit(other)
        other.press(Keys.ARROW_DOWN, "x")
        other.until("document.querySelectorAll('.finding.is-drop').length === 2")
        page.driver.switch_to.window(first)
        page.until("document.querySelectorAll('.finding.is-drop').length === 2")  # without being touched
        page.run("""
        const { fetch } = window; // it hears nothing from now on
        window.fetch = (path, options) => (options?.cache ? new Promise(() => {}) : fetch(path, options));
        """)
        page.driver.switch_to.window(page.driver.window_handles[-1])
        other.press("u")
        other.until("!document.querySelector('.finding.is-drop')")
        page.driver.switch_to.window(first)
        page.press(Keys.ARROW_DOWN, "k")  # it has not seen that
        page.until("!document.getElementById('toast').hidden")
        assert "in the meantime" in page.one("#toast").text
        page.driver.get_log("browser")  # the 409
    finally:
        page.driver.switch_to.window(page.driver.window_handles[-1])
        page.driver.close()
        page.driver.switch_to.window(first)


def test_a_selection_is_filtered_sorted_decided_and_saved(page: Page, tmp_path: Path) -> None:
    open_audit(page)
    page.press(Keys.ARROW_DOWN, " ", Keys.SHIFT + Keys.ARROW_RIGHT)
    page.until("document.querySelectorAll('.finding.selected').length === 2")
    page.press("s")
    (row,) = csv.DictReader(saved(tmp_path, "findings.csv").splitlines())  # one image, which --exclude_from takes
    assert (row["path"], row["kind"], row["label"]) == ("cats/2.jpg", "label;label_conflict", "cats")
    assert "decision" not in row
    assert "split" not in row
    page.press("k")
    page.until("document.querySelectorAll('.finding.is-right').length === 2")
    assert not page.all(".finding.selected")
    page.press("u")
    page.until("!document.querySelector('.finding.is-right')")

    def choose(selector: str, value: str, number: int) -> None:
        page.run(_CHOOSE, f".audit {selector}", value)
        page.until(f"document.querySelectorAll('.finding').length === {number}")

    choose("select[aria-label='Only labels that']", "doubtful", 2)
    choose("select[aria-label='Only labels that']", "", 5)
    choose("[data-filter=class]", "old", 1)
    choose("[data-filter=class]", "", 5)
    choose_folder(page, ".audit", "c", Keys.ENTER)
    page.until("document.querySelectorAll('.finding').length === 4")
    choose("input[type=search]", "4.jp", 2)
    choose("input[type=search]", "", 4)
    choose_folder(page, ".audit", Keys.HOME, Keys.ENTER)
    page.until("document.querySelectorAll('.finding').length === 5")
    choose("input[type=date]", "2999-01-01", 0)
    assert page.one(".audit .dates summary").text == "From 2999-01-01"
    choose("input[type=date]", "", 5)
    choose("[data-choice=order]", "name", 5)
    assert [one.text for one in page.all(".finding .path")][:4] == ["2.jpg", "2.jpg", "4.jpg", "4.jpg"]
    page.one(".kinds [data-kind=dark]").click()
    page.until("document.querySelectorAll('.finding').length === 1")
    page.run("[...document.querySelectorAll('.plan button')].find((one) => one.textContent === 'JSON').click()")
    assert [row["path"] for row in json.loads(saved(tmp_path, "findings.json"))] == ["cats/4.jpg"]


def choose_folder(page: Page, view: str, *keys: str) -> None:
    """Opens the tree of folders in a view by keyboard, and presses keys in it."""
    page.run("document.querySelector(arguments[0]).focus()", f"{view} .folders summary")
    page.press(Keys.ENTER)
    page.until("document.activeElement.role === 'treeitem'")
    page.press(*keys)


def describe(page: Page, text: str) -> None:
    page.press("q")
    page.until("document.activeElement.matches('.describe input')")
    page.press(text, Keys.ENTER)
    page.matched()


def test_a_description_folders_and_another_index(page: Page) -> None:
    page.open()
    describe(page, "red boat")
    assert page.first_match() == "dogs/3.jpg, similarity 1.000"
    assert not page.all(".match.sure")
    page.press(Keys.ARROW_DOWN, "c")  # there is no image to compare it with
    page.until("document.querySelector('dialog.photo[data-full]')")
    page.press(Keys.ESCAPE)
    page.driver.refresh()  # the address has the description
    page.matched()
    assert page.one(".query .describe input").get_attribute("value") == "red boat"
    choose_folder(page, ".side", "o", Keys.ENTER)
    page.until("document.querySelectorAll('.match').length === 3")
    page.one(".actions .button").click()
    page.until("document.querySelectorAll('.all .tile').length === 3")
    choose_folder(page, ".all", Keys.HOME)
    tree = "return [...document.querySelectorAll('.all .tree li')].map((one) => one.ariaLabel)"
    assert page.run(tree) == ["All images, 15", "cats, 6", "dogs, 6", "old, 3"]
    page.press(Keys.ARROW_LEFT, Keys.ARROW_DOWN)  # folded, it is the last one
    assert page.run("return document.activeElement.ariaLabel") == "All images, 15"
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ESCAPE)
    assert page.run("return document.activeElement.tagName") == "SUMMARY"
    page.open("audit")
    page.until("document.querySelector('.finding')")
    page.press("j")
    page.until("location.pathname === '/i/photos/' && document.querySelector('.start .primary')")  # not audited
    assert page.one(".collection summary").text == "photos"
    page.press("v")  # to the collection
    page.until("document.querySelectorAll('.all .tile').length === 15")
    assert not page.all(".describe")
    page.one(".all .tile").click()
    page.matched()
    page.driver.refresh()
    page.matched()
    page.one(".collection summary").click()
    page.one(".indexes a").click()
    page.until("location.pathname === '/' && document.querySelector('.describe')")


def test_a_lasso_on_the_map(page: Page, opened: SearchIndex, tmp_path: Path) -> None:
    page.open("map")
    page.until("document.querySelector('.laying').hidden")
    page.run("document.querySelector('.map canvas').focus()")
    page.press("l")
    canvas = page.one(".map canvas")
    lasso = ActionChains(page.driver).move_to_element_with_offset(canvas, -620, -760).click_and_hold()
    for x, y in ((1240, 0), (0, 1520), (-1240, 0)):
        lasso = lasso.move_by_offset(x, y)
    lasso.release().perform()
    page.until("!document.querySelector('.chosen').hidden")
    assert page.one(".chosen .number").text == "15 selected"
    page.press("s")
    rows = list(csv.DictReader(saved(tmp_path, "selection.csv").splitlines()))
    assert sorted(row["path"] for row in rows) == sorted(opened.images.column("path").tolist())
    page.press(Keys.ESCAPE, " ")
    page.until("document.querySelector('.chosen .number').textContent === '1 selected'")
    page.press("x")
    page.until("document.querySelector('.chosen .number').textContent === '1 selected, 1 decided'")
    assert [one.decision for one in read_decisions(opened.index_dir).findings] == ["drop"]
    page.press("u")
    page.until("document.querySelector('.chosen .number').textContent === '1 selected'")
    page.run(_CHOOSE, ".map-filters [data-filter=class]", "old")
    page.press("a")
    page.until("document.querySelector('.chosen .number').textContent.match(/^[34] selected/)")


@pytest.mark.skipif(not AXE, reason="axe-playwright-python is not installed")
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_nothing_serious(
    page: Page, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, dark: bool
) -> None:
    found: list[tuple[str, ...]] = []

    def look(what: str) -> None:
        assert page.run("return document.documentElement.scrollWidth") <= width, what
        found.extend((f"{what}, {width} px", *one) for one in violations(page))

    files = [tmp_path / "new-2.png", tmp_path / "new-7.png"]
    for seed, file in zip((2, 7), files, strict=True):
        scene(seed).save(file)
    page.media(width, 1600, dark=dark)
    page.open()
    look("the collection")
    page.run("document.querySelector('.collection .menu').open = true")
    look("the indexes")
    choose_folder(page, ".all", Keys.HOME)
    look("the folders")
    page.press(Keys.ESCAPE)
    page.run("document.querySelector('.all .dates').open = true")
    look("the dates")
    describe(page, "red boat")
    look("a description")
    page.one("#file").send_keys("\n".join(map(str, files)))
    page.matched()
    look("several queries")
    page.press("r")
    page.until("document.querySelector('.region')")
    look("a region being drawn")
    page.press(Keys.ESCAPE, Keys.ARROW_DOWN, "f")
    page.until("document.querySelector('dialog.photo[data-full]')")
    look("full size")
    page.press(Keys.ESCAPE, "c")
    page.until("document.querySelector('.compare .cut img.laid')?.complete")
    look("the comparison")
    page.press(Keys.ESCAPE)
    page.open("map")
    page.until("document.querySelector('.laying').hidden")
    page.run("document.querySelector('.map-filters').open = true; document.querySelector('.map canvas').focus()")
    page.press(" ")
    look("the map")
    look_at_the_audit(page, look)
    with comparing(page, monkeypatch):
        look("copies while they are compared")
        page.one(".left .button").click()
        page.until("document.querySelector('.start #least')")
    page.find_copies()
    look("copies")
    page.press("?")
    look("the keys")
    page.run("onbeforeunload = null")
    assert [one for one in found if one[1] in ("serious", "critical")] == []


def look_at_the_audit(page: Page, look: Callable[[str], None]) -> None:
    open_audit(page)
    page.one(".finding").click()
    if page.run("return innerWidth") < 500:
        page.until("document.querySelector('.panel.open')")
        assert page.run("return document.querySelector('.panel').scrollWidth") <= 360
    page.press("1")
    page.until("document.querySelectorAll('.finding.is-relabel').length === 2")
    page.press("n", "x")
    page.until("document.querySelectorAll('.finding.is-drop').length === 2")
    look("the audit")
    page.press("u")
    page.until("!document.querySelector('.finding.is-drop')")
    page.press("u")
    page.until("!document.querySelector('.finding .tag')")


def violations(page: Page) -> list[list[str]]:
    page.until("document.getAnimations().every((one) => one.playState !== 'running')")
    if not page.run("return Boolean(window.axe)"):
        page.run(AXE.read_text())  # type: ignore[union-attr]
    return list(page.driver.execute_async_script("""
    const done = arguments[0];
    axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => done(violations.map(
      ({ impact, id, nodes }) => [impact, id, nodes[0].html.slice(0, 200), nodes[0].failureSummary.slice(0, 300)])));
    """))  # fmt: skip
