"""Texts among images by a pair of tiny networks that are written here: what their files say, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import simimg
from simimg.errors import ModelError, UsageError
from simimg.inference.onnx_network import onnx_digest
from simimg.similarity.search_index import SearchIndex
from simimg.similarity.text_encoder import METADATA, TextEncoder, open_text_encoder
from tests.simimg.inference.onnx_file import FLOAT, INT64, UINT8, model, node, tensor, value

tokenizers = pytest.importorskip("tokenizers", reason="needs the extra text")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")

INT32 = 6
COLORS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
WORDS = ["<pad>", "<start>", "<end>", "<other>", *COLORS]
DIM = 5


def axes(seed: int = 3) -> np.ndarray:
    """Three orthonormal vectors, float32 `[3, DIM]`: where red, green and blue point to."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(DIM, DIM)))[0][:3].astype("f4")


def write_image_encoder(path: Path, size: int = 16, bias: float = 128.0) -> Path:
    """The mean color, less gray, along the axes."""
    nodes = [
        node("Cast", ["image"], "float", to=FLOAT),
        node("Transpose", ["float"], "nchw", perm=(0, 3, 1, 2)),
        node("GlobalAveragePool", ["nchw"], "mean"),
        node("Flatten", ["mean"], "color", axis=1),
        node("Sub", ["color", "gray"], "centered"),
        node("MatMul", ["centered", "axes"], "embedding"),
    ]
    tensors = [tensor("axes", axes()), tensor("gray", np.full((1, 3), bias, "f4"))]
    inputs, outputs = [value("image", UINT8, [1, size, size, 3])], [value("embedding", FLOAT, [1, DIM])]
    path.write_bytes(model(nodes, inputs, outputs, tensors))
    return path


def write_text_encoder(
    path: Path,
    *,
    shape: Sequence[int | str | None] = (1, 6),
    type: int = INT64,
    mask: bool = False,
    dim: int = DIM,
    metadata: str = "",
    output: str = "text_embeds",
) -> Path:
    """The mean of a row per token: a color's is along its axis, that of padding is long and wrong."""
    table = np.zeros((len(WORDS), dim), "f4")
    for name, color in COLORS.items():
        table[WORDS.index(name), :DIM] = (np.array(color, "f4") - 128) @ axes() / 100
    table[0, :] = -3.0
    nodes = [node("Gather", ["table", "input_ids"], "rows", axis=0)]
    rows, inputs = "rows", [value("input_ids", type, shape)]
    if mask:
        inputs.append(value("attention_mask", type, shape))
        nodes += [
            node("Cast", ["attention_mask"], "float", to=FLOAT),
            node("MatMul", ["float", "rows"], "masked"),
        ]
        rows = "masked"
    nodes.append(node("ReduceMean", [rows], output, axes=(1,), keepdims=0))
    outputs = [value(output, FLOAT, [1, dim]), value(rows, FLOAT, [1, None, dim])]
    data = model(nodes, inputs, outputs, [tensor("table", table)], {METADATA: metadata} if metadata else None)
    path.write_bytes(data)
    return path


def write_tokenizer(path: Path, *, pads: bool = False, **padding: Any) -> Path:
    """Words between a token that begins and one that ends a text; `padding` is what is stated besides the token."""
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<other>")
    )
    made.normalizer = tokenizers.normalizers.Lowercase()
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    made.enable_truncation(4)  # which would drop words in silence
    if pads:
        made.enable_padding(pad_id=2, pad_token="<end>", **padding)
    made.save(str(path))
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pair, photos of three colors, and their index."""
    folder = tmp_path_factory.mktemp("pair")
    write_tokenizer(folder / "tokenizer.json", pads=True)
    write_text_encoder(folder / "text.onnx", metadata=f"images={onnx_digest(write_image_encoder(folder / 'i.onnx'))}")
    for name, color in COLORS.items():
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng(number).integers(-20, 21, (40, 40, 3)) + color
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "photos" / name / f"{number}.png")
    simimg.index(folder / "photos", folder / "index", model=str(folder / "i.onnx"))
    return folder


def test_a_description_finds_what_it_describes(pair: Path, simimg_json: Callable[..., Any], tmp_path: Path) -> None:
    flags = (f"--index_dir={pair / 'index'}", f"--text_model={pair / 'text.onnx'}", "--k=3")
    found = simimg_json(
        "search", *flags, "--text=A BLUE boat", "--text=red", f"--picture={tmp_path / 'sheet.png'}",
        str(pair / "photos/green/0.png"),
    )["results"]  # fmt: skip
    assert [one["query"] for one in found] == [str(pair / "photos/green/0.png"), "A BLUE boat", "red"]
    assert [{match["label"] for match in one["matches"]} for one in found[1:]] == [{"blue"}, {"red"}]
    assert all(not match["verified"] and match["similarity"] == match["cosine"] for match in found[2]["matches"])
    assert found[2]["matches"][0]["similarity"] > 0.9
    assert Image.open(tmp_path / "sheet.png").width > 900
    with simimg.Searcher(pair / "index", text_model=str(pair / "text.onnx")) as searcher:
        best = searcher.search_text("red", k=1)[0]
        assert best.image.path == Path(found[2]["matches"][0]["path"]).relative_to(pair / "photos").as_posix()
        with pytest.raises(UsageError, match="is empty. Describe an image"):
            searcher.search_text("  ")
        with pytest.raises(UsageError, match="has 7 tokens, and the model takes 6. Shorten it: red red"):
            searcher.search_text("red red red red red")  # none is dropped
        with pytest.raises(UsageError, match="has too many tokens"):
            searcher.search_text("red " * 1000)
    with simimg.Searcher(pair / "index") as searcher, pytest.raises(UsageError, match="text_model=TEXT.onnx"):
        searcher.search_text("red")


@pytest.mark.parametrize("type", [INT32, INT64])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize(
    ("shape", "given"), [((1, 6), "pad=2"), (("n", "length"), ""), ((None, None), "length=6,pad=2")]
)
def test_ids_masks_and_lengths(
    tmp_path: Path, type: int, mask: bool, shape: Sequence[int | str | None], given: str
) -> None:
    file = write_text_encoder(tmp_path / "a.onnx", shape=shape, type=type, mask=mask)
    write_tokenizer(tmp_path / "words.json")
    encoder = open_text_encoder(",".join(filter(None, [str(file), f"tokenizer={tmp_path / 'words.json'}", given])))
    vector = encoder.embed("Green")
    assert (vector.dtype, vector.shape, encoder.dim) == (np.float32, (DIM,), DIM)
    expected = (np.array(COLORS["green"]) - 128) @ axes()
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)
    np.testing.assert_array_equal(encoder.embed("green"), vector)


def test_the_padding_is_what_the_files_say(tmp_path: Path) -> None:
    file = str(write_text_encoder(tmp_path / "a.onnx"))
    write_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(UsageError, match=r"with which token short texts are padded to 6\. .*a\.onnx,pad=0"):
        open_text_encoder(file)
    for token in ("<end>", {"content": "<end>"}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": token}))
        assert open_text_encoder(file).pad == 2
    assert open_text_encoder(f"{file},pad=0").pad == 0
    write_tokenizer(tmp_path / "tokenizer.json", pads=True)
    (tmp_path / "tokenizer_config.json").write_text("{")
    assert open_text_encoder(file).pad == 2


def test_the_padding_has_the_stated_length_and_side(tmp_path: Path) -> None:
    file = str(write_text_encoder(tmp_path / "a.onnx", shape=(1, "length"), mask=True))
    write_tokenizer(tmp_path / "tokenizer.json", pads=True, length=5, direction="left")
    encoder = open_text_encoder(file)
    given: dict[str, np.ndarray] = {}

    def run(names: Sequence[str], values: dict[str, np.ndarray]) -> list[np.ndarray]:
        given.update(values)
        return encoder.session.run(names, values)

    session: Any = SimpleNamespace(run=run)
    dataclasses.replace(encoder, session=session).embed("red")
    assert (encoder.length, open_text_encoder(f"{file},length=7").length) == (5, 7)
    assert given["input_ids"].tolist() == [[2, 2, 1, 4, 2]]
    assert given["attention_mask"].tolist() == [[0, 0, 1, 1, 1]]


def test_a_text_without_tokens(pair: Path) -> None:
    encoder = open_text_encoder(str(pair / "text.onnx"))
    encoder.tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="$A", special_tokens=[])
    encoder.tokenizer.normalizer = tokenizers.normalizers.Replace("?", "")
    with pytest.raises(UsageError, match=r"knows no word of this text\. .*: \?\?$"):
        encoder.embed("??")


def test_an_index_of_another_image_encoder(pair: Path, tmp_path: Path) -> None:
    index = SearchIndex.open(pair / "index")

    def checked(given: str = "", **changed: Any) -> TextEncoder:
        file = write_text_encoder(tmp_path / "b.onnx", **changed)
        encoder = open_text_encoder(f"{file},tokenizer={pair / 'tokenizer.json'}{given}")
        encoder.check(index)
        return encoder

    assert checked().images == ""
    assert checked(f",images={pair / 'i.onnx'}").images == onnx_digest(pair / "i.onnx")
    with pytest.raises(UsageError, match=r"whose vectors have 5 numbers, and those of texts have 7\. Make an index"):
        checked(dim=7)
    other = write_image_encoder(tmp_path / "other.onnx", bias=100.0)
    with pytest.raises(UsageError, match="which is not the image encoder of this pair"):
        checked(f",images={other}")
    with pytest.raises(UsageError, match="which is not the image encoder of this pair"):
        checked(metadata=f"images={onnx_digest(other)}")
    with pytest.raises(UsageError, match=r"nobody\.onnx cannot be read"):
        checked(f",images={tmp_path / 'nobody.onnx'}")


@pytest.mark.parametrize(
    ("changed", "given", "error", "message"),
    [
        ({"shape": (8, 6)}, "", ModelError, "takes input_ids .* a text encoder takes ids"),
        ({"type": FLOAT}, "", ModelError, "a text encoder takes ids, int32 or int64"),
        ({}, ",length=7", UsageError, "it takes 6 tokens, not length=7"),
        ({}, ",length=0", UsageError, "length=0 should be the number of tokens"),
        ({}, ",pad=x", UsageError, "pad=x should be a whole number"),
        ({}, ",size=3", UsageError, "'size=3' should be one of tokenizer=…"),
        ({"metadata": "size=3"}, "", UsageError, "its metadata simimg.text=size=3"),
        ({}, ",output=nobody", UsageError, "it has no output=nobody"),
        ({"shape": (1, "length")}, ",pad=99,length=6", ModelError, "cannot compute a text of 6 tokens"),
    ],
)
def test_what_is_refused(
    pair: Path, tmp_path: Path, changed: dict[str, Any], given: str, error: type[Exception], message: str
) -> None:
    if changed.get("type") == FLOAT:
        file = write_image_encoder(tmp_path / "b.onnx")
    else:
        file = write_text_encoder(tmp_path / "b.onnx", **changed)
    with pytest.raises(error, match=message):
        open_text_encoder(f"{file},tokenizer={pair / 'tokenizer.json'}{given}")


def test_files_that_are_missing_or_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_text_encoder(tmp_path / "b.onnx")
    with pytest.raises(UsageError, match=r"tokenizer\.json cannot be read.*b\.onnx,tokenizer=FILE"):
        open_text_encoder(str(file))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer\.json is no tokenizer\.json"):
        open_text_encoder(str(file))
    with pytest.raises(UsageError, match=r"--text_model=.*c\.onnx does not exist"):
        open_text_encoder(str(tmp_path / "c.onnx"))
    with pytest.raises(UsageError, match="should be an ONNX file"):
        open_text_encoder("clip")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tokenizers" else name)
    with pytest.raises(UsageError, match=r"pip install 'simimg-tf\[text\]'"):
        open_text_encoder(str(file))
