"""Names in archives that are not UTF-8."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources import open_source
from tfrecords.convert.sources.name_encodings import rate_encodings

WORDS = {
    "cp949": "고양이 강아지 코끼리 뻐꾸기 사과나무 기린 새폴더 불량 정상 긁힘",
    "cp932": "猫 犬 うさぎ ライオン 写真 新しいフォルダー 表 不良 りんご 能",
    "gbk": "熊猫 老虎 照片 新建文件夹 训练 向日葵 郁金香 苹果 缺陷 划痕",
    "big5": "熊貓 老虎 相片 新增資料夾 訓練 向日葵 獅子 蘋果 功能 瑕疵",
    "cp866": "кошка собака Новая_папка Фото щенок",
    "cp437": "Möwe Bär Käfer Vögel café señor Frühling",
}


def pack_zip(path: Path, names: list[bytes], *, system: int = 0, extra: bytes = b"") -> str:
    """Writes a zip whose names are these bytes, without the flag of UTF-8."""
    data = b""
    directory = b""
    for number, name in enumerate(names):
        content = b"%d" % number
        crc, size = zlib.crc32(content), len(content)
        local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, crc, size, size, len(name), 0)
        directory += struct.pack(
            "<4s4B4H3L5H2L", b"PK\1\2", 20, system, 20, 0, 0, 0, 0, 0, crc, size, size, len(name), len(extra), 0, 0, 0,
            0, len(data),
        ) + name + extra  # fmt: skip
        data += local + name + content
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(names), len(names), len(directory), len(data), 0)
    path.write_bytes(data + directory + end)
    return str(path)


@pytest.mark.parametrize("encoding", WORDS)
@pytest.mark.parametrize("kind", ["zip", "tar", "windows"])
def test_the_encoding_is_guessed_and_said(tmp_path: Path, encoding: str, kind: str) -> None:
    names = [f"{word}/{number}.jpg" for word in WORDS[encoding].split() for number in (1, 2)]
    raw = [name.encode(encoding) for name in names]
    if kind == "tar":
        path = str(tmp_path / "a.tar")
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT, encoding=encoding) as archive:
            for name in names:
                archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    else:
        if kind == "windows":  # half of some characters is a backslash, too
            raw = [name.replace(b"/", b"\\") for name in raw]
        path = pack_zip(tmp_path / "a.zip", raw)
    source = open_source(path)
    assert set(source.class_names) == set(WORDS[encoding].split())
    assert sorted(source.paths) == sorted(names)
    assert f"are not UTF-8 and were read as {encoding}" in source.notes[0]
    assert source.notes[0].endswith("--zip_encoding= names another encoding")
    assert source.places is not None
    content = source.files.read(source.paths[0], tuple(source.places[0].tolist()))
    assert content == (b"" if kind == "tar" else b"%d" % names.index(source.paths[0]))


@pytest.mark.parametrize("encoding", WORDS)
def test_two_classes_are_enough(encoding: str) -> None:
    words = WORDS[encoding].split()
    wrong = []
    for first in words:
        for second in words:
            raw = [word.encode(encoding) for word in {first, second}]
            if first != second and not all(_is_utf8(word) for word in raw):
                wrong += [(first, second)] if rate_encodings(raw)[0][1] != encoding else []
    assert len(wrong) <= len(words) * (len(words) - 1) // 20, wrong


def _is_utf8(data: bytes) -> bool:
    try:
        return bool(data.decode())
    except UnicodeDecodeError:
        return False


def test_a_given_encoding(tmp_path: Path) -> None:
    path = pack_zip(tmp_path / "a.zip", ["狼/1.jpg".encode("gbk"), "面包/2.jpg".encode("gbk")])
    assert "or perhaps" in open_source(path).notes[0]  # two words that may be Korean as well
    source = open_source(path, zip_encoding="gbk")
    assert (set(source.class_names), source.notes) == ({"狼", "面包"}, ())
    with pytest.raises(UsageError, match=r"--zip_encoding=utf-8: the name .* is not utf-8\. Leave the flag out"):
        open_source(path, zip_encoding="utf-8")


def test_utf8_comes_first(tmp_path: Path) -> None:
    names = ["고양이/1.jpg", "é/2.jpg", "猫/3.jpg"]
    path = pack_zip(tmp_path / "a.zip", [name.encode() for name in names])
    assert set(open_source(path).paths) == set(names)
    assert open_source(path).notes == ()
    assert open_source(path, zip_encoding="cp949").notes == ("--zip_encoding=cp949 is not needed: all names are UTF-8",)
    with zipfile.ZipFile(tmp_path / "flag.zip", "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    assert set(open_source(str(tmp_path / "flag.zip")).paths) == set(names)


def test_a_name_that_is_utf8_by_chance_is_decoded_as_the_others(tmp_path: Path) -> None:
    chance = "짜/1.jpg".encode("cp949")
    assert _is_utf8(chance)
    path = pack_zip(tmp_path / "a.zip", [chance, "고양이/2.jpg".encode("cp949"), "강아지/3.jpg".encode("cp949")])
    assert set(open_source(path).class_names) == {"짜", "고양이", "강아지"}


def test_one_broken_name_changes_no_others(tmp_path: Path) -> None:
    names = [b"caf\xe9/1.jpg", "é/2.jpg".encode(), "à/3.jpg".encode()]
    assert set(open_source(pack_zip(tmp_path / "a.zip", names)).class_names) == {"caf\\xe9", "é", "à"}


def test_the_unicode_path_of_info_zip(tmp_path: Path) -> None:
    raw = b"?/1.jpg"
    text = "고양이/1.jpg".encode()
    field = struct.pack("<BL", 1, zlib.crc32(raw)) + text
    extra = struct.pack("<2H", 0x7075, len(field)) + field
    assert open_source(pack_zip(tmp_path / "a.zip", [raw], extra=extra)).class_names == ("고양이",)
    assert open_source(pack_zip(tmp_path / "b.zip", [b"x/1.jpg"], extra=extra)).class_names == ("x",)  # of another name


def test_names_in_no_known_encoding_stay_and_are_told(tmp_path: Path) -> None:
    source = open_source(pack_zip(tmp_path / "a.zip", [b"\xfe\xb3\xdb/1.jpg", b"a/2.jpg"]))
    assert source.class_names == ("a", "\\xfe\\xb3\\xdb")
    assert "in no encoding that was recognized, and are shown as \\xNN; give it as --zip_encoding=" in source.notes[0]


@pytest.mark.parametrize("encoding", ["klingon", "base64", "a\0b"])
def test_encodings_that_do_not_exist(encoding: str) -> None:
    from tfrecords.convert.plan.convert_config import ConvertConfig

    with pytest.raises(UsageError, match=r"there is no such encoding\. Common are cp949, cp932, gbk"):
        ConvertConfig(image_dir="a.zip", zip_encoding=encoding)


@pytest.mark.parametrize("kind", ["flag", "field", "pax"])
@pytest.mark.parametrize("encoding", ["", "cp949"])
def test_names_that_the_archive_says_are_utf8_stay(tmp_path: Path, kind: str, encoding: str) -> None:
    korean = ["고양이/1.jpg", "강아지/2.jpg", "나비/3.jpg", "사과/4.jpg"]
    declared = "caf\u00e9/\u00e9t\u00e9.jpg"
    path = str(tmp_path / ("a.tar" if kind == "pax" else "a.zip"))
    if kind == "pax":
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT, encoding="cp949") as archive:
            for name in korean:
                archive.addfile(tarfile.TarInfo(name), io.BytesIO())
            archive.format = tarfile.PAX_FORMAT
            archive.addfile(tarfile.TarInfo(declared), io.BytesIO())
    else:
        raw = [*(name.encode("cp949") for name in korean), declared.encode()]
        pack_zip(Path(path), raw)
        data = bytearray(Path(path).read_bytes())
        at = data.rindex(b"PK\1\2")
        if kind == "flag":
            data[at + 9] |= 0x08
        else:
            extra = struct.pack("<BL", 1, zlib.crc32(raw[-1])) + raw[-1]
            extra = struct.pack("<2H", 0x7075, len(extra)) + extra
            end = at + 46 + len(raw[-1])
            data[at + 30 : at + 32] = struct.pack("<H", len(extra))
            data[end:end] = extra
            tail = data.rindex(b"PK\5\6")
            size = struct.unpack_from("<L", data, tail + 12)[0] + len(extra)
            data[tail + 12 : tail + 16] = struct.pack("<L", size)
        Path(path).write_bytes(data)
    assert set(open_source(path, zip_encoding=encoding).paths) == {*korean, declared}


def test_a_name_that_is_utf8_need_not_fit_the_given_encoding(tmp_path: Path) -> None:
    names = ["고양이/1.jpg", "강아지/2.jpg", "\u00df\u00dfa/3.jpg"]
    raw = [name.encode(encoding) for name, encoding in zip(names, ("euc_kr", "euc_kr", "utf-8"), strict=True)]
    path = pack_zip(tmp_path / "a.zip", raw)
    with pytest.raises(UnicodeDecodeError):
        raw[-1].decode("euc_kr")
    assert set(open_source(path, zip_encoding="euc_kr").paths) == set(names)
