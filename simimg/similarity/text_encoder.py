"""The text encoder of a pair like CLIP's, from an ONNX file: texts as vectors among those of the pair's image encoder.

    --text_model=TEXT.onnx                                  the files say everything
    --text_model=TEXT.onnx,tokenizer=FILE,length=64,pad=1   they do not

    tokenizer  a `tokenizer.json` of the library tokenizers, with the tokens that begin and end a text; by default the
               file of this name beside the ONNX file
    length     tokens per text, up to which texts are padded, if the file leaves it open; by default that of the padding
               in tokenizer.json; without, they are not padded
    pad        id of the padding; by default that of tokenizer.json, or of pad_token in a `tokenizer_config.json` beside
    output     the name of the embedding, if several outputs could be one
    images     the ONNX file of the image encoder, which must be the one that made the index

The network takes ids, int32 or int64 `[n, length]`, and perhaps a mask of the same shape, whose name contains `mask`: 1
for a token, 0 for padding. It returns float `[n, dim]`. The same text may be in the file, in its metadata under the
name `simimg.text`, in which `images` is the SHA-256 of the image encoder's file; what is given has priority.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simimg.errors import ModelError, UsageError
from simimg.inference.network import onnx_model
from simimg.inference.onnx_contract import Tensor, embedding_output, split_model
from simimg.inference.onnx_network import onnx_digest, open_session, unit_embedding
from simimg.similarity.search_index import SearchIndex

if TYPE_CHECKING:
    import onnxruntime
    import tokenizers

METADATA = "simimg.text"

TEXT_MODEL_HELP = (
    "Text encoder of the pair whose image encoder made the index (extra `text`): an ONNX file and what it does not "
    "say, such as TEXT.onnx,tokenizer=FILE,pad=0."
)

MAX_LETTERS = 1000
"""Of a text; encoders take some dozen tokens."""

_KEYS = ("tokenizer", "length", "pad", "output", "images")
_ID_TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_INSTALL = "pip install 'simimg-tf[text]'"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """A text encoder. Thread-safe.

    Attributes:
        model: its file and what is given behind it.
        dim: of the vectors.
        images: the SHA-256 of the image encoder's file, or "" if it is not known.
        length: tokens per text; 0 if any number will do.
        pad: id of the padding.
        pads_left: whether it is before the tokens.
        inputs: of the network: the name and the dtype of the ids, and of the mask if there is one.
        output: the name of the embedding.
    """

    model: str
    dim: int
    images: str
    length: int
    pad: int
    pads_left: bool
    inputs: tuple[tuple[str, Any], ...]
    output: str
    session: onnxruntime.InferenceSession
    tokenizer: tokenizers.Tokenizer

    def embed(self, text: str) -> np.ndarray:
        """Return the vector of a text, float32 `[dim]` of L2 norm 1.

        Raises:
            UsageError: the text is empty, or too long for the network.
            ModelError: the network cannot compute it.
        """
        text = text.strip()
        if not text:
            raise UsageError("the text to search for is empty. Describe an image, as in 'red sailing boat'.")
        ids = self.tokenizer.encode(text).ids if len(text) <= MAX_LETTERS else None
        if ids is None or len(ids) > (self.length or MAX_LETTERS):
            raise UsageError(
                f"the text has {len(ids) if ids else 'too many'} tokens, and the model takes "
                f"{self.length or MAX_LETTERS}. Shorten it: {text[:40]}…"
            )
        if not ids:
            raise UsageError(f"the tokenizer knows no word of this text. Describe it in other words: {text[:40]}")
        return _vector(self, ids)

    def check(self, index: SearchIndex) -> None:
        """Raise UsageError if the index was not made by the image encoder of this pair, as far as that is known."""
        info, file = index.info, self.model
        made = f"--text_model={file}: {index.index_dir} was made with --model={info.model}"
        again = (
            "Make an index with the image encoder that belongs to it: simimg index --model=IMAGE.onnx --index_dir=PATH"
        )
        if onnx_model(info.model) is None:
            raise UsageError(f"{made}, which has no text encoder. {again}.")
        if (dim := index.embeddings.shape[1]) != self.dim:
            raise UsageError(f"{made}, whose vectors have {dim} numbers, and those of texts have {self.dim}. {again}.")
        if self.images and not info.model_fingerprint.startswith(self.images):
            raise UsageError(f"{made}, which is not the image encoder of this pair. {again}.")


def open_text_encoder(model: str) -> TextEncoder:
    """Return the text encoder of an ONNX file and what is given behind it, after it has computed one text.

    Raises:
        UsageError: a file or a library is missing, or something more has to be given.
        ModelError: a file is damaged, or the network does not take the ids of a text.
    """
    split = split_model(model)
    if split is None:
        raise UsageError(f"--text_model={model} should be an ONNX file, TEXT.onnx. {TEXT_MODEL_HELP}")
    file, given = split
    session, _, _ = open_session(file, "--text_model")
    stated = _parsed(session.get_modelmeta().custom_metadata_map.get(METADATA, ""), f"{file}: its metadata {METADATA}=")
    settings = _parsed(given, f"--text_model={file},")
    images = _images_digest(settings["images"]) if "images" in settings else stated.get("images", "").lower()
    settings = {**stated, **settings}
    inputs, length = _inputs(file, session.get_inputs())
    if length and int(settings.get("length", length)) != length:
        raise UsageError(f"--text_model={file}: it takes {length} tokens, not length={settings['length']}.")
    tokenizer_file = Path(settings.get("tokenizer") or Path(file).with_name("tokenizer.json"))
    tokenizer, padding = _tokenizer(file, tokenizer_file)
    length = length or int(settings.get("length") or padding.get("length") or 0)
    pad = int(settings["pad"]) if "pad" in settings else padding["pad_id"]
    if length and pad is None:
        raise UsageError(
            f"{tokenizer_file} does not say with which token short texts are padded to {length}. Give the id that the "
            f"authors of the model state, as in --text_model={','.join(filter(None, [file, given]))},pad=0."
        )
    encoder = TextEncoder(
        model=model,
        dim=0,
        images=images,
        length=length,
        pad=pad or 0,
        pads_left=padding.get("direction") == "left",
        inputs=inputs,
        output=embedding_output(f"--text_model={file}", session.get_outputs(), given, settings.get("output")),
        session=session,
        tokenizer=tokenizer,
    )
    return dataclasses.replace(encoder, dim=len(encoder.embed("a")))


def _vector(encoder: TextEncoder, ids: Sequence[int]) -> np.ndarray:
    num_pads = max(0, encoder.length - len(ids))
    before, after = (num_pads, 0) if encoder.pads_left else (0, num_pads)
    rows = ([encoder.pad] * before + [*ids] + [encoder.pad] * after, [0] * before + [1] * len(ids) + [0] * after)
    values = {name: np.array([row], dtype) for (name, dtype), row in zip(encoder.inputs, rows, strict=False)}
    vector = unit_embedding(
        encoder.session,
        encoder.output,
        values,
        file=encoder.model,
        what="text",
        size=f"{len(rows[0])} tokens",
        advice="If the number of tokens is open, give the one that it was trained with, as in length=77.",
    )
    return vector.astype(np.float32)


def _parsed(text: str, where: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, sign, value = part.partition("=")
        if not sign or not value or key not in _KEYS or key in values:
            raise UsageError(
                f"{where}{text}: {part!r} should be one of {', '.join(f'{key}=…' for key in _KEYS)}, once each."
            )
        if key in ("length", "pad") and not (value.isascii() and value.isdigit() and len(value) < 8):
            raise UsageError(f"{where}{text}: {part} should be a whole number, as in {key}=77.")
        values[key] = value
    if values.get("length") == "0":
        raise UsageError(f"{where}{text}: length=0 should be the number of tokens that the model takes, as in 77.")
    return values


def _images_digest(file: str) -> str:
    try:
        return onnx_digest(Path(file))
    except OSError as error:
        raise UsageError(f"--text_model=…,images={file} cannot be read: {error.strerror}.") from None


def _inputs(file: str, tensors: Sequence[Tensor]) -> tuple[tuple[tuple[str, Any], ...], int]:
    """Return names and dtypes of ids and mask, and the number of tokens, 0 if it is open."""
    described = ", ".join(f"{one.name} {one.type} {list(one.shape)}" for one in tensors)
    masks = [one for one in tensors if "mask" in one.name.lower()]
    ids = [one for one in tensors if one not in masks]
    fit = all(
        one.type in _ID_TYPES and len(one.shape) == 2 and one.shape[0] in (1, None, *_names(one)) for one in tensors
    )
    if len(ids) != 1 or len(masks) > 1 or not fit:
        raise ModelError(
            f"{file} takes {described or 'nothing'}; a text encoder takes ids, int32 or int64 [1, length], and perhaps "
            "a mask of the same shape. Export the text encoder of the pair alone, with a batch of 1 or an open batch."
        )
    length = ids[0].shape[1]
    return tuple((one.name, _ID_TYPES[one.type]) for one in (*ids, *masks)), length if isinstance(length, int) else 0


def _names(tensor: Tensor) -> list[str]:
    return [size for size in tensor.shape if isinstance(size, str)]


def _tokenizer(file: str, path: Path) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """Return a tokenizer that neither cuts nor pads, and what its files say of the padding; `pad_id` may be None."""
    if importlib.util.find_spec("tokenizers") is None:
        raise UsageError(f"--text_model={file} needs the library tokenizers, which is not installed. Run: {_INSTALL}")
    import tokenizers

    try:
        content = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}. Name the tokenizer.json that belongs "
            f"to the text encoder: --text_model={file},tokenizer=FILE."
        ) from None
    try:
        tokenizer = tokenizers.Tokenizer.from_str(content)
    except Exception as error:  # the library has no class of its own
        raise ModelError(f"{path} is no tokenizer.json: {error}.") from None
    padding = tokenizer.padding or {"pad_id": tokenizer.token_to_id(_pad_token(path))}
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer, padding


def _pad_token(path: Path) -> str:
    """Return the padding that tokenizer_config.json names, the text of a token or a mapping with it; "" for none."""
    try:
        values = json.loads(path.with_name("tokenizer_config.json").read_bytes())
    except (OSError, ValueError):
        return ""
    token = values.get("pad_token") if isinstance(values, Mapping) else None
    token = token.get("content") if isinstance(token, Mapping) else token
    return token if isinstance(token, str) else ""
