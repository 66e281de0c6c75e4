import base64
import dataclasses
import hashlib
import io
import os
import re
import shlex
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from simimg.report.conversion import summary_table, write_conversion_report
from simimg.report.conversion.conversion_report import command_line
from simimg.report.conversion.copy_groups import find_groups
from simimg.report.conversion.image_sizes import original_sizes
from simimg.report.conversion.quarantine_section import preview, reason_text
from simimg.report.conversion.sample_images import choose_samples
from tfrecords.base_errors import DataError
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest
from tfrecords.format.quarantine import Reason

VOID = {"meta", "img", "br"}
ATTACK = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


class Page(HTMLParser):
    """Reads a page and insists that its tags are balanced."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text, self.hidden = [], [], "", 0
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join(self.text.replace("\u00a0", " ").split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script", "title"} & set(self.open):
            inline = self.open and self.open[-1] in ("span", "b", "code", "small")
            self.text += data if inline else f" {data} "

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def report_of(folder, image_dir=""):
    return write_conversion_report(folder, str(image_dir)).read_text(encoding="utf-8")


def section_of(text, title):
    return next(part for part in re.findall(r"<section>.*?</section>", text, re.S) if f"<h2>{title}</h2>" in part)


def picture_of(attrs):
    return np.array(Image.open(io.BytesIO(base64.b64decode(attrs["src"].partition(",")[2]))))


@pytest.fixture(scope="module")
def zoo(make_file):
    """Thirty files: 20 of ant, 8 of bee, one cow; two refused, and one of no class."""
    ants = [make_file(path=f"ant/{i}.jpg", split="test" if i % 4 == 3 else "train") for i in range(20)]
    bees = [
        make_file(path=f"bee/{i}.jpg", label=1, split="test" if i % 4 == 3 else "train", size=(40, 6)) for i in range(8)
    ]
    others = [
        make_file(path="cow/only.png", label=2),
        make_file(path="ant/half.jpg", reason="truncated", detail="it ends early"),
        make_file(path="bee/none.jpg", label=1, reason="empty", detail="the file has no bytes"),
        make_file(path="loose.txt", label=-1, reason="no_class_folder", detail="move it into one"),
    ]
    return [*ants, *bees, *others]


NAMES = ("ant", "bee", "cow")


@pytest.fixture
def dataset(tmp_path, write_dataset, zoo):
    return write_dataset(tmp_path / "zoo", zoo, NAMES, shard_length=7)


def test_the_figures_are_on_the_page(dataset):
    text = Page(report_of(dataset)).text
    for words in (
        "29 examples of 32 files",
        "3 classes",
        "3 files rejected",
        "0 images that have copies",
        "22 train, 76 %",
        "7 test, 24 %",
        "8 × 8 px, raw",
        "5 shards , 7.7 kB",
        "1 too small to be split",
        "Class train test total rejected 0 ant 15 5 20 1",
        "1 bee 6 2 8 1 2 cow 1 0 1 0 in no class 0 0 0 1 all 22 7 29 3",
        "cow 1 in train, none in test",
        "smaller than 8 px, so enlarged 8 (28 %)",
        "Cut off 1 file truncated They end before their last pixel",
        "ant/half.jpg it ends early",
        "None: no two images are equal or look alike.",
        "simimg convert --image_dir=PHOTOS --name=zoo --image_size=8 --seed=0",
        "train 4 shards, 5.9 kB test 1 shard, 1.9 kB",
        "pillow 12.0",
    ):
        assert words.replace(" ", "") in text.replace(" ", ""), words


def test_the_same_data_set_has_the_same_report_and_its_digest_at_the_end(dataset, tmp_path):
    path = write_conversion_report(dataset, "")
    assert path == dataset / "report.html"
    first = path.read_bytes()
    path.unlink()
    os.rename(dataset, tmp_path / "elsewhere")
    data = write_conversion_report(tmp_path / "elsewhere", "").read_bytes()
    assert data == first
    html, digest = re.fullmatch(rb"(.*</html>\n)<!-- sha256 ([0-9a-f]{64}) -->\n", data, re.S).groups()
    assert hashlib.sha256(html).hexdigest() == digest.decode()
    assert str(tmp_path) not in data.decode()


def test_the_page_loads_nothing(dataset):
    text = report_of(dataset)
    page = Page(text)
    for _, attrs in page.tags:
        assert "href" not in attrs
        assert attrs.get("src", "data:image/").startswith("data:image/")
    style = re.search(r"<style>(.*?)</style>", text, re.S).group(1)
    assert "url(" not in style
    assert "@import" not in style
    assert ".strip {" in style
    assert "default-src 'none'" in page.all("meta")[1]["content"]


def test_what_fails_leaves_the_earlier_report_and_nothing_else(dataset, monkeypatch):
    before = report_of(dataset)
    there = sorted(dataset.iterdir())

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_conversion_report(dataset, "/elsewhere")
    assert (dataset / "report.html").read_text() == before
    assert sorted(dataset.iterdir()) == there


@pytest.mark.parametrize("attack", [ATTACK, "a' onload='x", "&lt;b&gt;", "</title>{x}%s", "\u202egpj.exe\n", "고양이"])
def test_hostile_names_stay_text(tmp_path, write_dataset, make_file, attack):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "page.jpg").write_text(attack)
    files = [
        make_file(
            path=f"{attack}/{i}", label=i % 2, split="test" if i < 2 else "train", shows=1, group=0, size=(9, 9 + i)
        )
        for i in range(8)
    ]
    files += [
        make_file(path="page.jpg", label=0, reason="text", detail=attack),
        make_file(path=attack, label=1, reason="too_large", detail=attack),
    ]
    folder = write_dataset(tmp_path / "zoo", files, [attack, f"{attack}2", "c"], background=attack)
    page = Page(report_of(folder, photos))
    assert len(page.all("script")) == 1
    names = {name for _, attrs in page.tags for name in attrs}
    assert not {name for name in names if name.startswith("on") or name in ("href", "srcdoc", "action")}
    if attack.isprintable():
        assert attack in page.text
        assert any(attack in image["alt"] for image in page.all("img"))
    else:
        assert "\\u202egpj.exe" in page.text


def test_one_example_alone(tmp_path, write_dataset, make_file):
    folder = write_dataset(tmp_path / "zoo", [make_file(path="a/1.png")], ["a"])
    text = Page(report_of(folder)).text
    for words in ("1 example 1 class", "The one original is 300 × 200 px.", "a 1 in train, none in test"):
        assert words in text
    assert "None: every file that was found became an example." in text


@pytest.mark.parametrize("encoding", ["raw", "png", "jpeg"])
def test_samples_have_the_very_pixels_and_the_class_that_are_stored(
    tmp_path, write_dataset, make_file, pixels_of, encoding
):
    files = [make_file(path=f"{i}.png", label=i % 3, split=("train", "test")[i % 2]) for i in range(30)]
    folder = write_dataset(tmp_path / "zoo", files, NAMES, encoding=encoding, shard_length=4)
    text = section_of(report_of(folder), "Contact sheet")
    assert "The stored pixels" in text
    images = Page(text).all("img")
    assert [image["alt"] for image in images] == [f"{name}, {i} of 8" for name in NAMES for i in range(1, 9)]
    stored = {name: [pixels_of(i, 8) for i in range(30) if i % 3 == label] for label, name in enumerate(NAMES)}
    for image in images:
        shown = picture_of(image)
        if encoding == "jpeg":
            errors = [abs(shown.astype(int) - array).mean() for group in stored.values() for array in group]
            nearest = stored[image["alt"].partition(",")[0]]
            assert min(errors) == min(abs(shown.astype(int) - array).mean() for array in nearest)
        else:
            assert any((shown == array).all() for array in stored[image["alt"].partition(",")[0]])
    assert len({image["src"] for image in images}) == 24


def test_large_pictures_are_compressed_and_the_page_stays_small(tmp_path, write_dataset, make_file):
    files = [
        make_file(path=f"{i}.png", label=i % 30, group=i % 30 if i < 60 else i, size=(90 + i, 99)) for i in range(180)
    ] + [make_file(path=f"{i}.png", label=0, reason="empty") for i in range(500)]
    folder = write_dataset(tmp_path / "zoo", files, [f"class {i}" for i in range(30)], image_size=160, encoding="jpeg")
    text = report_of(folder)
    assert len(text) < 3_000_000
    assert "compressed for this page" in text


def test_samples_show_every_class_and_no_photo_twice(tmp_path, write_dataset, make_file):
    files = [make_file(path=f"{i}", label=i % 2, group=i // 6 * 6) for i in range(30)]
    manifest = read_manifest(write_dataset(tmp_path / "zoo", files, ["a", "b"]))
    chosen = choose_samples(manifest, 120)
    assert [len(chosen[label]) for label in (0, 1)] == [5, 5]
    for rows in chosen.values():
        assert len(set(manifest.groups[rows].tolist())) == 5
    assert chosen == choose_samples(manifest, 120)
    assert chosen[0] != sorted(chosen[0])


def test_many_classes_get_one_sample_each_and_a_table_of_the_ends(tmp_path, write_dataset, make_file):
    names = [f"class {i:03}" for i in range(200)]
    files = [make_file(path=f"{i}/{k}", label=i) for i in range(200) for k in range(1 + i % 10)]
    files += [make_file(path=f"{i}/t", label=i, split="test") for i in range(3, 200)]
    text = report_of(write_dataset(tmp_path / "zoo", files, names))
    alts = [image["alt"] for image in Page(section_of(text, "Contact sheet")).all("img")]
    assert len(alts) == len(set(alts)) == 96
    assert (alts[0], alts[-1]) == ("class 000", "class 199")
    page = Page(section_of(text, "Classes"))
    assert "Examples per class, from 11 down to 1; the median is 6" in page.text
    assert "… 164 more classes of 2 to 10 each" in page.text
    assert "3 too small to be split" in page.text
    assert len(page.all("tr")) == 1 + 24 + 1 + 12 + 1
    for name in names[:3]:
        assert f"{name} {1 + int(name[-1])} in train, none in test" in page.text


def test_splits_of_the_source_are_not_called_small(tmp_path, write_dataset, zoo):
    text = Page(report_of(write_dataset(tmp_path / "zoo", zoo, NAMES, splits=("train", "test")))).text
    assert "Classes too small to be split" in text
    folder = write_dataset(tmp_path / "own", zoo, NAMES)
    layout = Layout.load(folder)
    dataclasses.replace(layout, config={**layout.config, "splits": "source"}).save(folder)
    text = Page(report_of(folder)).text
    assert "Classes missing from a split The splits are those of the source." in text
    assert "too small to be split" not in text


@pytest.mark.parametrize(("resize", "enlarged"), [("stretch", 3), ("crop", 3), ("pad", 1)])
def test_enlarged_originals_are_counted_as_the_resize_has_it(resize, enlarged):
    widths, heights = np.array([50, 100, 63, 64, 700]), np.array([50, 20, 64, 64, 900])
    assert f"{enlarged} ({enlarged * 20}\u00a0%)" in original_sizes(widths, heights, 64, resize)


def test_the_map_and_the_shapes_count_every_original():
    rng = np.random.default_rng(0)
    widths, heights = rng.integers(1, 3000, 500), rng.integers(1, 3000, 500)
    text = original_sizes(widths, heights, 64, "stretch")
    assert sum(int(num) for num in re.findall(r"px: (\d+) image", text)) == 500
    for spans, num in re.findall(r"<title>([\d,–]+ × [\d,–]+) px: (\d+) image", text):
        inside = np.ones(500, bool)
        for span, sides in zip(spans.split(" × "), (widths, heights), strict=True):
            low, _, high = span.replace(",", "").partition("–")
            inside &= (sides >= int(low)) & (sides <= int(high or low))
        assert inside.sum() == int(num)


def test_shapes_are_portrait_square_or_landscape():
    pairs = [(10, 30), (10, 20), (2, 3), (4, 5), (30, 31), (31, 30), (5, 4), (3, 2), (2, 1), (201, 100)]
    widths, heights = np.array(pairs).T
    page = Page(original_sizes(widths, heights, 1, "crop"))
    for words in (
        "taller than 1:2 1 1:2 to 2:3 1 2:3 to 4:5 2 about square 2",
        "5:4 to 3:2 2 3:2 to 2:1 1 wider than 2:1 1",
        "Only the middle of an image that is not square is stored.",
    ):
        assert words in page.text


@pytest.mark.parametrize("size", [(1, 1), (5000, 1), (64, 64)])
def test_originals_of_one_size_need_no_map(size):
    text = original_sizes(np.full(3, size[0]), np.full(3, size[1]), 64, "stretch")
    assert f"All 3 originals are {size[0]:,} × {size[1]} px" in text
    assert ("so enlarged" in text) == (min(size) < 64)
    assert "<svg" not in text


def test_refused_files_show_what_is_there_of_them(tmp_path, write_dataset, make_file):
    photos = tmp_path / "photos"
    (photos / "a").mkdir(parents=True)
    half = np.zeros((200, 300, 3), np.uint8)
    half[:, :, 0] = 255
    buffer = io.BytesIO()
    Image.fromarray(half).save(buffer, "PNG", compress_level=0)
    (photos / "a/half.png").write_bytes(buffer.getvalue()[:120_000])
    (photos / "a/error.jpg").write_text("<html>\n\n<h1>404 Not Found</h1>")
    (photos / "a/bytes.jpg").write_bytes(bytes(range(100)))
    files = [
        make_file(path="a/1.jpg"),
        make_file(path="a/half.png", reason="truncated"),
        make_file(path="a/error.jpg", reason="text"),
        make_file(path="a/bytes.jpg", reason="unknown_suffix"),
        make_file(path="a/gone.jpg", reason="unknown_suffix"),
        make_file(path="a/none.jpg", reason="empty", detail="zero bytes"),
    ]
    folder = write_dataset(tmp_path / "zoo", files, ["a"])
    text = section_of(report_of(folder, photos), "Rejected")
    page = Page(text)
    (image,) = page.all("img")
    shown = picture_of(image)
    assert image["alt"] == "the part of a/half.png that can be decoded"
    assert shown.shape == (149, 224, 3)
    assert shown[5, 100, 0] > 200
    for words in (
        "<html> <h1>404 Not Found</h1> a/error.jpg why",
        "00 01 02 03 04 05 06 07",
        "no preview a/gone.jpg why",
        "a/none.jpg zero bytes",
    ):
        assert words.replace(" ", "") in page.text.replace(" ", ""), words
    for elsewhere in ("", "https://example.com/photos", str(tmp_path / "photos.zip"), str(tmp_path / "gone")):
        text = report_of(folder, elsewhere)
        assert not Page(section_of(text, "Rejected")).all("img")
        assert "a/half.png" in text.replace("</span><span>", "")


def test_only_files_of_the_folder_are_opened(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (photos / "note.txt").write_text("note")
    os.mkfifo(photos / "pipe.txt")
    assert preview(str(photos), "note.txt", "text") == "note"
    for path in ("../secret.txt", str(tmp_path / "secret.txt"), "pipe.txt", ".", "", "a\0b", "x" * 5000):
        assert preview(str(photos), path, "text") is None
    assert preview(str(photos), "note.txt", "too_large") is None
    assert preview("", "note.txt", "text") is None


def test_the_most_frequent_reason_comes_first_and_long_lists_are_cut(tmp_path, write_dataset, make_file):
    files = [make_file(path="a/1.jpg"), make_file(path="a/cut.jpg", reason="truncated")]
    files += [make_file(path=f"a/{i:04}.jpg", reason="empty") for i in range(1500)]
    text = Page(section_of(report_of(write_dataset(tmp_path / "zoo", files, ["a"])), "Rejected")).text
    assert text.index("Empty 1,500 files") < text.index("Cut off 1 file")
    assert "0005.jpg" in text.replace(" ", "")
    assert "0006.jpg" not in text.replace(" ", "")
    assert "And 1,494 more; quarantine.jsonl lists all." in text


def test_every_reason_has_its_own_words():
    texts = [reason_text(reason.value) for reason in Reason]
    assert len(set(texts)) == len(texts)
    assert all(title and sentence.endswith(".") for title, sentence in texts)
    assert reason_text("out_of_film") == ("Out of film", "")


@pytest.fixture
def copies(make_file):
    """Six groups, of 2 equal files, 2 equal pictures, 9 and 2 and 3 and 2 alike, and three photos alone."""
    f = make_file
    return [
        f(path="ant/0", shows=0, file=0, group=0), f(path="ant/1", shows=0, file=0, group=0),
        f(path="ant/2", shows=2, group=2), f(path="ant/3", shows=2, group=2),
        *(f(path=f"bee/{4 + i}", label=1, split="test", group=4) for i in range(9)),
        f(path="ant/13", group=13), f(path="elsewhere/14", label=1, group=13),
        f(path="ant/15", group=15), f(path="ant/16", group=15, size=(150, 100)), f(path="ant/17", group=15),
        f(path="ant/18", group=18), f(path="ant/19", group=18, split="test"),
        f(path="ant/20"), f(path="ant/21"), f(path="bee/22", label=1, split="test"),
        f(path="ant/23", group=20, reason="truncated"),
    ]  # fmt: skip


def test_groups_of_copies_are_found(tmp_path, write_dataset, copies):
    groups = find_groups(read_manifest(write_dataset(tmp_path / "zoo", copies, ["ant", "bee"])))
    assert [groups.rows(i) for i in range(len(groups))] == [
        [0, 1], [2, 3], list(range(4, 13)), [13, 14], [15, 16, 17], [18, 19]
    ]  # fmt: skip
    assert groups.mixed.tolist() == [False, False, False, True, False, False]
    assert groups.apart.tolist() == [False, False, False, False, False, True]
    assert groups.resized.tolist() == [False, False, False, False, True, False]
    assert groups.same_bytes.tolist() == [True, False, False, False, False, False]
    assert groups.same_pixels.tolist() == [True, True, False, False, False, False]


def test_groups_of_copies_are_named_and_shown(tmp_path, write_dataset, copies, pixels_of):
    folder = write_dataset(tmp_path / "zoo", copies, ["ant", "bee"])
    text = report_of(folder)
    assert "20 images that have copies" in Page(text).text
    page = Page(section_of(text, "Copies"))
    for words in (
        "6 groups with 20 images",
        "1 in more than one split",
        "groups of byte-identical files 1 of files with equal pixels 1 of images that look alike 4",
        "ant/18 300 × 200 px, train ant/19 300 × 200 px, test 2 images that look alike in train and test",
        "2 images that look alike kept together in train 2 classes: ant, bee",
        "ant/13 300 × 200 px elsewhere/14 300 × 200 px, bee 2 images",
        "ant/16 150 × 100 px",
        "9 images that look alike kept together in test",
        "and 4 more",
        "2 images in byte-identical files kept together in train",
        "2 images with equal pixels kept together in train",
    ):
        assert words.replace(" ", "") in page.text.replace(" ", ""), words
    titles = re.findall("<h3>(.*?)</h3>", section_of(text, "Copies"))
    assert titles == [
        "In more than one split",
        "Of more than one class",
        "Of more than one size",
        "Others, the largest first",
    ]
    images = page.all("img")
    assert len(images) == 2 + 2 + 3 + 5 + 2 + 2
    shown = picture_of(images[0]).astype(int)
    errors = [abs(shown - pixels_of(seed, 8)).mean() for seed in range(23)]
    assert np.argmin(errors) == 18


def test_groups_without_room_for_pictures_are_named(tmp_path, write_dataset, make_file):
    files = [make_file(path=f"a/{i:03}.jpg", group=i // 8 * 8) for i in range(8 * 120)]
    page = Page(section_of(report_of(write_dataset(tmp_path / "zoo", files, ["a"])), "Copies"))
    assert len(page.all("img")) == 6 * 5
    assert len(page.all("li")) == 100 + 1
    assert "a/048.jpg, a/049.jpg, a/050.jpg, a/051.jpg, a/052.jpg, a/053.jpg and 2 more in train" in page.text
    assert "and 14 more groups" in page.text


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("ignore", "Not searched for, because of --copies=ignore."),
        ("exact", "None: no two images are equal."),
        ("near", "None: no two images are equal or look alike."),
    ],
)
def test_no_copies_are_none_or_not_looked_for(tmp_path, write_dataset, make_file, how, words):
    folder = write_dataset(tmp_path / "zoo", [make_file(path="a/1"), make_file(path="a/2")], ["a"], copies=how)
    text = Page(report_of(folder)).text
    assert words in text
    assert ("images that have copies" in text) == (how != "ignore")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"resize": "pad", "background": "black", "seed": 7, "copies": "exact"},
        {"encoding": "jpeg", "jpeg_quality": 80, "image_size": 32, "decode": "exact", "truncated": "keep"},
        {"categories": ("a b", "it's"), "splits": "train=0.5,val=0.25,test=0.25"},
        {"splits": "source"},
        {"resize": "none"},
        {"resize": "short", "image_size": 256},
    ],
)
def test_the_command_makes_the_same_options_again(dataset, options):
    config = ConvertConfig(image_dir="x", name="zoo", **{"image_size": 16, **options}).resolved().determining()
    layout = dataclasses.replace(Layout.load(dataset), config=config)
    simimg, convert, *flags = shlex.split(command_line(layout))
    assert (simimg, convert) == ("simimg", "convert")
    given = dict(flag.removeprefix("--").split("=", 1) for flag in flags)
    kinds = {"image_size": int, "seed": int, "jpeg_quality": int, "categories": lambda text: tuple(text.split(","))}
    again = ConvertConfig(**{key: kinds.get(key, str)(value) for key, value in given.items()})
    assert again.resolved().determining() == config
    assert "resize" in given if "resize" in options else "resize" not in given


def test_a_damaged_shard_is_no_picture(dataset):
    shard = next(dataset.glob("*.tfrecord-*"))
    data = bytearray(shard.read_bytes())
    for place in range(100, len(data), 200):
        data[place] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match=shard.name):
        write_conversion_report(dataset, "")
    assert not (dataset / "report.html").exists()


def test_a_shard_under_the_name_of_another_is_noticed(dataset):
    first, second = (dataset / info.file for info in Layout.load(dataset).splits["train"][:2])
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    with pytest.raises(DataError, match=r"record \d should be example \d+"):
        write_conversion_report(dataset, "")


def test_bars_are_as_long_as_the_counts(dataset):
    text = section_of(report_of(dataset), "Classes")
    bars = re.findall(r'<span class="bar" aria-hidden="true">(.*?)</span>', text)
    widths = [[float(width) for width in re.findall(r"width:([\d.]+)%", bar)] for bar in bars]
    assert widths == [[71.43, 23.81, 4.76], [28.57, 9.52, 4.76], [4.76]]
    assert re.findall(r'class="(\w+)"', bars[0]) == ["split0", "split1", "refused"]


def test_the_table_has_a_line_a_class_and_totals(dataset):
    assert summary_table(read_manifest(dataset), NAMES).splitlines() == [
        "class          train  test  total  rejected",
        "─────────────  ─────  ────  ─────  ────────",
        "ant               15     5     20         1",
        "bee                6     2      8         1",
        "cow                1     0      1         0",
        "(in no class)      0     0      0         1",
        "─────────────  ─────  ────  ─────  ────────",
        "total             22     7     29         3",
    ]


def test_the_table_of_many_classes_has_the_largest_and_the_rest(tmp_path, write_dataset, make_file):
    names = [f"class {i}" for i in range(30)]
    files = [make_file(path=f"{i}/{k}", label=i) for i in range(30) for k in range(i + 1)]
    files += [make_file(path="0/x", label=0, reason="empty"), make_file(path="29/x", label=29, reason="empty")]
    manifest = read_manifest(write_dataset(tmp_path / "zoo", files, names, splits=("train",)))
    lines = [line.split() for line in summary_table(manifest, names).splitlines()]
    assert lines[0] == ["class", "train", "rejected"]
    assert lines[2:4] == [["class", "29", "30", "1"], ["class", "28", "29", "0"]]
    assert lines[13:] == [
        ["…", "19", "more", "classes", "190", "1"],
        ["─" * 17, "─" * 5, "─" * 8],
        ["total", "465", "2"],
    ]
    assert len(summary_table(manifest[:78], names[:12]).splitlines()) == 12 + 4  # those of the first twelve classes


@pytest.mark.parametrize(
    ("name", "drawn", "width"),
    [
        ("고양이", "고양이", 6),
        ("cafe\u0301", "cafe\u0301", 4),
        ("ｗｉｄｅ", "ｗｉｄｅ", 8),
        ("a\x1b[31m", "a\\x1b[31m", 9),
        ("x" * 40, f"{'x' * 15}…{'x' * 16}", 32),
        ("고" * 20, f"{'고' * 7}…{'고' * 8}", 31),
    ],
)
def test_the_table_is_aligned_by_what_a_terminal_draws(tmp_path, write_dataset, make_file, name, drawn, width):
    folder = write_dataset(tmp_path / "zoo", [make_file(path="1"), make_file(path="2", label=1)], [name, "plain"])
    lines = summary_table(read_manifest(folder), [name, "plain"]).splitlines()
    column = len(lines[1].split("  ")[0])
    assert column == max(width, 5)
    assert lines[2] == f"{drawn}{' ' * (column - width)}      1     0      1         0"
    assert lines[3] == f"plain{' ' * (column - 5)}      1     0      1         0"
