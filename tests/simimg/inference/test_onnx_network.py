"""Other people's networks: what their files say and what has to be given, the same bits in any batch, and an index."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import simimg
from simimg.cli import main
from simimg.errors import ModelError, SearchIndexError, UsageError
from simimg.inference.inference_engine import Engine, instruction_set
from simimg.inference.network import open_network
from simimg.inference.onnx_contract import split_model
from simimg.similarity.embeddings import load_embedder
from simimg.similarity.search_index import SearchIndex
from tfrecords.format.atomic_files import parse_json, write_json

from .onnx_file import CHANNELS, DIM, FLOAT, FLOAT16, INT64, UINT8, expected, model, node, value, write_network

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")

IMAGENET = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def embed(model: str | Path, images: np.ndarray) -> np.ndarray:
    return open_network(str(model), "embedding")(images)


@pytest.mark.parametrize("batch", ["batch", None, 1])
@pytest.mark.parametrize("size", [32, "side", None])
@pytest.mark.parametrize(("layout", "type"), [("nchw", FLOAT), ("nhwc", UINT8), ("nhwc", FLOAT), ("nchw", UINT8)])
def test_layouts_types_batches_and_sizes(
    tmp_path: Path, images: np.ndarray, layout: str, type: int, batch: int | str | None, size: int | str | None
) -> None:
    file = write_network(tmp_path / "a.onnx", layout=layout, type=type, batch=batch, size=size)
    given = ([] if size == 32 else ["size=32"]) + ([] if type == UINT8 else ["range=0..255"])
    opened = open_network(",".join([str(file), *given]), "embedding")
    assert (opened.facts.dim, opened.facts.image_size) == (DIM, 32)
    assert opened.engine == Engine("ONNX Runtime", onnxruntime.__version__, "float32", instruction_set())
    found = opened(images)
    assert (found.dtype, found.shape) == (np.float32, (len(images), DIM))
    np.testing.assert_allclose(found, [expected(image) for image in images], atol=1e-5)
    np.testing.assert_array_equal(np.concatenate([opened(image[None]) for image in images]), found)
    assert opened(images[:0]).shape == (0, DIM)


@pytest.mark.parametrize(
    ("given", "mean", "std"),
    [
        ("range=0..255", 0, 1 / 255),
        ("range=0..1", 0, 1),
        ("range=-1..1", 0.5, 0.5),
        ("range=imagenet", *IMAGENET),
        ("mean=0.485/0.456/0.406,std=0.229/0.224/0.225", *IMAGENET),
        ("mean=0.1/0.2/0.3,std=1/2/3", np.array([0.1, 0.2, 0.3]), np.array([1, 2, 3])),
    ],
)
@pytest.mark.parametrize("type", [FLOAT, FLOAT16])
def test_ranges(
    tmp_path: Path, images: np.ndarray, given: str, mean: np.ndarray | float, std: np.ndarray | float, type: int
) -> None:
    file = write_network(tmp_path / "a.onnx", type=type)
    found = embed(f"{file},{given}", images[:3])
    wanted = [expected((image / 255 - mean) / std) for image in images[:3]]
    np.testing.assert_allclose(found, wanted, atol=1e-5 if type == FLOAT else 0.01)


def test_blue_first(tmp_path: Path, images: np.ndarray) -> None:
    file = write_network(tmp_path / "a.onnx", type=UINT8)
    found = embed(f"{file},channels=bgr", images[:3])
    np.testing.assert_allclose(found, [expected(image[:, :, ::-1]) for image in images[:3]], atol=1e-5)
    file = write_network(tmp_path / "b.onnx", type=UINT8, metadata={"Image.BitmapPixelFormat": "Bgr8"})
    np.testing.assert_array_equal(embed(file, images[:3]), found)
    np.testing.assert_allclose(embed(f"{file},channels=rgb", images[:1])[0], expected(images[0]), atol=1e-5)


def test_the_file_may_say_everything_itself(tmp_path: Path, images: np.ndarray) -> None:
    plain = write_network(tmp_path / "plain.onnx", size="side")
    own = write_network(tmp_path / "own.onnx", size="side", metadata={"simimg.input": "size=32,range=imagenet"})
    wanted = embed(f"{plain},size=32,range=imagenet", images)
    np.testing.assert_array_equal(embed(own, images), wanted)
    np.testing.assert_array_equal(
        embed(f"{own},range=0..1", images[:4]), embed(f"{plain},size=32,range=0..1", images[:4])
    )
    standard = {"Image.NominalPixelRange": "Normalized_1_1", "Image.BitmapPixelFormat": "Rgb8"}
    by_onnx = write_network(tmp_path / "standard.onnx", metadata=standard)
    np.testing.assert_array_equal(embed(by_onnx, images[:4]), embed(f"{plain},size=32,range=-1..1", images[:4]))
    given = "mean=0/0/0,std=1/1/1"
    np.testing.assert_array_equal(embed(f"{by_onnx},{given}", images[:4]), embed(f"{by_onnx},range=0..1", images[:4]))


def test_a_named_output(tmp_path: Path, images: np.ndarray) -> None:
    file = write_network(tmp_path / "a.onnx", type=UINT8, outputs=["map", "pooled", "embedding"])
    with pytest.raises(UsageError, match=r"several outputs.*: pooled, embedding\. Name one, as in .*,output=pooled\."):
        embed(file, images)
    assert embed(f"{file},output=pooled", images[:2]).shape == (2, CHANNELS)
    np.testing.assert_allclose(embed(f"{file},output=embedding", images[:1])[0], expected(images[0]), atol=1e-5)
    with pytest.raises(ModelError, match=r"gives no embedding, which is a float tensor \[n, dim\]"):
        embed(f"{file},output=map", images)
    with pytest.raises(UsageError, match=r"has no output=other\. It has map tensor\(float\)"):
        embed(f"{file},output=other", images)
    only_one = write_network(tmp_path / "b.onnx", type=UINT8, outputs=["map", "embedding"])
    assert embed(only_one, images[:2]).shape == (2, DIM)


@pytest.mark.parametrize("num_threads", ["1", "2", "7"])
def test_bits_do_not_depend_on_the_threads(
    tmp_path: Path, images: np.ndarray, num_threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_network(tmp_path / "a.onnx", size=None, type=UINT8)
    wanted = embed(f"{file},size=32", images)
    monkeypatch.setattr("simimg.inference.onnx_network.num_cores", lambda: int(num_threads))
    opened = open_network(f"{file},size=32", "embedding")
    for rows in ([3], [5, 3, 3, 9], range(40), [39, 0]):
        np.testing.assert_array_equal(opened(images[list(rows)]), wanted[list(rows)])


def test_a_forked_process_computes_the_same(tmp_path: Path, images: np.ndarray) -> None:
    opened = open_network(str(write_network(tmp_path / "a.onnx", type=UINT8)), "embedding")
    wanted = opened(images[:2])
    child = os.fork()
    if not child:
        signal.alarm(60)
        os._exit(0 if np.array_equal(opened(images[:2]), wanted) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_what_is_missing_is_said_at_once(tmp_path: Path) -> None:
    """One message names everything, with an example that can be copied."""
    file = write_network(tmp_path / "a.onnx", size="side")
    with pytest.raises(UsageError) as raised:
        load_embedder(str(file))
    assert f"does not say in which size and range it takes images. Give what its authors state, as in --model={file}," \
           "size=224,range=imagenet (" in str(raised.value)  # fmt: skip
    with pytest.raises(UsageError, match=r"in which range it takes .*a\.onnx,size=32,range=imagenet \(range: 0\.\.255"):
        load_embedder(f"{file},size=32")
    open_channels = write_network(tmp_path / "b.onnx", shape=["batch", "num_channels", "height", "width"])
    with pytest.raises(UsageError, match=r"in which layout, size and range it .*,layout=nchw,size=224,range=imagenet"):
        load_embedder(str(open_channels))
    assert load_embedder(f"{open_channels},layout=nchw,size=32,range=0..1").dim == DIM


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("size", "'size' should be one of size=…, range=…"),
        ("resize=3", "'resize=3' should be one of size=…, range=…"),
        ("size=32,size=32", "once each"),
        ("size=0", "size=0 should be the side"),
        ("size=32px", "size=32px should be the side"),
        ("size=64,range=0..1", r"it takes images of 32 px, not of size=64\. Leave out size"),
        ("range=256", r"range=256 should be one of 0\.\.255, 0\.\.1, -1\.\.1, imagenet, clip"),
        ("mean=0/0/0", "give either range, or mean and std"),
        ("range=0..1,mean=0/0/0,std=1/1/1", "give either range, or mean and std"),
        ("mean=0,std=1", "mean=0 should be three numbers"),
        ("mean=0/0/0,std=0/1/1", "std=0/1/1 should be three numbers"),
        ("layout=nhwc,range=0..1", r"layout=nhwc contradicts the shape of its input, \[batch, 3, 32, 32\]"),
        ("channels=gray", "channels=gray should be one of rgb, bgr"),
    ],
)
def test_what_cannot_be_given(tmp_path: Path, given: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_embedder(f"{write_network(tmp_path / 'a.onnx')},{given}")


def test_an_unfit_text_in_the_file_is_named(tmp_path: Path) -> None:
    file = write_network(tmp_path / "a.onnx", metadata={"simimg.input": "range=big"})
    with pytest.raises(ModelError, match=r"a\.onnx: its metadata simimg\.input=range=big: range=big should be one of"):
        load_embedder(str(file))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 8}, r"takes 8 images at a time \(\[8, 3, 32, 32\]\)\. Export it with a batch of 1"),
        ({"type": INT64}, r"takes tensor\(int64\) as image; images should be one of tensor\(uint8\)"),
        ({"shape": ["n", 1, 32, 32]}, r"shape \[n, 1, 32, 32\]; none of its dimensions is 3, for RGB"),
        ({"shape": ["n", 3, 32, 48]}, r"shape \[n, 3, 32, 48\]; simimg makes squares"),
        ({"outputs": ["map"], "type": UINT8}, r"gives no embedding.*map tensor\(float\).*with an output \[n, dim\]"),
    ],
)
def test_networks_that_embed_no_images(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_embedder(str(write_network(tmp_path / "a.onnx", **options)))  # type: ignore[arg-type]


def test_an_input_that_is_no_image(tmp_path: Path) -> None:
    flat = model([node("Abs", ["row"], "x")], [value("row", FLOAT, ["n", 768])], [value("x", FLOAT, ["n", 768])])
    (tmp_path / "a.onnx").write_bytes(flat)
    with pytest.raises(ModelError, match=r"takes row of shape \[n, 768\]; images should be \[1, 3, height, width\] or"):
        load_embedder(str(tmp_path / "a.onnx"))


def test_several_inputs(tmp_path: Path) -> None:
    inputs = [value("left", FLOAT, [1, 3, 8, 8]), value("right", FLOAT, [1, 3, 8, 8])]
    two = model([node("Add", ["left", "right"], "sum")], inputs, [value("sum", FLOAT, [1, 3, 8, 8])])
    (tmp_path / "a.onnx").write_bytes(two)
    with pytest.raises(ModelError, match=r"a\.onnx has 2 inputs \(left, right\); a network that embeds images has one"):
        load_embedder(str(tmp_path / "a.onnx"))


def test_an_embedding_that_is_no_number(tmp_path: Path) -> None:
    nodes = [node("Flatten", ["image"], "flat", axis=1), node("Log", ["flat"], "logarithm")]
    outputs = [value("logarithm", FLOAT, ["n", 192])]
    (tmp_path / "a.onnx").write_bytes(model(nodes, [value("image", FLOAT, ["n", 3, 8, 8])], outputs))
    opened = open_network(f"{tmp_path / 'a.onnx'},range=0..255", "embedding")
    with pytest.raises(ModelError, match=r"a\.onnx: its embedding of an image has infinite numbers or NaN"):
        opened(np.zeros((1, 8, 8, 3), np.uint8))


def test_a_size_that_the_network_cannot_compute(tmp_path: Path) -> None:
    """Known only to the network, as for one with embeddings of positions."""
    file = write_network(tmp_path / "a.onnx", size="side", type=UINT8)
    with pytest.raises(ModelError, match=r"a\.onnx cannot compute an image of 2 x 2 px: .*give the one that it was"):
        load_embedder(f"{file},size=2")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"half"])
def test_files_of_another_kind(tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    file = write_network(tmp_path / "a.onnx")
    file.write_bytes(file.read_bytes()[:500] if content == b"half" else content)
    with pytest.raises(ModelError, match=r"a\.onnx cannot be loaded as an ONNX network: .*\. Export or download it"):
        load_embedder(str(file))
    assert capfd.readouterr().err == ""


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.onnx does not exist\. Name an ONNX file; if that of an index was moved"):
        load_embedder(str(tmp_path / "a.onnx"))
    with pytest.raises(UsageError, match=r"neither a folder of a trained model nor a FILE\.onnx nor one of lite0"):
        load_embedder(str(tmp_path / "a.pt"))
    with pytest.raises(UsageError, match="--precision=bfloat16: an ONNX file has its own precision"):
        load_embedder(str(tmp_path / "a.onnx"), precision="bfloat16")


def test_without_onnxruntime_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_network(tmp_path / "a.onnx")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs ONNX Runtime, which is not installed\. Run: pip install 'simimg-tf\["):
        load_embedder(str(file))


def test_the_name_and_what_follows_it() -> None:
    assert split_model("a.onnx") == ("a.onnx", "")
    assert split_model("b.onnx,c/A.ONNX,size=3") == ("b.onnx", "c/A.ONNX,size=3")
    assert split_model("x.onnx.d/a,b.onnx,size=3,range=0..1") == ("x.onnx.d/a,b.onnx", "size=3,range=0..1")
    assert split_model("lite0") is None
    assert split_model("a.onnx.bak") is None


def test_weights_in_a_file_of_their_own(tmp_path: Path, images: np.ndarray) -> None:
    """They are a part of the network, so others have another fingerprint."""
    long_name = "weights" * 25  # whose length has two bytes
    whole = write_network(tmp_path / "whole.onnx", type=UINT8)
    for name in ("a.onnx.data", long_name):
        file = write_network(tmp_path / "a.onnx", type=UINT8, outside=name)
        opened = open_network(str(file), "embedding")
        np.testing.assert_array_equal(opened(images), embed(whole, images))
        weights = np.frombuffer((tmp_path / name).read_bytes(), "f4").copy()
        (tmp_path / name).write_bytes((weights + 1).tobytes())
        assert open_network(str(file), "embedding").facts.fingerprint != opened.facts.fingerprint
        (tmp_path / name).unlink()
        with pytest.raises(ModelError, match=r"a\.onnx cannot be loaded as an ONNX network: "):
            open_network(str(file), "embedding")


@pytest.fixture
def photos_dir(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(12):
        coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)
        image = Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC)
        image.save(tmp_path / "photos" / f"{number:02d}.png")
    image.resize((120, 90)).save(tmp_path / "photos" / "smaller.jpg")
    return tmp_path / "photos"


def test_an_index_of_an_onnx_network(photos_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Index, update, search and duplicates; another file, another size and another range are refused."""
    file = write_network(tmp_path / "a.onnx", type=FLOAT, size="side")
    name = f"{file},size=32,range=imagenet"
    index_dir = tmp_path / "index"
    assert simimg.index(photos_dir, index_dir, model=name).num_embedded == 13
    info = parse_json((index_dir / "index.json").read_bytes())
    assert info["model"] == name
    assert info["model_fingerprint"].startswith(hashlib.sha256(file.read_bytes()).hexdigest())
    assert info["image_size"] == 32
    assert [engine["library"] for engine in info["engines"]] == ["ONNX Runtime"]
    assert simimg.index(photos_dir, index_dir, model=name).num_embedded == 0
    best = simimg.search(index_dir, photos_dir / "03.png")[0]
    assert (best.path.name, best.similarity) == ("03.png", 1.0)
    assert main(["duplicates", f"--image_dir={photos_dir}", f"--model={name}", f"--plan={tmp_path / 'p.json'}"]) == 0
    assert "smaller.jpg" in capsys.readouterr().out
    for other in (f"{file},size=64,range=imagenet", f"{file},size=32,range=clip"):
        with pytest.raises(SearchIndexError, match="of other weights than"):
            simimg.index(photos_dir, index_dir, model=other)
    moved = shutil.move(file, tmp_path / "moved.onnx")
    with pytest.raises(UsageError, match=r"a\.onnx does not exist"):
        SearchIndex.open(index_dir).load_embedder()
    simimg.index(photos_dir, index_dir, model=f"{moved},size=32,range=imagenet")
    assert SearchIndex.open(index_dir).load_embedder().name == f"{moved},size=32,range=imagenet"
    write_network(tmp_path / "moved.onnx", size="side", seed=1)
    with pytest.raises(SearchIndexError, match=r"moved\.onnx,.*whose weights have changed since"):
        SearchIndex.open(index_dir).load_embedder()


def test_an_index_that_another_version_began(
    photos_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """How much vectors of two versions differ depends on the network, so no bound is promised."""
    file, index_dir = write_network(tmp_path / "a.onnx", type=UINT8), tmp_path / "index"
    simimg.index(photos_dir, index_dir, model=str(file))
    info = parse_json((index_dir / "index.json").read_bytes())
    info["engines"][0]["version"] = "1.0"
    write_json(index_dir / "index.json", info)
    shutil.copy(photos_dir / "03.png", photos_dir / "other.png")
    Image.new("RGB", (40, 30), "red").save(photos_dir / "red.png")
    with caplog.at_level(logging.INFO):
        simimg.index(photos_dir, index_dir, model=str(file))
    assert "slightly, and by more if the network is quantized" in caplog.text
    assert [engine.version for engine in SearchIndex.open(index_dir).info.engines] == ["1.0", onnxruntime.__version__]


def test_tensorflow_is_not_imported(photos_dir: Path, tmp_path: Path) -> None:
    file = write_network(tmp_path / "a.onnx", type=UINT8)
    code = """
import sys
from simimg.cli import main
code = main(sys.argv[1:])
print(*sorted({"tensorflow", "keras", "ai_edge_litert", "onnxruntime"} & set(sys.modules)))
sys.exit(code)
"""
    arguments = ["index", f"--image_dir={photos_dir}", f"--index_dir={tmp_path / 'i'}", f"--model={file}"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "onnxruntime"
