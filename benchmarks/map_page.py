"""How smoothly the map of features is drawn at N points, and how quickly its colours are answered.

    python -m benchmarks.map_page --points 700000

The page is the real one, in Chromium, 1280 × 800; a small server in this program answers for Label
Studio with points in clouds, one a label. Without a GPU Chromium draws in software (SwiftShader):
the renderer is printed. A picture is begun only when the one before has been drawn, so that the
time from one to the next is that of a frame, input and drawing together.

The colours are asked of a real Label Studio (SQLite) whose index has N rows; it has no tasks.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import requests
from django.conf import settings
from django.template import Context, Engine

from benchmarks.gallery_fill import LABELS, VERSION, config
from benchmarks.machine import keep
from benchmarks.map_fill import label_numbers
from label_studio_config.home import Home
from label_studio_config.hosting import server_environment, start_in_background
from label_studio_config.processes import free_port
from label_studio_config.project import create_project

STATIC = Path(__file__).parents[1] / "label_studio_config" / "plugin" / "static" / "planktrait"
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
DRAG_S = 4.0
REPEATS = 5

NOTED = """() => {
  const { prototype } = WebGL2RenderingContext;
  const draw = prototype.drawArrays;
  window.drawings = [];
  prototype.drawArrays = function (kind, first, count) {
    window.drawings.push([performance.now(), first, count]);
    draw.call(this, kind, first, count);
  };
}"""
WHOLE = "document.querySelector('#view-map canvas').ariaBusy === 'false'"
CHOOSE = """() => {
  const began = performance.now();
  document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'a', bubbles: true }));
  return Math.round(performance.now() - began);
}"""
RENDERER = """() => {
  const gl = document.createElement('canvas').getContext('webgl2');
  const told = gl.getExtension('WEBGL_debug_renderer_info');
  return gl.getParameter(told ? told.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
}"""


def answers(n: int) -> dict[str, bytes]:
    """What the API answers, by the end of its address."""
    rng = np.random.default_rng(0)
    label = label_numbers(n, rng)
    centres = rng.uniform(-1, 1, (len(LABELS), 2))
    spread = rng.uniform(0.02, 0.12, (len(LABELS), 1))
    places = centres[label] + rng.normal(size=(n, 2)) * spread[label]
    task = np.arange(1, n + 1)
    header = {
        "n": n,
        "labels": LABELS,
        "states": ["suggested", "open", "accepted", "mine", "others", "conflicting"],
        "complete": True,
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 4)
    confidence = (rng.beta(4, 1, n) * 254).astype("u1")
    parts = (task.astype("<u4"), (label + 1).astype("<u2"), confidence, np.zeros(n, "u1"))
    colours = struct.pack("<I", len(text)) + text + b"".join(part.tobytes() for part in parts)
    points = places.T.astype("<f4").tobytes() + task.astype("<u4").tobytes()
    names = [{"name": label, "hotkey": None} for label in LABELS]
    gallery = {
        "project": {"id": 1, "title": "At scale", "votes_wanted": 1},
        "user": {"id": 1, "email": "anna@example.org"},
        "model_version": VERSION,
        "controls": [{"name": "group", "title": "Group", "labels": names, "not_assessable": []}],
        "control": "group",
        "samples": [],
        "depth_m": None,
        "annotators": [],
        "complete": True,
        "has_images": True,
        "has_suggestions": True,
    }
    state = {"made_at": "2026-01-01T12:00:00+00:00", "n": n, "new": 0, "job": None}
    page = {"crops": [], "next": None, "seen_at": state["made_at"]}
    told: dict[str, Any] = {"gallery": gallery, "map/state": state, "gallery/page": page}
    told["gallery/index"] = {"tasks": n, "suggestions": n, "complete": True, "mended": 0}
    told["gallery/labels"] = {"labels": [], "open": 0}
    as_bytes = {name: json.dumps(answer).encode() for name, answer in told.items()}
    return {**as_bytes, "map": points, "map/colours": colours}


@contextmanager
def page_server(n: int) -> Iterator[str]:
    """The address of the gallery, whose API has n points."""
    api = answers(n)
    if not settings.configured:
        settings.configure()
    page = Engine(dirs=[str(STATIC)]).get_template("gallery.html")
    html = page.render(Context({"project_id": "1", "version": "v", "csrf_token": ""}))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            name = path.rsplit("/", 1)[-1]
            kind, content = "application/octet-stream", None
            if path.startswith("/api/"):
                content = api.get(path.split("/projects/1/", 1)[-1])
            elif name == "gallery":
                kind, content = "text/html; charset=utf-8", html.encode()
            elif (STATIC / name).is_file():
                kind = TYPES[Path(name).suffix]
                content = (STATIC / name).read_bytes()
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *words: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/planktrait/projects/1/gallery"
    finally:
        server.shutdown()
        server.server_close()


def measure_page(n: int, screenshot: Path | None) -> dict[str, Any]:
    """Times in Chromium, in ms; with the name of what draws."""
    from playwright.sync_api import sync_playwright

    from tests.browser_fixtures import WINDOW, chromium_path

    with page_server(n) as address, sync_playwright() as playwright:
        arguments = ["--no-sandbox", *(["--disable-gpu"] if os.getuid() == 0 else [])]
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=arguments)
        page = browser.new_page(viewport=WINDOW)  # type: ignore[arg-type]
        drawn = "document.querySelector('#view-map canvas')?.dataset.window"
        started = time.perf_counter()
        page.goto(f"{address}?tab=map")
        page.wait_for_function(drawn, timeout=120_000)
        result: dict[str, Any] = {"points": n, "renderer": page.evaluate(RENDERER)}
        result["first drawn, ms"] = round((time.perf_counter() - started) * 1000)
        page.wait_for_function(WHOLE, timeout=120_000)
        result["all points drawn, ms"] = round((time.perf_counter() - started) * 1000)
        if screenshot:
            page.screenshot(path=screenshot)
        page.evaluate(NOTED)
        result |= _drag(page)
        result["choose all in the window, ms"] = page.evaluate(CHOOSE)
        result["chosen"] = page.locator(".map-bar .selected").inner_text()
        browser.close()
    return result


def _drag(page: Any) -> dict[str, Any]:
    """Pictures while the mouse drags the map to and fro, and until it is whole again."""
    page.mouse.move(700, 400)
    page.mouse.down()
    end, turn = time.perf_counter() + DRAG_S, 0
    while time.perf_counter() < end:
        turn += 1
        page.mouse.move(700 + 150 * np.sin(turn / 15), 400 + 90 * np.cos(turn / 11))
    page.mouse.up()
    released = page.evaluate("performance.now()")
    page.wait_for_function(WHOLE, timeout=120_000)
    whole = page.evaluate("performance.now()")
    begun = [(at, count) for at, first, count in page.evaluate("window.drawings") if first == 0]
    # In the first second the size of a part is found.
    settled = [(at, count) for at, count in begun if at > begun[0][0] + 1000]
    took = np.diff([at for at, _ in settled]).tolist()
    return {
        "pictures while dragged": len(settled),
        "from one to the next, ms": _median(took),
        "95 % within, ms": round(sorted(took)[int(0.95 * len(took))], 1),
        "points in each": round(statistics.median(count for _, count in settled)),
        "whole again after, ms": round(whole - released),
    }


def measure_colours(n: int) -> dict[str, Any]:
    """The median of the server's answers with the colours of n tasks, in ms."""
    with tempfile.TemporaryDirectory(prefix="map-page-") as name:
        folder = Path(name)
        home = Home(folder / "home")
        images = folder / "images"
        images.mkdir()
        ports = free_port(), free_port()
        with start_in_background(
            home, images_root=images, workers=1, port=ports[0], backend_port=ports[1]
        ):
            project = create_project(home, "At scale", config())
            root = str(Path(__file__).parents[1])
            subprocess.run(
                [sys.executable, "-m", "benchmarks.map_fill", str(project.id), str(n)],
                env={**server_environment(home), "PYTHONPATH": root},
                check=True,
            )
            url = f"{home.settings.label_studio_url}/api/planktrait/projects/{project.id}"
            headers = {"Authorization": f"Token {home.secrets.api_token}"}
            took = []
            for _ in range(REPEATS + 1):
                started = time.perf_counter()
                answer = requests.get(f"{url}/map/colours", headers=headers, timeout=300)
                took.append((time.perf_counter() - started) * 1000)
                assert answer.ok, answer.text[:1000]
            size = len(answer.content)
    return {"colours of the server, ms": _median(took[1:]), "megabytes": round(size / 1e6, 1)}


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--points", type=int, default=700_000)
    parser.add_argument("--only", choices=["page", "server"])
    parser.add_argument("--screenshot", type=Path, help="of the page, PNG")
    given = parser.parse_args()
    parts = {
        "page": lambda: measure_page(given.points, given.screenshot),
        "server": lambda: measure_colours(given.points),
    }
    for name, measure in parts.items():
        if given.only in (None, name):
            told = measure()
            print(json.dumps(told, indent=2), flush=True)
            keep("map_page", {f"{name}, {given.points} points": told})
    print(f"cores {os.cpu_count()}, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
