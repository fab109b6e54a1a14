"""Many crops in one picture: what lies where, at which scale, and what is never read."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tests.gallery_fixtures import new_gallery

__all__ = ["new_gallery"]

pytestmark = pytest.mark.slow


def fetch(gallery, tasks, **query):
    """The picture as an array, and the cells by task."""
    query["tasks"] = ",".join(map(str, tasks))
    response = gallery.call("GET", "gallery/sprite", params=query)
    assert response.ok, response.text
    assert response.headers["Content-Type"] == "image/webp"
    assert "private" in response.headers["Cache-Control"]
    assert "Cookie" in response.headers["Vary"]
    plan = gallery.get("gallery/sprite-map", **query)
    picture = Image.open(io.BytesIO(response.content))
    assert picture.size == (plan["width"], plan["height"])
    return np.asarray(picture.convert("RGB")).astype(int), {c["task"]: c for c in plan["cells"]}


def cut(picture, cell):
    return picture[cell["y"] : cell["y"] + cell["height"], cell["x"] : cell["x"] + cell["width"]]


def test_crops_keep_their_scale_and_do_not_overlap(new_gallery):
    gallery = new_gallery(40)
    picture, cells = fetch(gallery, gallery.tasks)
    assert list(cells) == gallery.tasks
    taken = np.zeros(picture.shape[:2], dtype=int)
    for i, task in enumerate(gallery.tasks):
        cell = cells[task]
        assert (cell["width"], cell["height"]) == (20 + i % 7, 30 + i % 11)
        assert cell["shrunk"] == 1
        cut(taken, cell)[:] += 1
        name = gallery.task(task)["data"]["image_id"] if i < 3 else None
        if name:
            path = next(gallery.server.images_root.rglob(f"*/{name}.png"))
            folder = gallery.task(task)["data"]["image"].split("=")[1].split("/")[0]
            path = gallery.server.images_root / folder / f"{name}.png"
            there = np.asarray(Image.open(path)).astype(int)
            assert abs(cut(picture, cell)[..., 0] - there).mean() < 6
    assert taken.max() == 1


def test_large_crops_are_shrunk_and_colour_stays(new_gallery):
    gallery = new_gallery(0)
    root = gallery.server.images_root / f"sprites-{gallery.project.id}"
    root.mkdir()
    Image.new("RGB", (640, 320), (200, 30, 30)).save(root / "red.jpg")
    Image.new("L", (20, 20), 90).save(root / "grey.png")
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(root / "clear.png")
    deep = np.full((16, 16), 2000, dtype=np.uint16)
    deep[:8] = 500
    Image.fromarray(deep).save(root / "deep.tif")
    names = ["red.jpg", "grey.png", "clear.png", "deep.tif"]
    tasks = gallery.load([{"image": f"/data/local-files/?d={root.name}/{n}"} for n in names])
    picture, cells = fetch(gallery, tasks, most_px=160)
    red = cells[tasks[0]]
    assert (red["width"], red["height"], red["shrunk"]) == (160, 80, 4)
    assert np.abs(cut(picture, red).mean((0, 1)) - (200, 30, 30)).max() < 8
    assert abs(cut(picture, cells[tasks[1]]).mean() - 90) < 5
    assert cut(picture, cells[tasks[2]]).mean() > 250
    halves = cut(picture, cells[tasks[3]]).mean((1, 2))
    assert halves[12] > 250
    assert 40 < halves[3] < 90


def test_what_cannot_be_shown_is_a_crossed_box(new_gallery):
    gallery = new_gallery(1)
    other = new_gallery(1)
    root = gallery.server.images_root / f"broken-{gallery.project.id}"
    root.mkdir()
    (root / "broken.png").write_bytes(b"not an image")
    (root / "secret.txt").write_text("secret")
    outside = gallery.server.images_root.parent / "outside.png"
    Image.new("L", (8, 8)).save(outside)
    (root / "link.png").symlink_to(outside)
    addresses = [
        *(
            f"/data/local-files/?d={root.name}/{n}"
            for n in ("broken.png", "none.png", "secret.txt")
        ),
        f"/data/local-files/?d={root.name}/link.png",
        "/data/local-files/?d=../outside.png",
        "https://example.org/image.png",
    ]
    tasks = gallery.load([{"image": address} for address in addresses])
    asked = [gallery.tasks[0], *tasks, other.tasks[0], 10**12]
    picture, cells = fetch(gallery, asked)
    assert "problem" not in cells[gallery.tasks[0]]
    for task in asked[1:]:
        assert cells[task]["problem"], task
        assert str(gallery.server.images_root) not in cells[task]["problem"]
        assert cut(picture, cells[task]).std() > 10
    crops = gallery.page(suggested=0)["crops"]
    assert [crop["width_px"] for crop in crops] == [20, 0, 0, 0, 0, 0, 0]


def test_the_request_is_checked(new_gallery):
    gallery = new_gallery(1)
    for query in (
        {},
        {"tasks": "x"},
        {"tasks": "1", "most_px": "5000"},
        {"tasks": "1", "most_px": "1"},
        {"tasks": ",".join(map(str, range(1, 202)))},
    ):
        assert gallery.call("GET", "gallery/sprite", params=query).status_code == 400
