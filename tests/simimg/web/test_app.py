"""The page's server as a browser asks it: matches and reasons, and what is refused."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from starlette.testclient import TestClient

from simimg.errors import UsageError
from simimg.similarity.embeddings import Embedder
from simimg.similarity.search_index import SearchIndex
from simimg.web import ServedIndex, create_app
from simimg.web.query_cache import MAX_BYTES, MAX_PIXELS
from simimg.web.served_index import addresses

Scene = Callable[..., Image.Image]


def jpeg(image: Image.Image, quality: int = 60) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def matches_of(client: Any, **asked: Any) -> list[dict[str, Any]]:
    """The lines of a search."""
    answer = client.get("/api/search", params=asked)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def upload(client: Any, data: bytes) -> str:
    answer = client.post("/api/query", content=data)
    assert answer.status_code == 201, answer.text
    return answer.json()["query"]


def test_an_edited_copy_finds_its_original_with_the_reason(
    client: Any, scene: Scene, row_of: Callable[[str], int]
) -> None:
    name = upload(client, jpeg(ImageOps.mirror(scene(3)), 40))
    first, *_, last, end = matches_of(client, query=name, k=5)
    assert all(match["reason"] is None and match["similarity"] <= 0.5 for match in first["matches"])  # looks alone
    assert end["final"]
    assert not last["final"]
    match = last["matches"][0]
    assert match["row"] == row_of("dogs/3.jpg")
    assert match["similarity"] > 0.9
    assert match["reason"].startswith("mirrored, JPEG about quality 4")
    # Where the query lies: its left edge is the match's right one.
    assert match["place"] == pytest.approx([-1, 0, 1, 0, 1, 0], abs=0.02)
    shown = Image.open(io.BytesIO(client.get(f"/api/query/{name}").content))
    assert shown.format == "JPEG"
    assert shown.size == (320, 240)


def test_a_row_finds_its_copies_and_not_itself(client: Any, row_of: Callable[[str], int]) -> None:
    row = row_of("cats/0.jpg")
    *_, last, _ = matches_of(client, row=row, k=20)
    rows = [match["row"] for match in last["matches"]]
    assert row not in rows
    assert len(rows) == 14
    assert rows[:2] == [row_of("old/0-bytes.jpg"), row_of("old/0-mirrored.jpg")]
    assert last["matches"][0]["reason"] == "the same pixels"


def test_filters_and_kind(client: Any, index: SearchIndex, row_of: Callable[[str], int]) -> None:
    *_, last, _ = matches_of(client, row=row_of("dogs/1.jpg"), k=20, label="old")
    labels = {index.images[match["row"]].label for match in last["matches"]}
    assert labels == {"old"}
    assert last["matches"][0]["row"] == row_of("old/1-large.jpg")
    *_, last, _ = matches_of(client, row=0, k=20, label="nobody")
    assert last["matches"] == []
    assert matches_of(client, row=0, k=20, split="test")[-2]["matches"] == []
    only, end = matches_of(client, row=0, k=3, by="kind")
    assert end["final"]
    assert all(match["reason"] is None for match in only["matches"])


def test_several_indexes_and_descriptions(
    index: SearchIndex, embedder: Embedder, row_of: Callable[[str], int], tmp_path: Path
) -> None:
    row = row_of("dogs/3.jpg")
    others = [
        SearchIndex.open(Path(shutil.copytree(index.index_dir, tmp_path / name))) for name in ("a/my pets", "photos")
    ]

    class Described:
        def embed(self, text: str) -> np.ndarray:
            if text == "nothing":
                raise UsageError("the text to search for is empty.")
            return np.float32(index.embeddings[row])

    text: Any = Described()
    for folders, expected in (
        (["q", "a b", "a-b"], ["/", "/i/a-b/", "/i/a-b-2/"]),
        (["x/a", "y/a", "z/a-2"], ["/", "/i/a-2/", "/i/a-2-2/"]),
    ):
        named = [dataclasses.replace(index, index_dir=Path(folder)) for folder in folders]
        assert addresses([ServedIndex(one, embedder, tmp_path / "plan.json") for one in named]) == expected
    served = [ServedIndex(one, embedder, tmp_path / "plan.json", text) for one in others]
    app = create_app(ServedIndex(index, embedder, tmp_path / "plan.json"), *served, token="5ec2e7")
    with TestClient(app, base_url="http://127.0.0.1:8765", cookies={"simimg-8765": "5ec2e7"}) as client:
        known = client.get("/api/indexes").json()
        assert [one["address"] for one in known] == ["/", "/i/my-pets/", "/i/photos-2/"]
        assert [one["name"] for one in known] == ["photos", "my pets", "photos"]
        assert client.get("/i/my-pets/").text == client.get("/").text
        assert client.get("/i/nobody/api/collection").status_code == 404
        assert [client.get(f"{one['address']}api/collection").json()["has_text"] for one in known] == [
            False,
            True,
            True,
        ]
        (found,) = [
            line for line in client.get("/i/my-pets/api/search?text=boat&k=3").text.splitlines() if "matches" in line
        ]
        best, *_ = json.loads(found)["matches"]
        assert (best["row"], best["similarity"], best["copy"]) == (row, pytest.approx(1, abs=2e-3), False)
        found = client.get("/i/my-pets/api/search?text=boat&k=20&folder=old").text.splitlines()[0]
        assert {index.images[match["row"]].path[:4] for match in json.loads(found)["matches"]} == {"old/"}
        assert client.get("/i/my-pets/api/search?text=boat&folder=ol").text.splitlines()[0].endswith('"matches": []}')
        assert client.get("/i/my-pets/api/search?text=nothing").status_code == 422
        assert "--text_model=TEXT.onnx" in client.get("/api/search?text=boat").json()["error"]


def test_requests_at_the_same_time_are_answered_as_one_after_another(client: Any, index: SearchIndex) -> None:
    rows = list(range(len(index.images)))
    alone = [matches_of(client, row=row, k=3)[-2]["matches"] for row in rows]
    with ThreadPoolExecutor(8) as executor:
        together = list(executor.map(lambda row: matches_of(client, row=row, k=3)[-2]["matches"], rows))
    assert together == alone


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"row": "-1"}, 400),
        ({"row": "15"}, 400),
        ({"row": "1e3"}, 400),
        ({"row": "²"}, 400),
        ({"row": "9" * 5000}, 400),
        ({"row": 0, "k": 0}, 400),
        ({"row": 0, "k": 501}, 400),
        ({"row": 0, "by": "magic"}, 400),
        ({"query": "nobody"}, 404),
        ({"query": "../../etc/passwd"}, 404),
        ({}, 404),
    ],
)
def test_wrong_questions_have_a_sentence(client: Any, asked: dict[str, Any], status: int) -> None:
    answer = client.get("/api/search", params=asked)
    assert answer.status_code == status
    assert answer.json()["error"].endswith(".")


@pytest.mark.parametrize(
    "path",
    ["/api/thumbnail/15", "/api/picture/999999999999999999999", "/api/thumbnail/-1", "/api/thumbnail/../../etc/passwd",
     "/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/",
     "/etc/passwd", "/api/thumbnail/dogs%2f1.jpg", "/static/index.html/../../app.py"],
)  # fmt: skip
def test_nothing_but_rows_and_the_page_is_served(client: Any, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (404, 405)
    assert answer.json()["error"]


def test_the_page_is_there_and_loads_nothing_from_elsewhere(client: Any) -> None:
    front = client.get("/")
    assert front.status_code == 200
    assert front.headers["content-type"].startswith("text/html")
    static = Path(create_app.__code__.co_filename).with_name("static")
    for file in static.iterdir():
        answer = client.get(f"/static/{file.name}")
        assert answer.status_code == 200
        assert answer.content == file.read_bytes()
        assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in answer.text
        for unsafe in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert unsafe not in answer.text, file.name


def test_the_collection_is_described(client: Any, index: SearchIndex, folder: Path) -> None:
    values = client.get("/api/collection").json()
    assert values["name"] == "photos"
    assert values["labels"] == ["cats", "dogs", "old"]
    assert values["path"] == index.images.column("path").tolist()
    assert [values["labels"][number] for number in values["label"]] == index.images.column("label").tolist()
    assert str(folder) not in json.dumps(values)


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises a size that its pixels do not have."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"not a picture", 415),
        (b"\xff\xd8\xff\xe0" + bytes(100), 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        (b"%!PS-Adobe-3.0", 415),
        (png_of(200, 100), 415),
        (png_of(9000, 9000), 413),
        (png_of(100_000, 100_000), 413),
    ],
)
def test_bad_uploads_have_a_4xx_and_a_sentence(client: Any, data: bytes, status: int) -> None:
    answer = client.post("/api/query", content=data)
    assert answer.status_code in (status, 415 if status == 413 else status)
    assert answer.json()["error"].endswith(".")
    assert MAX_PIXELS < 9000 * 9000


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(place=st.integers(0, 3000), value=st.integers(0, 255), length=st.integers(1, 4000))
def test_damaged_pictures_are_answered(client: Any, scene: Scene, place: int, value: int, length: int) -> None:
    data = bytearray(jpeg(scene(0, (64, 48)), 80))
    data[place % len(data)] = value
    answer = client.post("/api/query", content=bytes(data[:length]))
    assert answer.status_code in (201, 413, 415)
    assert answer.status_code == 201 or answer.json()["error"]


def test_an_upload_has_a_most_and_leaves_no_file(client: Any, scene: Scene, index: SearchIndex, tmp_path: Path) -> None:
    answer = client.post("/api/query", content=bytes(MAX_BYTES + 1))
    assert answer.status_code == 413
    assert "32 MB" in answer.json()["error"]
    before = sorted(index.index_dir.rglob("*"))
    disposition = {"content-disposition": 'attachment; filename="../../evil.jpg"'}
    assert client.post("/api/query", content=jpeg(scene(2)), headers=disposition).status_code == 201
    assert sorted(index.index_dir.rglob("*")) == before
    assert not list(tmp_path.iterdir())


def test_only_the_last_queries_are_kept(client: Any, scene: Scene) -> None:
    names = [upload(client, jpeg(scene(seed, (32, 24)))) for seed in range(8)]
    assert len(set(names)) == 8
    assert client.get(f"/api/query/{names[0]}").status_code == 404
    assert client.get(f"/api/query/{names[-1]}").status_code == 200


def test_other_origins_may_neither_search_nor_write(client: Any, scene: Scene) -> None:
    evil = {"origin": "http://evil.example"}
    assert client.post("/api/query", content=jpeg(scene(2)), headers=evil).status_code == 403
    assert client.put("/api/plan", json={"version": "", "groups": []}, headers=evil).status_code == 403
    assert client.post("/api/review", json={"threshold": 0.9}, headers=evil).status_code == 403
    assert client.get("/api/thumbnail/0", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.get("/api/collection", headers={"host": "evil.example:8765"}).status_code == 421


def test_the_model_has_to_be_that_of_the_index(index: SearchIndex, plan_path: Path) -> None:
    other = Embedder("eight", "0" * 64, 32, "stretch", 192, lambda pixels: pixels)
    with pytest.raises(Exception, match="whose weights have changed since"):
        create_app(ServedIndex(index, other, plan_path), token="5ec2e7")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("HEAD", "/"), ("GET", "/static/app.js"), ("GET", "/api/collection"), ("GET", "/api/thumbnail/0"),
     ("GET", "/api/picture/0"), ("GET", "/api/search?row=0"), ("GET", "/api/pair?row=0&with=1"), ("GET", "/api/map"),
     ("GET", "/api/review"), ("POST", "/api/review"), ("POST", "/api/query"), ("PUT", "/api/plan"), ("GET", "/nowhere"),
     ("OPTIONS", "/api/plan")],
)  # fmt: skip
def test_who_does_not_know_the_token_sees_nothing(client: Any, plan_path: Path, method: str, path: str) -> None:
    client.cookies.clear()
    content = json.dumps({"version": "", "groups": [{"keep": 0, "remove": [1]}], "threshold": 0.9})
    answer = client.request(method, path, content=content if method in ("POST", "PUT") else None)
    assert answer.status_code == 403
    assert method == "HEAD" or "the address that simimg serve printed" in answer.json()["error"]
    assert not plan_path.exists()


def test_the_address_opens_the_page_and_its_cookie_all_that_it_shows(client: Any, index: SearchIndex) -> None:
    client.cookies.clear()
    assert client.get("/?token=5ec2e7").text.startswith("<!DOCTYPE html>")
    assert client.get("/static/app.js").status_code == 200
    assert len(client.get("/api/collection").json()["path"]) == len(index.images)
    assert client.get("/api/thumbnail/0").headers["content-type"] == "image/jpeg"
    assert client.put("/api/plan", json={"version": "", "groups": []}).status_code == 200


def test_a_threshold_is_shown_as_precisely_as_similarities(
    index: SearchIndex, embedder: Embedder, plan_path: Path
) -> None:
    calibrated = dataclasses.replace(index, info=dataclasses.replace(index.info, thresholds={"copy": 0.873412345}))
    app = create_app(ServedIndex(calibrated, embedder, plan_path), token="5ec2e7")
    with TestClient(app, base_url="http://127.0.0.1:8765", cookies={"simimg-8765": "5ec2e7"}) as client:
        assert client.get("/api/collection").json()["thresholds"] == {"copy": 0.8734}
        assert client.get("/api/review").json()["threshold"] == 0.8734


def test_the_map_comes_when_it_is_laid_out(client: Any, index: SearchIndex) -> None:
    for _ in range(200):
        values = client.get("/api/map").json()
        if "x" in values:
            break
        assert values["state"] == "running"
    assert len(values["x"]) == len(values["y"]) == len(index.images)
    assert all(0 <= value <= 1 for value in values["x"] + values["y"])


def test_a_pair_is_compared(client: Any, row_of: Callable[[str], int]) -> None:
    pair = {"row": row_of("old/0-mirrored.jpg"), "with": row_of("cats/0.jpg")}
    values = client.get("/api/pair", params=pair).json()
    assert values["reason"].startswith("mirrored")
    assert values["place"] == pytest.approx([-1, 0, 1, 0, 1, 0], abs=0.02)
    nothing = client.get("/api/pair", params={"row": row_of("cats/2.jpg"), "with": row_of("cats/0.jpg")}).json()
    assert nothing == {"similarity": None, "reason": None, "place": None, "differs": []}
