"""What is told of a photo, and its folder: only of indexed files, and only on the desktop of whoever asks."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from simimg.similarity.embeddings import Embedder
from simimg.similarity.search_index import SearchIndex
from simimg.web import ServedIndex, create_app, photo_details
from tests.simimg.web.conftest import HOST, TOKEN


def photo(tags: dict[int, Any], details: dict[int, Any], kind: str = "JPEG") -> bytes:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif.update(tags)
    exif.get_ifd(0x8769).update(details)
    Image.new("RGB", (40, 30)).save(buffer, kind, exif=exif)
    return buffer.getvalue()


def test_exif() -> None:
    details = {36867: "2021:05:04 10:11:12", 42036: "EF 35mm", 33434: 1 / 250, 33437: 2.8, 34855: 100, 37386: 35.0}
    found = photo_details.photo_details(photo({271: "Canon", 272: "Canon EOS 5D", 306: "2022:01:01 00:00:00"}, details))
    assert found == {
        "taken": "2021-05-04 10:11",
        "camera": "Canon EOS 5D",
        "lens": "EF 35mm",
        "exposure": "35 mm, f/2.8, 1/250 s, ISO 100",
    }
    found = photo_details.photo_details(photo({271: "NIKON", 272: "D850", 306: "2022:01:02 03:04:05"}, {33434: 2.5}))
    assert found == {"taken": "2022-01-02 03:04", "camera": "NIKON D850", "exposure": "2.5 s"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no image",
        photo({}, {}),
        photo({306: "0000:00:00 00:00:00"}, {33434: 0.0, 37386: 1e30}),
        photo({}, {}, "PNG"),
        photo({271: "Canon", 272: "EOS"}, {36867: "2021:05:04 10:11:12"})[:60],
    ],
)
def test_what_is_not_there_is_left_out(data: bytes) -> None:
    assert photo_details.photo_details(data) == {}


def test_text_of_a_camera_is_a_short_line() -> None:
    found = photo_details.photo_details(photo({271: "", 272: f"A\nB\x1b[31m{'x' * 200}"}, {}))
    assert found["camera"].startswith("A B [31mxx")
    assert len(found["camera"]) == 80


def test_a_folder_is_opened_only_in_a_desktop_session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[Any] = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: started.append((command, options)))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(photo_details.shutil, "which", lambda name: f"/usr/bin/{name}")
    for name in ("SSH_CONNECTION", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert photo_details.folder_opener(True) is None
    monkeypatch.setenv("DISPLAY", ":0")
    assert photo_details.folder_opener(False) is None
    opener = photo_details.folder_opener(True)
    assert opener is not None
    opener(tmp_path / "a; rm -rf b" / "1.jpg")
    ((command, options),) = started
    assert command == ("/usr/bin/xdg-open", str(tmp_path / "a; rm -rf b"))
    assert not options.get("shell")
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 1 10.0.0.2 22")
    assert photo_details.folder_opener(True) is None


@pytest.fixture
def opened() -> list[Path]:
    return []


@pytest.fixture
def asking(index: SearchIndex, embedder: Embedder, plan_path: Path, opened: list[Path]) -> Iterator[Any]:
    """A client of a server that can open folders."""
    app = create_app(ServedIndex(index, embedder, plan_path), token=TOKEN, opener=opened.append)
    with TestClient(app, base_url=f"http://{HOST}", cookies={"simimg-8765": TOKEN}) as client:
        yield client


def test_details_full_size_and_folder(
    asking: Any, client: Any, folder: Path, opened: list[Path], row_of: Callable[[str], int]
) -> None:
    row = row_of("old/1-large.jpg")
    found = asking.get(f"/api/details/{row}").json()
    assert found == {
        "file": str(folder / "old/1-large.jpg"),
        "details": {"taken": "2021-05-04 10:11", "camera": "ExampleCam"},
        "can_open": True,
    }
    full = asking.get(f"/api/full/{row}")
    assert full.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(full.content)) as image:
        assert (image.size, len(image.getexif())) == ((640, 480), 0)  # a new file: no metadata leaves the server
    assert asking.post(f"/api/open/{row}").json() == {"opened": str(folder / "old")}
    assert opened == [folder / "old/1-large.jpg"]
    assert client.get(f"/api/details/{row}").json()["can_open"] is False
    answer = client.post(f"/api/open/{row}")
    assert (answer.status_code, "in front of which you sit" in answer.json()["error"]) == (409, True)
    for path in ("details/99", "full/99", "full/-1"):
        assert asking.get(f"/api/{path}").status_code == 404
    assert asking.post("/api/open/99").status_code == 404
    assert asking.get(f"/api/open/{row}").status_code == 405
    assert asking.post(f"/api/open/{row}", headers={"origin": "http://evil.example"}).status_code == 403
    assert len(opened) == 1


def test_a_file_that_was_edited_or_is_gone_is_not_opened(
    scene: Callable[..., Image.Image], embedder: Embedder, tmp_path: Path, opened: list[Path]
) -> None:
    from simimg.similarity.index_update import index_folder

    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(2):
        scene(seed).save(photos / f"{seed}.png")
    index = index_folder(tmp_path / "index", photos, embedder).index
    (photos / "0.png").unlink()
    scene(5).save(photos / "1.png")
    app = create_app(ServedIndex(index, embedder, tmp_path / "plan.json"), token=TOKEN, opener=opened.append)
    with TestClient(app, base_url=f"http://{HOST}", cookies={"simimg-8765": TOKEN}) as client:
        assert "is gone" in client.post("/api/open/0").json()["error"]
        assert "was changed" in client.get("/api/full/1").json()["error"]
        assert "was changed" in client.get("/api/details/1").json()["error"]
    assert opened == []


def test_a_part(asking: Any, row_of: Callable[[str], int]) -> None:
    row = row_of("dogs/3.jpg")
    made = asking.post("/api/part", json={"row": row, "box": [0.25, 0.25, 1, 1]}).json()
    with Image.open(io.BytesIO(asking.get(f"/api/query/{made['query']}").content)) as image:
        assert image.size == (made["width"], made["height"])
    again = asking.post("/api/part", json={"query": made["query"], "box": [0, 0, 0.5, 0.5]}).json()
    assert abs(2 * again["width"] - made["width"]) <= 2
    answer = asking.get("/api/search", params={"query": made["query"], "k": 3})
    assert answer.status_code == 200
    for values, status in (
        ({"row": row, "box": [0.5, 0, 0.5, 1]}, 422),
        ({"row": row, "box": [0, 0, 1.1, 1]}, 422),
        ({"row": row, "box": [0, 0, True, 1]}, 422),
        ({"row": row, "box": [0, 0, 0.01, 1]}, 422),
        ({"row": row, "box": [0, 0, float("nan"), 1]}, 422),
        ({"row": 99, "box": [0, 0, 1, 1]}, 400),
        ({"row": True, "box": [0, 0, 1, 1]}, 400),
        ({"query": "unknown", "box": [0, 0, 1, 1]}, 404),
        ([], 422),
    ):
        body = json.dumps(values)  # nan included
        assert asking.post("/api/part", content=body).status_code == status, values
