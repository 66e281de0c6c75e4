"""An Example is what protobuf and TensorFlow take it for, in minimal and in padded form."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tfrecords.format.example import decode_example, encode_example
from tfrecords.format.record import varint

INT64 = st.integers(-(2**63), 2**63 - 1)
FEATURES = st.dictionaries(st.text(max_size=12), st.one_of(INT64, st.binary(max_size=200)), max_size=6)
MANY = settings(max_examples=80)


@given(FEATURES)
@MANY
def test_round_trip(features: dict[str, int | bytes]) -> None:
    assert decode_example(encode_example(features)) == features


@given(st.dictionaries(st.text(max_size=8), st.one_of(st.integers(0, 2**35 - 1), st.binary(max_size=200))))
@MANY
def test_padded_round_trip(features: dict[str, int | bytes]) -> None:
    assert decode_example(encode_example(features, int_bytes=5)) == features


@given(INT64)
@MANY
def test_ten_bytes_hold_every_integer(value: int) -> None:
    assert decode_example(encode_example({"x": value}, int_bytes=10)) == {"x": value}


@given(FEATURES)
@MANY
def test_order_of_the_keys_does_not_matter(features: dict[str, int | bytes]) -> None:
    backwards = dict(reversed(features.items()))
    assert encode_example(backwards) == encode_example(features)


def test_varints() -> None:
    """The first three are from protobuf's encoding guide; -1 is ten bytes there too."""
    assert varint(1) == b"\x01"
    assert varint(150) == b"\x96\x01"
    assert varint(86942) == b"\x9e\xa7\x05"
    assert varint(-1) == b"\xff" * 9 + b"\x01"
    assert varint(0, 5) == b"\x80\x80\x80\x80\x00"
    assert varint(150, 2) == b"\x96\x01"
    assert varint(150, 3) == b"\x96\x81\x00"


@given(st.integers(0, 2**35 - 1), st.integers(5, 10))
@MANY
def test_padded_varints_have_their_length(value: int, num_bytes: int) -> None:
    padded = varint(value, num_bytes)
    assert len(padded) == num_bytes
    assert all(byte & 0x80 for byte in padded[:-1])
    assert padded[-1] < 0x80


@pytest.mark.parametrize(("value", "num_bytes"), [(128, 1), (2**35, 5), (-1, 9), (2**63, None), (-(2**63) - 1, None)])
def test_integers_that_do_not_fit_are_shown(value: int, num_bytes: int | None) -> None:
    with pytest.raises(ValueError, match=f"value={value}$"):
        varint(value, num_bytes)


def test_protobuf_reads_the_same(tf: Any) -> None:
    @given(FEATURES, st.sampled_from([None, 10]))
    @settings(max_examples=60)
    @example({"": b"", "x": -1}, None)
    @example({"id": -(2**63), "image": b"\0" * 300, "label": 2**63 - 1}, 10)
    def check(features: dict[str, int | bytes], int_bytes: int | None) -> None:
        message = tf.train.Example.FromString(encode_example(features, int_bytes=int_bytes))
        found = {
            key: (value.bytes_list.value[0] if value.HasField("bytes_list") else value.int64_list.value[0])
            for key, value in message.features.feature.items()
        }
        assert found == features

    check()


def test_minimal_form_is_protobufs_deterministic_one(tf: Any) -> None:
    """Keys of one length: of two keys that begin alike, protobuf's C implementation has the longer one first."""

    @given(st.dictionaries(st.text("abcéz벌", min_size=2, max_size=2), st.one_of(INT64, st.binary(max_size=200))))
    @settings(max_examples=60)
    @example({"id": 2**40, "image": b"\0" * 300, "label": -1})
    def check(features: dict[str, int | bytes]) -> None:
        data = encode_example(features)
        assert tf.train.Example.FromString(data).SerializeToString(deterministic=True) == data

    check()


@pytest.mark.parametrize("int_bytes", [None, 5, 10])
def test_parse_single_example_reads_the_same(tf: Any, int_bytes: int | None) -> None:
    features = {"id": 2**35 - 1, "image": bytes(range(256)), "label": 0}
    spec = {
        "id": tf.io.FixedLenFeature([], tf.int64),
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }
    found = tf.io.parse_single_example(encode_example(features, int_bytes=int_bytes), spec)
    assert {key: value.numpy() for key, value in found.items()} == features
    found = tf.io.parse_example([encode_example(features, int_bytes=int_bytes)], spec)
    assert {key: value.numpy()[0] for key, value in found.items()} == features


def test_reads_unpacked_integers_as_old_writers_wrote_them() -> None:
    unpacked = b"\x1a\x02\x08\x07"  # Feature{int64_list{value: 7}} with the value as a varint field
    entry = b"\x0a\x01x\x12\x04" + unpacked
    features = b"\x0a" + bytes([len(entry)]) + entry
    assert decode_example(b"\x0a" + bytes([len(features)]) + features) == {"x": 7}


@given(st.binary(max_size=80))
@settings(max_examples=200)
def test_any_bytes_are_decoded_or_a_value_error(data: bytes) -> None:
    try:
        features = decode_example(data)
    except ValueError:
        return
    assert decode_example(encode_example(features)) == features


def test_truncation_at_every_byte_is_an_error_or_empty() -> None:
    data = encode_example({"id": 300, "image": b"pixels"})
    assert decode_example(b"") == {}
    for length in range(1, len(data)):
        with pytest.raises(ValueError, match="ends inside"):
            decode_example(data[:length])


def test_lists_and_floats_are_errors(tf: Any) -> None:
    def message(**feature: Any) -> bytes:
        return tf.train.Example(
            features=tf.train.Features(feature={"x": tf.train.Feature(**feature)})
        ).SerializeToString()

    for data in (
        message(float_list=tf.train.FloatList(value=[1.0])),
        message(int64_list=tf.train.Int64List(value=[1, 2])),
        message(bytes_list=tf.train.BytesList(value=[b"a", b"b"])),
        message(bytes_list=tf.train.BytesList(value=[])),
        message(),
    ):
        with pytest.raises(ValueError, match="feature 'x' should"):
            decode_example(data)
