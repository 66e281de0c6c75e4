"""How fast the search page opens, and how evenly it scrolls, with many images: measured in Chromium, with a trace.

    python -m benchmarks.page_speed FOLDER [--num_images=100000] [--num_findings=10000]

Makes an index of small JPEGs in FOLDER, once, with random vectors, class folders and findings. `simimg serve` is
started for it, and Chromium opens the page. `started` is the time from the start of the command to its address, and
`opened` that from the request of the page to its first tiles; `images` is that to the first image on the screen. On a
machine with other work, these times say little, so the processor time is there, too: that of the server, from its start
to the first image, and that of the page's main thread. Then
the collection and the findings are scrolled by the browser's own gesture at 3,000 px/s, and the frames are those of
DevTools' trace: the intervals between frames that were displayed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from benchmarks.chromium import address_of, open_browser, served, wait_until

__all__ = ["main"]

_WAIT_S = 120
_SCROLL_PX, _SPEED = 30_000, 3_000
_CLASSES, _FOLDERS = 25, 400
_FRAMES = "devtools.timeline,disabled-by-default-devtools.timeline.frame,disabled-by-default-display.framedisplayed"
_WATCH = """
(() => {
  const look = () => {
    if (document.querySelector('.tile')) window.opened ??= performance.now();
    if (document.querySelector('.tile img.there')) { window.images = performance.now(); return; }
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})();
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Makes the index, measures, and prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--num_images", type=int, default=100_000)
    parser.add_argument("--num_findings", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(argv)
    folder = options.folder.resolve()
    index_dir = folder / f"index-{options.num_images}"
    if not (index_dir / "index.json").exists():
        _make(folder / f"photos-{options.num_images}", index_dir, options.num_images, options.num_findings)
    results: dict[str, Any] = {"num_images": options.num_images, "load": round(os.getloadavg()[0], 1), "opened": []}
    driver = _browser()
    try:
        for _ in range(options.repeats):
            start = time.perf_counter()
            with served(index_dir) as server:
                url = address_of(server)
                started = time.perf_counter() - start
                driver.get(url)
                wait_until(driver, "window.images", _WAIT_S)
                opened, images = driver.execute_script("return [opened, images]")
                total = time.perf_counter() - start
                used = psutil.Process(server.pid).cpu_times()
                metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
                (tasks,) = [one["value"] for one in metrics if one["name"] == "TaskDuration"]
                results["opened"].append(
                    {
                        "started_s": started, "opened_s": opened / 1000, "images_s": images / 1000, "all_s": total,
                        "server_processor_s": used.user + used.system, "page_processor_s": tasks,
                    }
                )  # fmt: skip
                driver.get("about:blank")
        with served(index_dir) as server:
            url = address_of(server)
            for view, tile in (("", ".tile img.there"), ("audit", ".finding img.there")):
                driver.get("about:blank")
                driver.get(f"{url}#/{view}")
                wait_until(driver, f"document.querySelector('{tile}')", _WAIT_S)
                results[f"scrolling_{view or 'collection'}"] = _scrolled(driver)
    finally:
        sys.stdout.write(json.dumps(results, indent=1, default=float) + "\n")
        sys.stdout.flush()
        driver.quit()


def _scrolled(driver: Any) -> dict[str, Any]:
    """Scroll at full speed; return what the trace says about the frames, in ms."""
    gesture = {"x": 300, "y": 500, "yDistance": -_SCROLL_PX, "speed": _SPEED, "gestureSourceType": "mouse"}
    events = _traced(driver, lambda: driver.execute_cdp_cmd("Input.synthesizeScrollGesture", gesture))
    times = np.sort([one["ts"] for one in events if one["name"] == "Display::FrameDisplayed"]) / 1000
    gaps = np.diff(times)
    script = [one["dur"] / 1000 for one in events if one["name"] == "FireAnimationFrame" and "dur" in one]
    return {
        "num_frames": len(times),
        "seconds": (times[-1] - times[0]) / 1000,
        "median_ms": np.median(gaps),
        "p95_ms": np.quantile(gaps, 0.95),
        "longest_ms": gaps.max(),
        "share_below_25_ms": (gaps < 25).mean(),
        "median_script_ms": np.median(script) if script else 0.0,
        "longest_script_ms": max(script, default=0.0),
        "num_elements": driver.execute_script("return document.querySelectorAll('.tile').length"),
        "scrolled_px": driver.execute_script("return scrollY"),
    }


def _traced(driver: Any, work: Callable[[], object]) -> list[dict[str, Any]]:
    """Return the events of DevTools' trace while `work` runs; WebDriver itself hands out no trace."""
    import websocket

    address = driver.capabilities["goog:chromeOptions"]["debuggerAddress"]
    with urllib.request.urlopen(f"http://{address}/json/version") as answer:
        url = json.load(answer)["webSocketDebuggerUrl"]
    connection = websocket.create_connection(url, suppress_origin=True, timeout=_WAIT_S)
    config = {"includedCategories": _FRAMES.split(",")}
    asked = {"id": 1, "method": "Tracing.start", "params": {"transferMode": "ReportEvents", "traceConfig": config}}
    connection.send(json.dumps(asked))
    while "id" not in (answered := json.loads(connection.recv())):
        pass
    if "error" in answered:
        raise SystemExit(f"the trace was not started: {answered['error']}")
    work()
    connection.send(json.dumps({"id": 2, "method": "Tracing.end"}))
    events: list[dict[str, Any]] = []
    while (message := json.loads(connection.recv())).get("method") != "Tracing.tracingComplete":
        if message.get("method") == "Tracing.dataCollected":
            events += message["params"]["value"]
    connection.close()
    return events


def _browser() -> Any:
    driver = open_browser("--window-size=1280,900")
    driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _WATCH})
    return driver


def _make(image_dir: Path, index_dir: Path, num_images: int, num_findings: int) -> None:
    """Write small JPEGs, which differ in the bytes behind their end, and an index with random vectors."""
    from simimg.health.audited_images import AuditedImages
    from simimg.health.collection_audit import Audit
    from simimg.health.finding import Finding
    from simimg.health.findings_file import save_findings
    from simimg.similarity.embeddings import load_embedder
    from simimg.similarity.image_table import IndexedImage, size_and_time
    from simimg.similarity.search_index import write_generation

    rng = np.random.default_rng(0)
    contents = []
    for _ in range(512):
        buffer = io.BytesIO()
        coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8))
        coarse.resize((160, 120), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=60)
        contents.append(buffer.getvalue())
    images = []
    for number in range(num_images):
        label = f"class {number % _CLASSES}"
        path = f"{label}/{number % _FOLDERS:03d}/IMG_{number:06d}.jpg"
        file = image_dir / path
        file.parent.mkdir(parents=True, exist_ok=True)
        data = contents[number % len(contents)] + str(number).encode()
        file.write_bytes(data)
        num_bytes, modified_ns = size_and_time(file.stat())
        images.append(
            IndexedImage(
                path=path, sha256=hashlib.sha256(data).hexdigest(), num_bytes=num_bytes, modified_ns=modified_ns,
                width=160, height=120, phash=int(rng.integers(1, 1 << 62)), label=label,
            )
        )  # fmt: skip
    embedder = load_embedder("lite0")
    embeddings = rng.normal(size=(num_images, embedder.dim)).astype(np.float16)
    for start in range(0, num_images, 8192):
        some = embeddings[start : start + 8192].astype(np.float32)
        embeddings[start : start + 8192] = some / np.linalg.norm(some, axis=1, keepdims=True)
    index_dir.mkdir(parents=True)
    index = write_generation(index_dir, embedder, embeddings, images, image_dir=image_dir)
    kinds, reason = ("label", "outlier", "blurred"), "a reason that is as long as usual ones are"
    findings = [
        Finding(
            kind=kinds[3 * number // num_findings], path=one.path, label=one.label, reason=reason,
            score=1 - number / num_images, suggestion="class 1" if 3 * number < num_findings else "",
            evidence=(images[number - 1].path,),
        )
        for number, one in enumerate(images[:num_findings])
    ]  # fmt: skip
    save_findings(index, Audit(tuple(findings), num_images, AuditedImages.of_index(index)))


if __name__ == "__main__":
    main(sys.argv[1:])
