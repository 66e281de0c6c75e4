"""The page in a real browser: headless Chromium, driven by Selenium; skipped where there is none."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from simimg.commands.serve import _file_that_opens
from simimg.similarity.decisions import DECISIONS_FILE, read_decisions
from simimg.similarity.embeddings import Embedder
from simimg.similarity.file_quarantine import apply_plan
from simimg.similarity.index_update import index_folder
from simimg.similarity.plan_file import load_plan
from simimg.similarity.search_index import SearchIndex
from simimg.web import ServedIndex, create_app, listening, review, serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
).split()
TOKEN = "5ec2e7"
WAIT_S = 60.0  # for what takes a tenth of a second on an idle machine

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver are installed")

Scene = Callable[..., Image.Image]


class Page:
    """The page in a browser, and what a user does with it."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver = driver
        self.url = url
        self.opened: list[Path] = []  # files whose folders were opened

    def open(self, view: str = "", *, tiles: bool = True) -> None:
        self.driver.get("about:blank")
        self.driver.get(f"{self.url}#/{view}")
        self.until("document.querySelector('#main > .view')")
        if not view and tiles:
            self.until("document.querySelectorAll('.tile img.there').length > 5")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, expression: str) -> None:
        """Waits for an expression of JavaScript to be true."""
        end = time.monotonic() + WAIT_S
        while not self.run(f"return Boolean({expression})"):
            assert time.monotonic() < end, expression
            time.sleep(0.03)

    def one(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def press(self, *keys: str) -> None:
        """Presses keys wherever the focus is."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def matched(self) -> None:
        """Waits until a search has ended."""
        self.until("document.querySelector('.match') && !document.querySelector('.search[aria-busy]')")

    def find_copies(self) -> None:
        """Opens the copies, and has those found that are 0.6 similar."""
        self.open("copies")
        self.until("document.querySelector('.start .primary')")
        slider = self.one("#least")
        self.run("arguments[0].value = 0.6; arguments[0].dispatchEvent(new Event('input'))", slider)
        self.one(".start .primary").click()
        self.until("document.querySelector('.cards .card')")

    def first_match(self) -> str:
        return str(self.one(".match[data-index='0']").get_attribute("aria-label"))

    def media(self, width: int, height: int, *, dark: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        driver.set_page_load_timeout(WAIT_S)
        try:
            yield driver
        finally:
            driver.quit()


@pytest.fixture
def page(driver: Any, index: SearchIndex, embedder: Embedder, plan_path: Path) -> Iterator[Page]:
    """A server of its own for each test; the browser must have had nothing to complain of."""
    listener = listening("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/?token={TOKEN}"
    page = Page(driver, url)
    with serving(create_app(ServedIndex(index, embedder, plan_path), token=TOKEN, opener=page.opened.append), listener):
        page.media(1280, 800)
        yield page
        complaints = [line["message"] for line in driver.get_log("browser") if line["level"] == "SEVERE"]
        page.run("onbeforeunload = null")
        driver.get("about:blank")
    assert not complaints


@pytest.fixture
def copy(scene: Scene, tmp_path: Path) -> Path:
    """The third photo, mirrored and compressed."""
    path = tmp_path / "holiday.jpg"
    ImageOps.mirror(scene(3)).save(path, quality=45)
    return path


# Gives a file to the page as the desktop does, by an event of the kind `arguments[1]`.
_GIVE = """
const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], "holiday.jpg", {type: "image/jpeg"}));
const options = {bubbles: true, cancelable: true};
document.body.dispatchEvent(arguments[1] === "paste"
  ? new ClipboardEvent("paste", {...options, clipboardData: transfer})
  : new DragEvent(arguments[1], {...options, dataTransfer: transfer}));
"""


@pytest.mark.parametrize("how", ["drop", "paste", "choose"])
def test_a_picture_is_found_first_with_its_reason(page: Page, copy: Path, how: str) -> None:
    page.open()
    if how == "choose":
        page.one("#file").send_keys(str(copy))
    else:
        data = base64.b64encode(copy.read_bytes()).decode()
        if how == "drop":
            page.run(_GIVE, data, "dragenter")
            assert page.one("#dropping").is_displayed()
        page.run(_GIVE, data, how)
    page.matched()
    assert not page.one("#dropping").is_displayed()
    name = page.first_match()
    assert name.startswith("dogs/3.jpg, similarity ")
    assert "mirrored, JPEG about quality 4" in name
    assert [heading.text for heading in page.all(".grid-heading h2")] == ["Copies1", "Similar, not copies"]
    assert "1 copy, the first 3.jpg, mirrored" in page.one("#live").get_attribute("textContent")
    assert page.one(".query .title").text == "holiday.jpg"


def test_what_is_no_picture_is_told(page: Page, tmp_path: Path) -> None:
    page.open()
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    page.one("#file").send_keys(str(bad))
    page.until("!document.getElementById('toast').hidden")
    assert "This is not an image that can be read" in page.one("#toast").text
    page.driver.get_log("browser")  # the 415


def test_a_picture_of_the_collection_and_back(page: Page) -> None:
    page.open()
    page.one(".tile[aria-label='cats/0.jpg']").click()
    page.matched()
    assert page.first_match().startswith("old/0-bytes.jpg, similarity 1.00, the same pixels")
    page.driver.back()
    page.until("document.querySelector('.drop').checkVisibility()")
    assert page.run("return document.activeElement.getAttribute('aria-label')") == "cats/0.jpg"


def test_the_token_is_kept_and_not_shown(page: Page) -> None:
    address = page.url.partition("?")[0]
    page.driver.delete_all_cookies()
    page.driver.get(address)
    assert "Open the address that simimg serve printed" in page.one("h1").text
    page.driver.get_log("browser")  # the 403
    page.open("row/0")
    assert page.driver.current_url == f"{address}#/row/0"
    assert page.run("return document.cookie") == ""
    page.matched()
    page.driver.refresh()
    page.matched()
    page.driver.get(address)  # as a bookmark
    page.until("document.querySelectorAll('.tile img.there').length > 5")


def test_opened_by_serve_it_can_be_reloaded(page: Page, tmp_path: Path) -> None:
    page.driver.delete_all_cookies()
    with _file_that_opens(page.url, tmp_path) as opened:
        page.driver.get(opened)
        page.until("document.querySelectorAll('.tile img.there').length > 5")
    assert "token" not in page.driver.current_url
    page.driver.refresh()
    page.until("document.querySelectorAll('.tile img.there').length > 5")


def test_filters(page: Page) -> None:
    page.open()
    assert len(page.all(".all .tile")) == 15
    page.one(".all select[data-filter=class]").send_keys("old")
    page.until("document.querySelectorAll('.all .tile').length === 3")
    page.one("input[type=search]").send_keys("mirr")
    page.until("document.querySelectorAll('.all .tile').length === 1")
    assert page.one(".counted").text == "1 image"
    page.open("row/0")  # loaded anew, without filters
    page.matched()
    assert len(page.all(".match")) > 3
    page.one(".side select[data-filter=class]").send_keys("old")
    page.until("document.querySelectorAll('.match').length === 3")


def test_the_threshold_and_the_kind(page: Page) -> None:
    page.open("row/0")
    page.matched()
    slider = page.one("#threshold")
    assert float(slider.get_attribute("value")) == 0.5  # the index was not calibrated
    assert len(page.all(".match.sure")) == 2
    page.run("arguments[0].value = 1; arguments[0].dispatchEvent(new Event('input'))", slider)
    assert len(page.all(".match.sure")) == 1
    page.one("#only").click()
    assert len(page.all(".match")) == 1
    page.one("[data-by=kind]").click()
    page.until("document.querySelector('[data-by=kind]').getAttribute('aria-checked') === 'true'")
    page.matched()
    assert "Similar images" in page.one(".grid-heading h2").text
    assert not page.all(".match .reason")


def test_a_calibrated_threshold_is_shown_and_used_as_it_is(
    driver: Any, index: SearchIndex, embedder: Embedder, plan_path: Path
) -> None:
    info = dataclasses.replace(index.info, thresholds={"copy": 0.87341})
    listener = listening("127.0.0.1", 0)
    app = create_app(ServedIndex(dataclasses.replace(index, info=info), embedder, plan_path), token=TOKEN)
    with serving(app, listener):
        page = Page(driver, f"http://127.0.0.1:{listener.getsockname()[1]}/?token={TOKEN}")
        page.media(1280, 800)
        page.open("row/0")
        page.matched()
        assert page.one(".threshold output").text == "0.8734"
        assert "At 0.8734 and above" in page.one(".threshold .hint").text
        page.press("]")
        assert page.one(".threshold output").text == "0.92"
        page.open("copies")
        page.until("document.querySelector('.start .primary')")
        assert page.one(".threshold output").text == "0.8734"
        page.one(".start .primary").click()
        page.until("document.querySelector('.again summary')")
        assert "found from 0.8734 on" in page.one(".again summary").text
        page.run("onbeforeunload = null")
        driver.get("about:blank")


def test_a_copy_below_the_threshold_is_probably_one(page: Page) -> None:
    page.open("row/0")
    page.matched()
    page.run("arguments[0].value = 1; arguments[0].dispatchEvent(new Event('input'))", page.one("#threshold"))
    headings = [heading.text for heading in page.all(".grid-heading h2")]
    assert headings == ["Copies1", "Probably copies1", "Similar, not copies"]
    assert "Below your minimum similarity of 1.00" in page.one(".results").text
    page.one(".side select[data-filter=class]").send_keys("dogs")
    page.until("!document.querySelector('.search[aria-busy]') && document.querySelectorAll('.match').length === 6")
    assert "None of them is a copy" in page.one(".results").text


def test_matches_are_sorted_and_saved(page: Page) -> None:
    page.open("row/0")
    page.matched()
    names = "return [...document.querySelectorAll('.match:not(.sure)')].map((node) => node.ariaLabel.split(',')[0])"
    assert page.run(names) != sorted(page.run(names))
    page.one("select[aria-label='Order of the matches']").send_keys("By name")
    assert page.run(names) == sorted(
        page.run(names), key=lambda name: (name.split("/")[0], int(name.split("/")[1][:-4].split("-")[0]))
    )
    page.run(
        "URL.createObjectURL = (blob) => { blob.text().then((text) => { window.saved = text; }); return 'data:,'; }"
    )
    page.run("HTMLAnchorElement.prototype.click = () => {}")
    page.one(".results-bar .button").click()
    page.until("window.saved")
    header, first, *_ = lines = page.run("return window.saved").splitlines()
    assert header == "query,path,similarity,copy,reason,label,split,width,height,num_bytes"
    assert len(lines) == 1 + len(page.all(".match"))
    assert first.startswith("cats/0.jpg,old/0-bytes.jpg,1,true,the same pixels")


def test_full_size(page: Page, folder: Path, row_of: Callable[[str], int]) -> None:
    page.open("row/0")
    page.matched()
    page.press("f")  # the query
    page.until("document.querySelector('dialog.photo[data-full]')")
    assert page.one(".photo .what").text.replace("\n", "").startswith("cats/0.jpg")
    zoom = "return document.querySelector('.photo .scale').textContent"
    assert page.run("return document.querySelector('.photo img').naturalWidth") == 320
    assert page.run(zoom) == "100 %"  # a small image is not enlarged
    page.press("+", "+")
    assert page.run(zoom) == "196 %"
    page.press("0", Keys.ESCAPE)
    page.until("!document.querySelector('dialog')")

    page.press(Keys.ARROW_DOWN, "f")
    page.until("document.querySelector('dialog.photo[data-full]')")
    title = page.one(".photo .what").text
    page.press(Keys.ARROW_RIGHT)
    page.until(f"document.querySelector('.photo .what').innerText !== {json.dumps(title)}")
    page.press(Keys.ESCAPE)
    page.until("!document.querySelector('dialog')")
    assert page.run("return document.activeElement.dataset.index") == "1"  # the one that was shown last

    page.open(f"row/{row_of('dogs/1.jpg')}")
    page.matched()
    page.press(Keys.ARROW_DOWN, "f")
    page.until("document.querySelector('.photo .details dt')")
    assert page.one(".photo .details").text.split("\n") == ["Taken", "2021-05-04 10:11", "Camera", "ExampleCam"]
    page.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.press("y")
    page.until("window.copied")
    page.until("document.querySelector('#toast:popover-open')")  # above the dialog
    assert page.run("return window.copied") == str(folder / "old/1-large.jpg")
    page.press("g")
    page.until("document.getElementById('live').textContent === 'The folder was opened'")
    assert page.opened == [folder / "old/1-large.jpg"]
    page.media(320, 300)  # there is no room for the whole image
    page.until("parseInt(document.querySelector('.photo .scale').textContent) < 60")
    place = "return document.querySelector('.photo img').style.transform"
    page.press("0")
    assert page.run(zoom) == "100 %"
    before = page.run(place)
    page.press(Keys.ARROW_RIGHT)
    assert page.run(place) != before
    page.press("m")
    page.until("!document.querySelector('dialog')")
    page.until("document.querySelector('.query .title').textContent.endsWith('1-large.jpg')")


def test_a_part_is_searched_for(page: Page, scene: Scene, tmp_path: Path) -> None:
    """Of a collage, the half that shows an image of the collection: drawn with the mouse, and by key."""
    collage = Image.new("RGB", (640, 240), (90, 120, 60))
    collage.paste(scene(5).resize((320, 240)), (320, 0))
    collage.save(tmp_path / "collage.png")
    page.open()
    page.one("#file").send_keys(str(tmp_path / "collage.png"))
    page.matched()
    page.press("r")
    box = page.run(
        "const {x, y, width} = document.querySelector('.query .window').getBoundingClientRect(); return [x, y, width]"
    )
    x, y, width = box
    for kind, left, top in (
        ("mousePressed", 0.5, 0.32),
        ("mouseMoved", 0.8, 0.5),
        ("mouseMoved", 0.998, 0.68),
        ("mouseReleased", 0.998, 0.68),
    ):
        place = {
            "type": kind,
            "x": x + left * width,
            "y": y + top * width,
            "button": "left",
            "buttons": 1,
            "clickCount": 1,
        }
        page.driver.execute_cdp_cmd("Input.dispatchMouseEvent", place)
    page.until("document.querySelector('.query .title').textContent === 'part of collage.png'")
    page.matched()
    assert page.first_match().startswith("dogs/5.jpg, similarity ")
    page.driver.back()
    page.until("document.querySelector('.query .title').textContent === 'collage.png'")
    page.matched()
    page.press("r", Keys.ESCAPE)
    assert not page.all(".region")
    page.press("r", *[Keys.ARROW_RIGHT] * 7, Keys.ENTER)
    page.until("document.querySelector('.query .title').textContent === 'part of collage.png'")
    page.matched()
    assert page.first_match().startswith("dogs/5.jpg")


def test_several_images_at_once(page: Page, scene: Scene, tmp_path: Path) -> None:
    for seed in (2, 7):
        ImageOps.mirror(scene(seed)).save(tmp_path / f"new-{seed}.png")
    page.open()
    page.one("#file").send_keys(f"{tmp_path / 'new-2.png'}\n{tmp_path / 'new-7.png'}")
    page.matched()
    assert page.first_match().startswith("cats/2.jpg")
    assert [one.get_attribute("aria-label") for one in page.all(".others button")] == ["new-2.png", "new-7.png"]
    page.press("n")
    page.until("document.querySelector('.others [aria-current]').ariaLabel === 'new-7.png'")
    page.matched()
    assert page.first_match().startswith("dogs/7.jpg")
    page.one(".others button").click()
    page.until("document.querySelector('.others [aria-current]').ariaLabel === 'new-2.png'")
    page.driver.back()
    page.until("document.querySelector('.query .title').textContent === 'new-7.png'")


def test_keys(page: Page) -> None:
    page.open()
    page.press("?")
    assert page.one("dialog.keys").is_displayed()
    listed = page.one("dialog.keys").text
    for what in ("Filter by name", "Compare it with the query", "Save the plan", "Zoom in"):
        assert what in listed
    # A letter, a digit or a sign means the same in every view: what it does begins with the same word.
    words = page.run("""
    const words = {};
    for (const term of document.querySelectorAll("dialog.keys dt")) {
      for (const key of term.querySelectorAll("kbd")) {
        if (/^⇧?.$/u.test(key.textContent) && !/[←→↑↓]/.test(key.textContent)) {
          (words[key.textContent] ??= []).push(term.nextSibling.textContent.split(" ")[0]);
        }
      }
    }
    return words;
    """)
    assert {key: sorted(set(firsts)) for key, firsts in words.items() if len(set(firsts)) > 1} == {}
    assert len(words["F"]) >= 5
    assert len(words["M"]) >= 5
    page.press(Keys.ESCAPE)
    page.until("!document.querySelector('dialog')")
    page.press("/")
    page.until("document.activeElement.type === 'search'")
    page.press("d", "o", "g", "s")
    page.until("document.querySelectorAll('.all .tile').length === 6")
    page.press(Keys.ESCAPE, Keys.ARROW_DOWN)
    page.until("document.activeElement.classList.contains('tile')")
    label = "return document.activeElement.getAttribute('aria-label')"
    assert page.run(label) == "dogs/1.jpg"
    page.press(Keys.ARROW_RIGHT)
    assert page.run(label) == "dogs/3.jpg"
    page.press(Keys.END, Keys.HOME, Keys.ENTER)
    page.matched()
    assert page.first_match().startswith("old/1-large.jpg")
    page.press(Keys.ARROW_DOWN)
    page.until("document.activeElement.classList.contains('match')")
    page.press("]")
    assert page.one(".threshold output").text == "0.55"
    page.press(Keys.ENTER)
    page.until("document.querySelector('dialog.compare')")
    page.press(Keys.ESCAPE)
    page.until("!document.querySelector('dialog')")
    page.press(Keys.ESCAPE)
    page.until("document.querySelector('.drop').checkVisibility()")
    page.press("v")
    page.until("document.querySelector('.start')")
    page.press("V")
    page.until("document.querySelector('.drop')")


def test_compare_lays_the_query_over_the_match(page: Page, copy: Path) -> None:
    with Image.open(copy) as image:
        image.load()
    width, height = image.size
    image.paste((0, 0, 0), (width // 8, height // 8, width // 4, height // 4))
    image.save(copy, quality=45)
    page.open()
    page.one("#file").send_keys(str(copy))
    page.matched()
    page.one(".match[data-index='0']").click()
    page.until("document.querySelector('.compare .cut img.laid')?.complete")
    page.until("document.querySelector('.compare .stage > img').complete")
    # Mirrored: where the match has its left edge, the laid query has its right one.
    matrix = page.run("return getComputedStyle(document.querySelector('.compare .laid')).transform")
    a, *_ = (float(value) for value in matrix.removeprefix("matrix(").removesuffix(")").split(","))
    assert a == pytest.approx(-1, abs=0.02)
    # What was laid over the copy is outlined where it is in the match.
    assert "1 place differs" in page.one(".compare .what").text
    box = page.run("const {x, y, width, height} = document.querySelector('.marks .mark').getBBox(); "
                   "return [x, y, x + width, y + height]")  # fmt: skip
    assert box == pytest.approx([6 / 8, 1 / 8, 7 / 8, 2 / 8], abs=0.03)
    page.press("h")
    assert not page.all(".marks path")
    page.press("h")
    assert len(page.all(".marks path")) == 2
    page.press(Keys.ARROW_RIGHT)
    assert page.one(".compare input[type=range]").get_attribute("value") == "54"
    page.press(" ")
    assert page.one(".compare input[type=range]").get_attribute("value") == "0"
    page.press("f")  # over the comparison
    page.until("document.querySelector('dialog.photo[data-full]')")
    page.press("0", Keys.ESCAPE)
    page.until("!document.querySelector('dialog.photo')")
    page.press("i")
    assert not page.all(".compare .laid")
    assert not page.run("return document.querySelector('.marks .mark').getAttribute('d')")
    page.press(Keys.ARROW_DOWN)
    assert "similar, not a copy" in page.one(".compare .what").text
    row = page.run("return document.querySelectorAll('.match')[1].getAttribute('aria-label')").split(",")[0]
    page.press(Keys.ENTER)
    page.until("!document.querySelector('dialog') && location.hash.startsWith('#/row/')")
    assert page.one(".query .title").text.replace("\n", "") == row


def test_what_shows_the_same_picture_but_is_no_copy_says_why(
    driver: Any, index: SearchIndex, embedder: Embedder, copy: Path, plan_path: Path
) -> None:
    listener = listening("127.0.0.1", 0)
    app = create_app(ServedIndex(index, embedder, plan_path), token=TOKEN, edits=frozenset({"compression"}))
    with serving(app, listener):
        page = Page(driver, f"http://127.0.0.1:{listener.getsockname()[1]}/?token={TOKEN}")
        page.media(1280, 800)
        page.open()
        page.one("#file").send_keys(str(copy))
        page.matched()
        assert [heading.text for heading in page.all(".grid-heading h2")] == ["Similar, not copies"]
        tile = page.one(".match[aria-label*='not a copy: mirrored']")
        assert tile.find_element(By.CSS_SELECTOR, ".reason").text.startswith("mirrored")
        tile.click()
        page.until("document.querySelector('.compare .cut img.laid')")
        assert "not a copy: mirrored" in page.one(".compare .what").text
        driver.get("about:blank")


def test_a_review_writes_the_plan(page: Page, plan_path: Path) -> None:
    page.find_copies()
    assert page.one(".group h1").text == "Group 1 of 2"
    states = "return [...document.querySelectorAll('.card')].map((card) => card.className.split(' ')[1])"
    assert page.run(states) == ["best", "remove", "keep"]
    assert [tag.text for tag in page.all(".card .tag")] == ["Best", "Remove", "Keep, question"]
    assert page.one(".group .quiet").text.startswith("3 images, 1 to be removed, 1 question")
    shapes = "return [...document.querySelectorAll('.card .mount')].map((node) => node.clientWidth / node.clientHeight)"
    assert page.run(shapes) == pytest.approx([4 / 3] * 3, abs=0.02)  # whatever the picture's
    page.one(".card").click()
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, "x")
    assert page.run(states) == ["best", "remove", "remove"]
    assert "question" not in page.one(".group .quiet").text
    page.press(Keys.ARROW_LEFT, "k")
    assert page.run(states) == ["best", "keep", "remove"]
    page.press(Keys.ARROW_RIGHT, Keys.ENTER)  # the mirrored one is the best
    assert page.run(states) == ["remove", "keep", "best"]
    page.press("u")
    assert page.run(states) == ["best", "keep", "remove"]
    page.press("n", "K")
    assert page.run(states) == ["best", "keep"]
    assert "all kept" in page.one(".group .quiet").text
    page.press(Keys.ARROW_UP)
    page.press("c")
    page.until("document.querySelector('dialog.compare')")
    page.press(Keys.ESCAPE)
    page.until("!document.querySelector('dialog')")
    assert not plan_path.exists()
    assert page.one(".unsaved").is_displayed()
    page.press("s")
    page.until("document.querySelector('.where code')")
    assert f"simimg apply --plan={plan_path} --dry_run" in page.one(".where").text
    (group,) = json.loads(plan_path.read_bytes())["groups"]
    assert group["keep"]["path"] == "cats/0.jpg"
    assert [one["path"] for one in group["remove"]] == ["old/0-mirrored.jpg"]
    assert apply_plan(load_plan(plan_path), dry_run=True).moved == ("old/0-mirrored.jpg",)
    page.driver.refresh()  # it is there again, with what was decided
    page.until("document.querySelector('.cards .card')")
    assert page.run(states) == ["best", "keep", "remove"]


def test_questions_come_first_and_what_was_reviewed_is_counted(page: Page) -> None:
    page.open("copies")
    page.until("document.querySelector('.start .primary')")
    page.run("""
    const json = Response.prototype.json;
    Response.prototype.json = async function () {
      const values = await json.call(this);
      values.groups?.reverse();
      return values;
    };
    """)
    page.run("arguments[0].value = 0.6; arguments[0].dispatchEvent(new Event('input'))", page.one("#least"))
    page.one(".start .primary").click()
    page.until("document.querySelector('.cards .card')")
    assert len(page.all(".card.asked")) == 1  # in the last group that the server sent
    assert page.one(".plan .reviewed").text == "reviewed 0 of 2"
    assert [frame.text.split("\n")[1] for frame in page.all(".frames .edge")] == ["? ×3", "×2"]
    page.one(".card").click()
    page.press(Keys.ARROW_DOWN, Keys.ARROW_UP)
    assert page.one(".plan .reviewed").text == "reviewed 1 of 2"
    page.press(Keys.ARROW_DOWN, "k")
    assert page.one(".plan .reviewed").text == "reviewed 2 of 2"
    page.press("f")
    page.until("document.querySelector('dialog.photo[data-full]')")
    page.press(Keys.ESCAPE)


@contextmanager
def comparing(page: Page, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Opens the copies while they are compared: two groups are found so far."""
    may_go_on = threading.Event()

    def slow(index: SearchIndex, *, progress: Any, noticed: Any, **options: Any) -> Any:
        noticed(0, 12)
        noticed(1, 14)
        noticed(12, 13)
        progress(5)
        while not may_go_on.wait(0.05):
            progress(0)

    with monkeypatch.context() as patched:
        patched.setattr(review, "find_duplicates", slow)
        try:
            page.open("copies")
            page.until("document.querySelector('.start .primary')")
            page.one(".start .primary").click()
            page.until("document.querySelectorAll('.preview img.there').length === 4")
            yield
        finally:
            may_go_on.set()


def test_groups_are_shown_while_copies_are_compared(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the time that is left, until the search is cancelled."""
    with comparing(page, monkeypatch):
        assert [one.text.split("\n")[-1] for one in page.all(".preview")] == ["×3", "×2"]
        assert page.one(".running + h2").text == "Look like copies so far2"
        assert page.one(".left p").text.startswith("5 of 15 images · about ")
        page.one(".left .button").click()
        page.until("document.querySelector('.start #least')")
        assert page.one(".start h1").text == "Find copies in the collection"


def test_what_is_decided_is_not_shown_again(page: Page, index: SearchIndex) -> None:
    try:
        page.find_copies()
        states = "return [...document.querySelectorAll('.card')].map((card) => card.className.split(' ')[1])"
        page.one(".card").click()
        page.press(Keys.ENTER, "X")
        page.until("document.querySelectorAll('.card.remove').length === 2")
        page.press("D")
        page.until("document.querySelector('.group .quiet').textContent.includes('decided: not copies')")
        assert page.run(states) == ["best", "remove", "keep"]  # the second one has the bytes of the best
        page.press("u")
        page.until("document.querySelectorAll('.card.remove').length === 2")
        assert not list(read_decisions(index.index_dir))
        page.press("B")
        page.until("!document.querySelector('.card.remove')")
        assert page.one(".card .remembered").text == "decided: keep all"
        page.press(Keys.ARROW_RIGHT, "x")
        assert "kept, as decided" in page.one("#toast").text
        page.press(Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ENTER, "b")
        page.until("document.querySelector('.group .quiet').textContent.includes('decided: this one')")
        assert page.run(states) == ["remove", "best"]
        page.press("?")
        assert "For good: these are not copies" in page.one("dialog.keys").text
        page.press(Keys.ESCAPE)
        assert [one.decision for one in read_decisions(index.index_dir)] == ["keep all", "this one"]
        page.press("s")
        page.until("document.querySelector('.where code')")
        page.driver.refresh()
        page.until("document.querySelector('.cards .card')")
        assert page.one(".group h1").text == "Group 1 of 1"
        assert "What 1 decision settled is left out" in page.one(".cards + .remembered").text
        assert [tag.text for tag in page.all(".card .tag")] == ["Remove", "Best, decided"]
        page.press("d")
        page.until("document.querySelector('.group .quiet').textContent.includes('decided: one is not a copy')")
        assert page.run(states) == ["keep", "best"]
    finally:
        (index.index_dir / DECISIONS_FILE).unlink(missing_ok=True)


def test_choices_made_while_saving_stay_unsaved(page: Page, plan_path: Path) -> None:
    page.find_copies()
    states = "return [...document.querySelectorAll('.card')].map((card) => card.className.split(' ')[1])"
    page.run("""
    const { fetch } = window;
    window.puts = 0;
    window.fetch = async (...request) => {
      if (request[1]?.method === "PUT") {
        window.puts += 1;
        await new Promise((resolve) => { window.answer = resolve; });
      }
      return fetch(...request);
    };
    """)
    page.one(".card").click()
    page.press("s", Keys.ARROW_RIGHT, "k", "s")  # the second s does nothing yet
    assert page.run("return window.puts") == 1
    assert not page.one(".plan .primary").is_enabled()
    page.run("window.answer()")
    page.until("!document.querySelector('.plan .primary').disabled")
    assert page.one(".unsaved").is_displayed()
    removed = [file.path for file in load_plan(plan_path).removals]
    assert "old/0-bytes.jpg" in removed
    page.press("s")
    page.until("window.puts === 2")
    page.run("window.answer()")
    page.until("document.querySelector('.where code')")
    assert not page.all(".unsaved")
    assert len(load_plan(plan_path).removals) == len(removed) - 1

    page.run("window.asked = 0; window.confirm = () => { window.asked += 1; return false; }")
    page.one(".card").click()
    page.press(Keys.ARROW_DOWN, "K", Keys.ARROW_UP)
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, "u")  # from the third image into a group of two
    assert page.one(".group h1").text == "Group 2 of 2"
    page.press("k", "K")
    assert page.run(states) == ["best", "keep"]
    page.run("document.querySelector('.again .primary').click()")
    assert page.run("return window.asked") == 1
    assert page.run(states) == ["best", "keep"]


def test_files_of_reference_folders_stay(page: Page, index: SearchIndex, plan_path: Path) -> None:
    values = {"format": "simimg-plan/1", "image_dir": index.info.image_dir, "reference_dirs": ["old"], "groups": []}
    plan_path.write_text(json.dumps(values))
    page.find_copies()
    assert page.one(".again summary").text == "Search again (these were found from 0.60 on)"
    states = "return [...document.querySelectorAll('.card')].map((card) => card.className.split(' ')[1])"
    assert [tag.text for tag in page.all(".card .tag")] == ["Best, reference", "Keep", "Keep, reference"]
    page.all(".card")[1].click()
    page.press("x")
    assert page.run(states) == ["best", "remove", "keep"]
    page.press(Keys.ENTER, "X")  # cats/0.jpg is the best, and only the best is kept
    assert page.all(".card")[1].get_attribute("aria-label").startswith("cats/0.jpg")
    assert page.run(states) == ["keep", "best", "keep"]
    page.all(".card")[0].click()
    page.press("x")
    assert "always kept, in a reference folder" in page.one("#toast").text
    page.all(".card")[2].click()
    page.press(Keys.ENTER, "X")
    assert page.run(states) == ["keep", "remove", "best"]
    page.press("s")
    page.until("document.querySelector('.where code')")
    plan = load_plan(plan_path)
    assert plan.reference_dirs == ("old",)
    assert [file.path for file in plan.removals] == ["cats/0.jpg"]


def test_the_map(page: Page) -> None:
    page.open("map")
    page.until("document.querySelector('.laying').hidden")
    colored = """
    const canvas = document.querySelector('.map canvas'), context = canvas.getContext('2d');
    return context.getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0);
    """
    page.until(f"(() => {{ {colored} }})()")
    assert [button.text for button in page.all(".legend button")] == ["cats", "dogs", "old"]
    page.all(".legend button")[2].click()
    assert page.one(".legend button[aria-pressed=true]").text == "old"
    page.run("document.querySelector('.map canvas').focus()")
    page.press("+", Keys.ARROW_LEFT)
    assert page.one("#live").get_attribute("textContent").startswith("old/")
    page.press("0", Keys.ENTER)
    page.matched()
    assert page.one(".query .title").text.replace("\n", "").startswith("old/")


def test_dark_by_the_system_and_by_the_button(page: Page) -> None:
    background = "return getComputedStyle(document.body).backgroundColor"
    page.open()
    assert page.run(background) == "rgb(250, 250, 250)"
    page.media(1280, 800, dark=True)
    assert page.run(background) == "rgb(20, 20, 22)"
    page.one("#theme").click()
    assert page.run(background) == "rgb(250, 250, 250)"
    page.open()  # it is remembered
    assert page.run(background) == "rgb(250, 250, 250)"
    page.one("#theme").click()
    page.media(1280, 800)
    assert page.run(background) == "rgb(250, 250, 250)"  # back to what the system has


@pytest.mark.parametrize("view", ["", "row/0", "row/0 full size", "copies", "map"])
def test_a_phone(page: Page, view: str) -> None:
    page.media(360, 740)
    view, _, full = view.partition(" ")
    page.open(view)
    if view == "row/0":
        page.matched()
    if full:
        page.press("f")
        page.until("document.querySelector('dialog.photo[data-full]')")
    assert page.run("return document.documentElement.scrollWidth") <= 360
    outside = """
    return [...document.querySelectorAll('button, a, input, select, h1, h2')].filter((node) => {
      const box = node.getBoundingClientRect();
      return node.checkVisibility() && !node.closest('.visually-hidden, .skip, .legend') && box.width > 2
        && (box.right > 361 || box.left < -1);
    }).map((node) => node.outerHTML);
    """
    assert page.run(outside) == []
    cut_off = """
    return [...document.querySelectorAll('button, select, input, h1, h2, label, .window img')].filter((node) => {
      const clipping = node.parentElement.closest('.film, dialog, .photo-box, .window');
      const box = node.getBoundingClientRect(), around = clipping?.getBoundingClientRect();
      return around && node.checkVisibility() && (box.right > around.right + 1 || box.left < around.left - 1);
    }).map((node) => node.outerHTML);
    """
    assert page.run(cut_off) == []


def test_a_finger_drops_nothing(page: Page) -> None:
    try:
        page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
        page.media(390, 844)
        page.open()
        assert page.one(".drop h1").text == "Choose images to find their matches"
        assert "paste" not in page.one(".drop p").text
    finally:
        page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


@pytest.mark.parametrize("view", ["", "row/0", "copies", "map"])
def test_everything_that_can_be_pressed_has_a_name(page: Page, view: str) -> None:
    page.open(view)
    if view == "row/0":
        page.matched()
    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    pressed = {"button", "link", "checkbox", "radio", "slider", "searchbox", "combobox", "application"}
    nodes = [node for node in tree if not node["ignored"] and node["role"]["value"] in pressed]
    assert len(nodes) > 6
    assert [node for node in nodes if not node.get("name", {}).get("value")] == []
    landmarks = {node["role"]["value"] for node in tree if not node["ignored"]}
    assert {"banner", "main", "navigation", "status"} <= landmarks


def test_ten_thousand_tiles_are_not_ten_thousand_elements(page: Page) -> None:
    page.open()
    page.run("""
    import("/static/grid.js").then(({ Grid }) => {
      const tile = (row) => Object.assign(document.createElement("button"), {textContent: row});
      window.grid = new Grid({ label: "many", tile, key: (row) => row });
      document.getElementById("main").replaceChildren(grid.node);
      grid.set([{ key: "a", heading: null, items: Array.from({ length: 10000 }, (_, row) => row) }]);
    });
    """)
    page.until("window.grid && grid.made.size > 20")
    assert page.run("return grid.made.size") < 250
    page.run("grid.focus(0)")
    page.press(Keys.END)
    page.until("document.activeElement.textContent === '9999'")
    assert page.run("return grid.made.size") < 250
    assert page.run("return document.activeElement.getBoundingClientRect().bottom <= innerHeight")
    texts = page.run("return [...grid.node.children].map((node) => Number(node.textContent))")
    assert texts == sorted(texts)  # read in order
    page.press(Keys.HOME)
    page.until("document.activeElement.textContent === '0'")


def test_a_name_that_is_html_stays_a_name(driver: Any, embedder: Embedder, scene: Scene, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    name = "<img src=x onerror=document.title='pwned'>&amp;.jpg"
    buffer = io.BytesIO()
    scene(0).save(buffer, "JPEG")
    for file in (name, "other.jpg"):
        (folder / file).write_bytes(buffer.getvalue())
    index = index_folder(tmp_path / "index", folder, embedder).index
    listener = listening("127.0.0.1", 0)
    with serving(create_app(ServedIndex(index, embedder, tmp_path / "plan.json"), token=TOKEN), listener):
        page = Page(driver, f"http://127.0.0.1:{listener.getsockname()[1]}/?token={TOKEN}")
        page.open(tiles=False)
        page.until("document.querySelectorAll('.tile').length === 2")
        assert name in [tile.text for tile in page.all(".tile")]
        page.open("row/1")
        page.matched()
        assert name in page.first_match()
        assert page.driver.title.endswith("simimg")
        driver.get("about:blank")
