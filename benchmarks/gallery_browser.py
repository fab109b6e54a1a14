"""How smoothly the gallery scrolls in Chromium at N tasks.

    python -m benchmarks.gallery_scale --tasks 700000 --folder HOME    # makes the project, once
    python -m benchmarks.gallery_browser --folder HOME

Chromium, 1280 × 800, drawing in software. The wheel turns by 300 px every 40 ms for `--seconds`;
told are the times between two pictures (16.7 ms is a screen's own pace), how many elements the page
held at most, and how often the end of what was loaded was reached, where a person waits.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

from benchmarks.gallery_scale import serving
from benchmarks.machine import circumstances
from label_studio_config.api import Api
from label_studio_config.home import Home
from label_studio_config.project import find_project
from tests.browser_fixtures import chromium_path

RESULTS = Path(__file__).parent / "results" / "gallery_browser"
STEP_PX, STEP_S = 300, 0.04
WATCH = """() => {
  window.deltas = [];
  let last = performance.now();
  const note = (now) => {
    window.deltas.push(now - last);
    last = now;
    requestAnimationFrame(note);
  };
  requestAnimationFrame(note);
}"""
AT_END = """(selector) => {
  const box = document.querySelector(selector);
  return box.scrollHeight - box.scrollTop - box.clientHeight < 2;
}"""
REQUESTS = """(kind) => performance.getEntriesByType('resource')
  .filter((one) => new URL(one.name).pathname.endsWith(kind))
  .map((one) => one.duration)"""


def scroll(page: Page, seconds: float, box: str, cells: str) -> dict[str, Any]:
    """Turn the wheel over the middle of the page; what it was like."""
    page.mouse.move(760, 450)
    page.evaluate(WATCH)
    end = time.monotonic() + seconds
    waited = steps = most = 0
    while time.monotonic() < end:
        page.mouse.wheel(0, STEP_PX)
        time.sleep(STEP_S)
        steps += 1
        if steps % 10 == 0:
            waited += bool(page.evaluate(AT_END, box))
            most = max(most, page.locator(cells).count())
    frames = np.array(page.evaluate("window.deltas")[2:])
    return {
        "frames_ms": {
            "median": round(float(np.median(frames)), 1),
            "95 %": round(float(np.percentile(frames, 95)), 1),
            "most": round(float(frames.max())),
        },
        "share_over_50_ms": round(float((frames > 50).mean()), 3),
        "at_the_end": f"{waited} of {steps // 10} looks",
        "most_elements": most,
        "scrolled_px": page.evaluate("(s) => document.querySelector(s).scrollTop", box),
    }


def measure(home: Home, project_id: int, seconds: float) -> dict[str, Any]:
    """The gallery; then the first rows of the Data Manager."""
    url = home.settings.label_studio_url
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium_path(), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{url}/user/login/")
        page.fill("input[name=email]", home.secrets.user_email)
        page.fill("input[name=password]", home.secrets.user_password)
        page.click("button[type=submit]")
        page.wait_for_url(lambda at: "/user/login" not in at)

        began = time.perf_counter()
        page.goto(f"{url}/planktrait/projects/{project_id}/gallery")
        page.wait_for_selector(".cell.painted", timeout=120_000)
        first_s = time.perf_counter() - began
        gallery = scroll(page, seconds, "#mosaic", "#mosaic .cell")
        gallery["first_crops_s"] = round(first_s, 2)
        for name, kind in (("pages", "gallery/page"), ("sprites", "gallery/sprite")):
            took = page.evaluate(REQUESTS, kind)
            gallery[name] = {"requests": len(took), "median_ms": round(float(np.median(took)))}
        gallery["heap_mb"] = round(page.evaluate("performance.memory?.usedJSHeapSize ?? 0") / 2**20)

        began = time.perf_counter()
        page.goto(f"{url}/projects/{project_id}/data")
        page.wait_for_selector(".lsf-select-row", timeout=120_000)
        rows_s = time.perf_counter() - began
        browser.close()
    return {"gallery": gallery, "data_manager_first_rows_s": round(rows_s, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="as given to gallery_scale")
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    with serving("sqlite", arguments.folder) as home:
        project = find_project(home, "At scale")
        measured = measure(home, project.id, arguments.seconds)
        tasks = Api(home).get(f"/api/projects/{project.id}/")["task_number"]
    result = {
        "tasks": tasks,
        **measured,
        **circumstances(),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "sqlite.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
