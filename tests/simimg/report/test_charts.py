import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import simimg
from simimg.evaluation import classify
from simimg.image_files import png_bytes
from simimg.report.charts import confusion_matrix, curve_svgs
from simimg.report.contact_sheet import Tile, tile_sheet

RIGHT, WRONG = (0x1D, 0x5F, 0xC4), (0xD4, 0x50, 0x0F)


def figures_of(labels, predicted, names):
    return classify(np.eye(len(names))[predicted], np.array(labels, np.int32), tuple(names))


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.array(image.convert("RGB"))


def count(picture, color):
    return int((picture == color).all(axis=-1).sum())


@pytest.mark.parametrize("num_classes", [2, 5, 25, 102])
def test_confusion_matrix_has_a_sensible_size(tmp_path, num_classes):
    names = [f"class_{i}" for i in range(num_classes)]
    labels = np.arange(num_classes).repeat(2)
    confusion_matrix(figures_of(labels, labels, names), tmp_path / "matrix.png")
    height, width, _ = pixels(tmp_path / "matrix.png").shape
    assert 600 <= width <= 4000
    assert 600 <= height <= 4000
    assert 0.7 < width / height < 1.5


def test_right_is_blue_and_wrong_is_orange(tmp_path):
    labels, names = [0, 0, 1, 1], ["one", "two"]
    confusion_matrix(figures_of(labels, [0, 0, 1, 1], names), tmp_path / "right.png")
    confusion_matrix(figures_of(labels, [1, 1, 0, 0], names), tmp_path / "wrong.png")
    right, wrong = pixels(tmp_path / "right.png"), pixels(tmp_path / "wrong.png")
    assert count(right, RIGHT) > 20_000 > 0 == count(right, WRONG)
    assert count(wrong, WRONG) > 20_000 > 0 == count(wrong, RIGHT)


def test_a_single_mistake_in_a_large_class_is_visible(tmp_path):
    labels, names = [0] * 1000 + [1], ["one", "two"]
    confusion_matrix(figures_of(labels, [0] * 999 + [1, 1], names), tmp_path / "matrix.png")
    picture = pixels(tmp_path / "matrix.png").astype(int)
    assert ((picture[..., 0] - picture[..., 2]) > 30).sum() > 10_000


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["$x_{$", "caf\udce9", "two\nlines", "日本", "n" * 255, "<b>&amp;"])
def test_confusion_matrix_takes_any_class_name_and_classes_without_photos(tmp_path, name):
    confusion_matrix(figures_of([0, 0, 1], [0, 1, 1], ["plain", name, "without"]), tmp_path / "matrix.png")
    assert pixels(tmp_path / "matrix.png").shape[1] < 3000


def line(epoch, **more):
    return {"epoch": epoch, "loss": 1.0 / epoch, "accuracy": 1 - 0.5 / epoch, **more}


@pytest.mark.parametrize("num_epochs", [1, 2, 30])
def test_curves_show_test_figures_where_there_are_any(num_epochs):
    epochs = range(1, num_epochs + 1)
    without = curve_svgs([line(i) for i in epochs])
    both = curve_svgs([line(i, test_loss=1.2, test_accuracy=0.6) for i in epochs])
    assert [name for name, _ in without] == [name for name, _ in both] == ["Loss", "Accuracy"]
    assert not any('class="test"' in chart for _, chart in without)
    assert all('<polyline class="test"' in chart and '<circle class="test"' in chart for _, chart in both)


@pytest.mark.parametrize("history", [[], [line(1, test_loss=float("nan"), test_accuracy=None)]])
def test_curves_without_usable_figures(history):
    charts = curve_svgs(history)
    assert len(charts) == 2 * len(history)
    assert not any('class="test"' in chart for _, chart in charts)


def picture_of(color, size=(300, 200)):
    return Image.new("RGB", size, color)


def test_sheet_grows_with_rows_and_columns(tmp_path):
    tile = Tile(picture_of("green"), "a.jpg", "0.9")
    tile_sheet([[tile] * 4], tmp_path / "one.png")
    tile_sheet([[tile] * 4, [tile] * 6, []], tmp_path / "two.png", title="A title")
    one, two = pixels(tmp_path / "one.png"), pixels(tmp_path / "two.png")
    assert one.shape[1] + 2 * (224 + 16) == two.shape[1]
    assert two.shape[0] > one.shape[0] + 224
    green = count(two, (0, 128, 0))
    assert 10 * 224 * 149 * 0.98 < green < 10 * 224 * 149 * 1.02  # whole pictures, uncropped, at their aspect ratio


def test_sheet_marks_the_original_and_sets_the_query_apart(tmp_path):
    query, match = Tile(picture_of("green"), "q.jpg"), Tile(picture_of("green"), "m.jpg", "0.98")
    found = Tile(match.image, match.caption, match.note, highlighted=True)
    tile_sheet([[query, match]], tmp_path / "plain.png")
    tile_sheet([[query, found]], tmp_path / "found.png")
    plain, marked = pixels(tmp_path / "plain.png"), pixels(tmp_path / "found.png")
    assert count(plain, RIGHT) == 0
    assert count(marked, RIGHT) > 4 * 224 * 4
    middle = plain.shape[1] // 2
    film = (0x1B, 0x1B, 0x1E)
    assert count(plain[:, :middle], film) > 10_000 > 0 == count(plain[:, middle:], film)


@pytest.mark.parametrize("caption", ["x" * 400 + ".jpg", "日本" * 40, "caf\udce9\nline.jpg", ""])
def test_captions_stay_under_their_picture(tmp_path, caption):
    tile_sheet([[Tile(None, "q"), Tile(None, caption, caption), Tile(None, "")]], tmp_path / "sheet.png")
    gap = pixels(tmp_path / "sheet.png")[:, 36 + 252 + 36 + 224 : 36 + 252 + 36 + 224 + 16]
    assert (gap == 255).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1"])
def test_sheet_takes_pictures_of_any_mode(tmp_path, mode):
    image = picture_of("white", (50, 100)).convert(mode)
    tile_sheet([[Tile(image, "tall.png")]], tmp_path / "sheet.png")
    on_film = pixels(tmp_path / "sheet.png")[70:-60, 50:274]
    assert count(on_film, (255, 255, 255)) == 112 * 224


def test_an_empty_sheet_says_so(tmp_path):
    tile_sheet([], tmp_path / "new" / "sheet.png", title="Nothing")
    assert (pixels(tmp_path / "new" / "sheet.png") < 128).any()


def test_png_bytes_keep_pixels_and_drop_metadata():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8))
    image.info["comment"] = "from /home/someone"
    again = Image.open(io.BytesIO(png_bytes(image)))
    assert (np.array(again) == np.array(image)).all()
    assert again.info == {}


def test_what_fails_leaves_the_earlier_picture_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "sheet.png"
    tile_sheet([], path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        tile_sheet([[Tile(None, "a")]], path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_pictures_need_neither_tensorflow_nor_pyplot(tmp_path):
    # The package imports TensorFlow for its figures, so a bare package stands in for it here.
    program = (
        "import sys, types, simimg; package = types.ModuleType('simimg.evaluation');"
        "package.__path__ = [simimg.__path__[0] + '/evaluation']; sys.modules['simimg.evaluation'] = package;"
        "import simimg.report.charts, simimg.report.demo_report, simimg.report.conversion;"
        "there = lambda: sorted({'matplotlib', 'tensorflow', 'keras', 'matplotlib.pyplot'} & set(sys.modules));"
        "print(there()); import numpy as np, pathlib; none = np.zeros(0);"
        "simimg.report.charts.calibration_curves(none, none > 0, 1, 0.9, pathlib.Path('curves.png')); print(there())"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(simimg.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
    )
    assert done.stdout == "[]\n['matplotlib']\n"
