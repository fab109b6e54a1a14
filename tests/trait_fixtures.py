"""Drawn images with known labels, and the tasks of a Label Studio export that annotate them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

XML = """
<View>
  <Image name="image" value="$image"/>
  <Choices name="group" toName="image" choice="single">
    <Choice value="Disc"/><Choice value="Rod"/><Choice value="Ring"/>
    <Choice value="Cannot tell" role="not_assessable"/>
  </Choices>
  <View visibleWhen="choice-selected" whenTagName="group" whenChoiceValue="Disc">
    <Choices name="spot" toName="image" choice="single">
      <Choice value="with spot"/><Choice value="no spot"/>
    </Choices>
  </View>
  <Choices name="flags" toName="image" choice="multiple">
    <Choice value="dark"/><Choice value="noisy"/>
  </Choices>
  <Number name="diameter" toName="image" unit="px"/>
</View>
"""
GROUPS = ("Disc", "Rod", "Ring")


def draw(path: Path, group: str, spot: bool, diameter_px: int, rng: np.random.Generator) -> None:
    """One grey image with one thing in it, turned at random."""
    size = diameter_px + 12
    image = Image.new("L", (size, size), 230)
    pen = ImageDraw.Draw(image)
    box = (6, 6, size - 6, size - 6)
    if group == "Rod":
        middle = size // 2
        pen.rectangle((6, middle - 3, size - 6, middle + 3), fill=60)
        image = image.rotate(float(rng.uniform(0, 180)), fillcolor=230)
    elif group == "Ring":
        pen.ellipse(box, outline=60, width=4)
    else:
        pen.ellipse(box, fill=90)
        if spot:
            r = diameter_px // 5
            pen.ellipse((size // 2 - r, size // 2 - r, size // 2 + r, size // 2 + r), fill=250)
    noise = rng.normal(0, 8, size=(size, size))
    Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)).save(path)


def item(control: str, kind: str, value: Any) -> dict[str, Any]:
    """One item of a result."""
    return {"from_name": control, "to_name": "image", "type": kind, "value": {kind: value}}


def make_tasks(
    folder: Path,
    n: int,
    seed: int = 0,
    first: int = 0,
    shares: tuple[float, float, float] = (0.5, 0.3, 0.2),
    annotators: int = 1,
    blind_share: float = 0.0,
    samples: int = 0,
    wrong_if_blind: bool = False,
) -> list[dict[str, Any]]:
    """Draw n images into `folder` and return their annotated tasks.

    With `wrong_if_blind`, blind images bear the wrong group: a model that learns from them shows.
    """
    rng = np.random.default_rng(seed)
    tasks = []
    for number in range(first, first + n):
        group = str(rng.choice(GROUPS, p=shares))
        spot, diameter_px = bool(rng.random() < 0.5), int(rng.integers(16, 64))
        draw(folder / f"{number}.png", group, spot, diameter_px, rng)
        blind = bool(rng.random() < blind_share)
        annotations = []
        for annotator in range(annotators):
            said = group
            if annotator and rng.random() < 0.2:
                said = str(rng.choice(GROUPS))
            if blind and wrong_if_blind:
                said = GROUPS[(GROUPS.index(group) + 1) % 3]
            result = [item("group", "choices", [said]), item("diameter", "number", diameter_px)]
            if said == "Disc":
                result.append(item("spot", "choices", ["with spot" if spot else "no spot"]))
            annotations.append(
                {"id": number * 10 + annotator, "completed_by": annotator, "result": result}
            )
        data = {
            "image": f"/data/local-files/?d={number}.png",
            "image_id": f"image-{number}",
            "blind": "yes" if blind else "no",
        }
        if samples:
            data["sample_id"] = f"haul-{number % samples:03d}"
        tasks.append({"id": number, "data": data, "annotations": annotations})
    return tasks


def resolver(folder: Path) -> Any:
    """From an image URL to its path; refuses what leads out of the folder."""

    def resolve(url: str) -> Path:
        name = url.split("?d=")[-1]
        if "/" in name or ".." in name:
            raise ValueError(f"{url} leads outside {folder}")
        return folder / name

    return resolve
