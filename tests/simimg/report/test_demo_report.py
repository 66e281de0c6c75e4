import base64
import dataclasses
import functools
import hashlib
import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from simimg.evaluation import classify, with_details
from simimg.report.bench_report import write_bench_report
from simimg.report.contact_sheet import Tile
from simimg.report.copies_report import CopyRow, write_copies_report
from simimg.report.demo_report import ReportContent, Stage, write_report
from simimg.report.training_report import write_evaluation_report

NAMES = ("crayfish", "dolphin", "okapi")
VOID = {"meta", "img", "br"}
ATTACK = '"><script>alert(1)</script><img src=x onerror=alert(1)>.jpg'


class Page(HTMLParser):
    """Reads a page and insists that its tags are balanced."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.texts, self.codes = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "code":
            self.codes.append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)
        if "code" in self.open:
            self.codes[-1] += data

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@functools.cache
def photo(seed, size=(300, 200)):
    """Smooth shapes with some noise: about as hard to compress as a photograph."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 18, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse, np.int16) + rng.integers(-12, 13, (size[1], size[0], 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def content(**changes):
    labels, predicted = [0] * 10 + [1] * 10 + [2] * 5, [0] * 9 + [1] + [1] * 7 + [2] * 3 + [2] * 5
    whole = ReportContent(
        title="Three categories",
        subtitle="From files to answers",
        dataset_dir="/data/three/1.0.0",
        num_examples=100,
        splits={"train": 75, "test": 25},
        image_size=64,
        encoding="raw",
        refused=[("okapi/half.jpg", "truncated", "it ends early"), ("dolphin/none.jpg", "empty", "zero bytes")],
        stages=[
            Stage(name="convert", command="simimg convert --seed=0", seconds=0.4, figure="3,600 images/s"),
            Stage(name="train", command="simimg train  --epochs=2 'a b' && echo <done>", seconds=192.0),
            Stage(name="evaluate", command="simimg evaluate", seconds=3.0, figure="420 images/s"),
            Stage(name="search", command="simimg search", seconds=0.02),
        ],
        samples={name: [photo(i, (64, 64)) for i in range(3)] for name in NAMES},
        history=[
            {"epoch": 1, "loss": 1.0, "accuracy": 0.5, "test_loss": 1.1, "test_accuracy": 0.4},
            {"epoch": 2, "loss": 0.5, "accuracy": 0.8, "test_loss": 0.9, "test_accuracy": 0.7},
        ],
        classification=classify(np.eye(3)[predicted], np.array(labels, np.int32), NAMES),
        mistakes=[Tile(photo(5), "dolphin/image_0007.jpg", "dolphin, taken for okapi")],
        searches=[
            [
                Tile(photo(1), "a.jpg", "mirrored"),
                Tile(photo(2), "b.jpg", "0.98", highlighted=True),
                Tile(None, "c.jpg"),
            ],
            [
                Tile(photo(3), "d.jpg"),
                Tile(photo(4), "e.jpg"),
                Tile(photo(3), "f.jpg", "0.9", True),
                Tile(None, "g.jpg"),
            ],
        ],
        machine={"CPU": "a processor, 2 cores", "GPU": "none"},
        binary_loss=True,
    )
    return dataclasses.replace(whole, **changes)


def written(tmp_path, **changes):
    path = tmp_path / "report.html"
    write_report(content(**changes), path)
    return path.read_text(encoding="utf-8")


def test_the_figures_are_on_the_page(tmp_path):
    text = Page(written(tmp_path)).text.replace("\u00a0", " ")
    for words in (
        "Three categories",
        "From files to answers",
        "100 examples (75 train, 25 test)",
        "/data/thr ee/1.0.0",  # cut by the browser where there is no room
        "84.0 %",
        "accuracy on 25 images of the test split",
        "95 % interval 65.3 % to 93.6 %",
        "at 40 %, is the accuracy of calling every image crayfish",
        "3,600 images/s, convert",
        "2 files rejected",
        "1 of 2 searches put the original first",
        "okapi/hal f.jpg",
        "truncated it ends early",
        "3 min 12 s",
        "answering nothing gives 67 %",
        "3 dolphin okapi",
        "2 searches are examples, too few to be a measurement",
        "CPU a processor, 2 cores",
    ):
        assert words.replace(" ", "") in text.replace(" ", ""), words


def test_a_split_that_was_not_measured_is_not_claimed(tmp_path):
    text = Page(written(tmp_path, splits={"train": 90, "test": 10})).text
    assert "accuracy on 25 images" in text
    assert "of the test split" not in text


def test_commands_can_be_copied_as_they_are(tmp_path):
    codes = Page(written(tmp_path)).codes
    for stage in content().stages:
        assert stage.command in codes


def test_results_stand_in_the_section_of_their_stage(tmp_path):
    sections = [Page(part).text for part in re.findall(r"<section>.*?</section>", written(tmp_path), re.S)]
    titles = [text.split()[0] for text in sections]
    assert titles == ["Convert", "Train", "Evaluate", "Search", "Machine"]
    for title, words in zip(
        titles, ("Rejected files", "last epoch", "Confusion matrix", "closest first", "GPU"), strict=True
    ):
        assert [words in text for text in sections] == [other == title for other in titles]


def test_results_without_a_stage_are_shown_all_the_same(tmp_path):
    text = Page(written(tmp_path, stages=[])).text
    for words in ("Conversion", "Rejected files", "Training", "last epoch", "Confusion matrix", "closest first"):
        assert words in text


@pytest.mark.parametrize(
    "attack", [ATTACK, "caf\udce9\x00.jpg", "a' onload='x", "&lt;b&gt;", "{title} %s $x", "\u202egpj.exe"]
)
def test_hostile_names_stay_text(tmp_path, attack):
    names = (attack, "dolphin", "okapi")
    figures = classify(np.eye(3)[[1, 1, 2, 0]], np.array([0, 1, 2, 0], np.int32), names)
    tile = Tile(photo(1), attack, attack, highlighted=True)
    page = Page(
        written(
            tmp_path,
            title=attack,
            subtitle=attack,
            dataset_dir=attack,
            encoding=attack,
            splits={attack: 1},
            refused=[(attack, attack, attack)],
            stages=[Stage(name=attack, command=attack, seconds=1, figure=f"{attack} images/s")],
            samples={attack: [photo(1, (64, 64))]},
            classification=figures,
            mistakes=[tile],
            searches=[[tile, tile]],
            machine={attack: attack},
        )
    )
    assert len(page.all("script")) == 1
    allowed = {"class", "src", "alt", "width", "height", "style", "title", "content", "http-equiv", "name", "charset"}
    allowed |= {
        "lang",
        "viewbox",
        "role",
        "aria-label",
        "aria-hidden",
        "x",
        "y",
        "d",
        "points",
        "transform",
        "cx",
        "cy",
    }
    allowed |= {"r", "text-anchor", "stroke-width", "fill-opacity", "font-size"}
    assert {name for _, attrs in page.tags for name in attrs} <= allowed
    if attack.isprintable():
        assert attack in page.codes
        assert any(attack in image["alt"] for image in page.all("img"))


def test_the_page_loads_nothing(tmp_path):
    text = written(tmp_path)
    page = Page(text)
    for _, attrs in page.tags:
        assert "href" not in attrs
        assert attrs.get("src", "data:image/").startswith("data:image/")
    style = re.search(r"<style>(.*?)</style>", text, re.S).group(1)
    assert "url(" not in style
    assert "@import" not in style
    assert not {"link", "iframe", "object"} & {tag for tag, _ in page.tags}
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    script = re.search(r"<script>(.*?)</script>", text, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_pictures_are_whole_and_described(tmp_path):
    images = Page(written(tmp_path)).all("img")
    assert len(images) == 2 + 9 + 1 + 5  # the found original and its query are at the top, too
    for image in images:
        assert image["alt"]
        with Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))) as picture:
            picture.load()
            assert max(picture.size) <= 320
    assert [image["alt"] for image in images if "original" in image["alt"]] == [
        "b.jpg, 0.98, the original",
        "b.jpg, 0.98, the original",
        "f.jpg, 0.9, the original",
    ]


def test_few_sample_pictures_keep_their_pixels_and_many_stay_light(tmp_path):
    stored = photo(0, (64, 64))
    for num, kind in ((4, "image/png"), (80, "image/jpeg")):
        image = Page(written(tmp_path, samples={"okapi": [stored] * num})).all("img")[2]
        head, _, data = image["src"].partition(";base64,")
        assert head == f"data:{kind}"
        same = np.array(Image.open(io.BytesIO(base64.b64decode(data)))) == np.array(stored)
        assert same.all() == (kind == "image/png")


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_pictures_of_any_mode(tmp_path, mode):
    image = Image.new(mode, (40, 4)) if mode == "I;16" else photo(0, (40, 4)).convert(mode)
    page = Page(written(tmp_path, samples={"okapi": [image]}, mistakes=[Tile(image, "a.png")]))
    assert len(page.all("img")) == 2 + 1 + 1 + 5


def test_what_is_empty_is_left_out_or_said(tmp_path):
    text = Page(
        written(tmp_path, subtitle="", refused=[], mistakes=[], searches=[[]], history=[], samples={}, machine={})
    ).text
    assert "None: every file that was found became an example." in text
    for words in (
        "Stored images",
        "last epoch",
        "Images it got wrong",
        "closest first",
        "put the original first",
        "Machine",
    ):
        assert words not in text
    assert "0 files rejected" in text


def test_a_query_without_matches_and_one_epoch(tmp_path):
    text = Page(
        written(tmp_path, searches=[[Tile(None, "q.jpg")]], history=[{"epoch": 1, "loss": 0.7, "accuracy": 0.5}])
    ).text.replace("\u00a0", " ")
    assert "Nothing was found." in text
    assert "training 0.700" in text
    assert "training 50.0 %" in text
    assert "test 0" not in text


def test_a_long_list_of_refused_files_is_cut(tmp_path):
    text = Page(written(tmp_path, refused=[(f"{i:05}.jpg", "empty", "zero bytes") for i in range(1500)])).text
    assert "1,500 empty" in text
    assert "00099.jpg" in text
    assert "00100.jpg" not in text
    assert "And 1,400 more; quarantine.jsonl" in text


@pytest.mark.parametrize("num_classes", [2, 25, 102])
def test_the_matrix_has_a_cell_for_each_count(tmp_path, num_classes):
    names = tuple(f"class_{i:03}" for i in range(num_classes))
    labels = np.arange(num_classes, dtype=np.int32).repeat(4)
    predicted = labels.copy()
    predicted[::4] = (predicted[::4] + 1) % num_classes
    page = Page(written(tmp_path, classification=classify(np.eye(num_classes)[predicted], labels, names)))
    cells = [attrs["class"] for attrs in page.all("rect")]
    assert (cells.count("right"), cells.count("wrong")) == (num_classes, num_classes)
    assert "class_000 taken for class_001: 1 of 4" in page.text


def test_a_confusion_cell_shows_its_images(tmp_path):
    tiles = [Tile(photo(i, (64, 64)), f"{i}.jpg", "taken for okapi", cell=(1, 2)) for i in range(2)]
    tiles.append(Tile(photo(3, (64, 64)), "other.jpg", cell=(0, 1)))
    text = written(tmp_path, mistakes=tiles)
    page = Page(text)
    assert [attrs["id"] for attrs in page.all("rect") if "id" in attrs] == ["cell-0-1", "cell-1-2"]
    assert [attrs["id"] for attrs in page.all("details")] == ["images-of-cell-1-2", "images-of-cell-0-1"]
    opened = re.findall(r'<details class="mistake".*?</details>', text, re.S)
    assert [part.count("<img") for part in opened] == [2, 1]
    assert "3 dolphin, taken for okapi" in Page(opened[0]).text
    assert "and 1 more" in Page(opened[0]).text


def test_each_class_has_its_precision_recall_and_f1(tmp_path):
    text = Page(written(tmp_path)).text.replace("\u00a0", " ")
    assert "crayfish 100.0 % 90.0 % 94.7 % 10" in text
    assert "dolphin 87.5 % 70.0 % 77.8 % 10" in text
    assert "okapi 62.5 % 100.0 % 76.9 % 5" in text
    never = classify(np.eye(3)[[0, 0]], np.array([0, 1], np.int32), NAMES)
    text = Page(written(tmp_path, classification=never)).text.replace("\u00a0", " ")
    assert "dolphin – 0.0 % 0.0 % 1 okapi – – – 0" in text


def test_the_curves_of_the_classes_and_the_reliability(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 30
    probabilities = rng.dirichlet(np.ones(30), 300)
    probabilities[np.arange(300), labels] += 0.3 * rng.random(300)
    probabilities[:, 7] = labels == 7  # one class is found without a mistake
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    names = tuple(f"class_{i:02}" for i in range(30))
    figures = classify(probabilities, labels, names)
    plain = Page(written(tmp_path, classification=figures)).text.replace("\u00a0", " ")
    assert "Reliability" in plain
    assert "top-5 accuracy" in plain
    assert "temperature" not in plain
    assert "Precision and recall per class" not in plain  # no details were asked for
    figures = with_details(figures, probabilities, labels, (probabilities[::-1], labels[::-1]))
    page = Page(written(tmp_path, classification=figures))
    text = page.text.replace("\u00a0", " ")
    assert f"temperature scaling with {figures.temperature:.3f}" in text
    assert (
        "The 24 classes with the lowest figures are drawn; 5 more are not. 1 class has 100.0 %, and no curve." in text
    )
    worst = min(figures.curves, key=lambda name: figures.curves[name].average_precision)
    captions = re.findall(r"(class_\d\d) \d\d?\.\d %", text[text.index("Precision and recall per class") :])
    assert captions[0] == worst
    assert len(captions) == 24


def test_binary_accuracy_is_shown_for_a_binary_loss_alone(tmp_path):
    assert "binary accuracy" in Page(written(tmp_path)).text
    assert "binary accuracy" not in Page(written(tmp_path, binary_loss=False)).text


def test_the_found_originals_come_before_the_flow(tmp_path):
    text = written(tmp_path)
    result, flow = text.index('class="results"'), text.index('class="flow"')
    assert 'alt="b.jpg, 0.98, the original"' in text[result:flow]
    assert 'class="results"' not in written(tmp_path, searches=[])


def test_the_page_stays_small(tmp_path):
    tiles = [Tile(photo(i), f"{i}.jpg", "0.9") for i in range(7)]
    samples = {f"class_{i}": [photo(i, (64, 64))] * 8 for i in range(5)}
    assert len(written(tmp_path, samples=samples, searches=[tiles] * 6, mistakes=tiles)) < 4_000_000


def test_what_fails_leaves_the_earlier_report_and_nothing_else(tmp_path, monkeypatch):
    before = written(tmp_path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        written(tmp_path, title="Another")
    assert (tmp_path / "report.html").read_text() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_counted_searches_go_before_those_that_are_shown(tmp_path):
    page = Page(written(tmp_path, recalls={"mirrored": (19, 20), "cropped": (17, 20)}))
    assert "36 of 40 searches put the original first" in page.text
    assert "mirrored 19 of 20 cropped 17 of 20" in page.text
    assert "too few to be a measurement" not in page.text


RED = Image.new("RGB", (400, 300), "red")


def page_of(path: Path) -> Page:
    text = path.read_text()
    assert "http://" not in text
    assert "https://" not in text
    page = Page(text)
    assert page.all("script") == [{}]  # the page's own
    assert all(attrs["src"].startswith("data:image/") for attrs in page.all("img"))
    return page


def test_copies(tmp_path: Path) -> None:
    copies = [Tile(RED, ATTACK, f"0.9{number}: mirrored", tag="question" if number else "") for number in range(4)]
    write_copies_report(
        tmp_path / "new" / "copies.html",
        title=f"Copies in {ATTACK}",
        about="photos",
        number="1,234",
        counted="copies among 5,000 pictures",
        facts={"MB in copies": "12.3"},
        heading="groups",
        rows=[
            CopyRow(first=Tile(RED, "a.jpg", "kept: the most pixels"), copies=copies, num_more=7),
            CopyRow(first=Tile(None, "gone.jpg", "kept"), copies=copies[:1]),
        ],
        num_rows=30,
        note="The one that is kept comes first.",
        commands={"Move them:": "simimg apply --plan='my plan.json'"},
    )
    page = page_of(tmp_path / "new" / "copies.html")
    for text in ("1,234", "copies among 5,000 pictures", "12.3", "2 of 30", "and 7 more", "no image", "Move them:"):
        assert text in page.text
    assert page.text.count("question 0.9") == 3
    assert len(page.all("img")) == 6
    assert page.codes == ["simimg apply --plan='my plan.json'"]


def test_no_copies(tmp_path: Path) -> None:
    empty = {"number": "0", "counted": "n", "facts": {}, "rows": [], "num_rows": 0, "commands": {}}
    write_copies_report(tmp_path / "none.html", title="t", about="a", heading="groups", note="x", **empty)
    page = page_of(tmp_path / "none.html")
    assert "None." in page.text
    assert "What next" not in page.text


def test_an_evaluation(tmp_path: Path) -> None:
    answers = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    figures = classify(answers, np.array([0, 1, 2, 1]), ("ant", "bee", ATTACK))
    names = {"split": "test", "model_dir": "runs/one", "dataset_dir": "data/photos/1.0.0", "machine": {"cores": "2"}}
    write_evaluation_report(figures, None, [Tile(RED, "b.jpg", "bee, taken for ant")], tmp_path / "e.html", **names)
    page = page_of(tmp_path / "e.html")
    for text in ("75.0", "accuracy on 4 images of the test split", "bee, taken for ant", "runs/one", "cores"):
        assert text in page.text.replace("run s/", "runs/")
    copies = SimpleNamespace(
        num_examples=50, recall=0.9, recall_ci95=(0.8, 0.95), copy_similarity=0.8, nearest_similarity=0.3, mean_norm=0.1
    )
    write_evaluation_report(None, copies, [], tmp_path / "c.html", **names)
    assert "copy recall on 50 images of the test split" in page_of(tmp_path / "c.html").text


@pytest.mark.parametrize("with_plot", [False, True])
def test_a_benchmark(tmp_path: Path, with_plot: bool) -> None:
    RED.save(tmp_path / "plot.png")
    write_bench_report(
        tmp_path / "b.html",
        title="Images per second",
        date="1 May 2026",
        lines=["", "tool   images/s", f"simimg   1,234  {ATTACK}"],
        left_out={"dali": "it has no wheel"},
        plot=tmp_path / "plot.png" if with_plot else None,
        repeat="simimg bench --stage=input",
        machine={"cores": "2"},
    )
    page = page_of(tmp_path / "b.html")
    for text in ("Images per second", "1 May 2026", "simimg 1,234", "dali: it has no wheel", "cores"):
        assert text in page.text
    assert len(page.all("img")) == with_plot
