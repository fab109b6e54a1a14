"""How many objects an hour one person judges in the gallery, at which precision.

    python -m benchmarks.judging_throughput path/to/ndsb

A scripted annotator works through all held-out images of ndsb over real HTTP: page after page of 60
crops of one suggested label, the most certain first. Her limits are stated, not measured: 1.5 s to
look over a page, 1 s for each correction (select it, type the label); of the wrong suggestions on a
page she sees the share `--notices`, the others slip through. What the server takes to save is added
in full, what it takes for the next page only where it takes longer than she does: the gallery
fetches that meanwhile. MorphoCluster's figure is its authors': 16,000 objects an hour (Schröder et
al. 2020, Sensors 20, 3060), of 1.2 million images by clusters; other images, other people.

Beside it, the same with what the Data Manager's action does first: suggestions of a confidence of
`--sure` or more are accepted at once, unseen.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import circumstances
from benchmarks.ndsb import LABEL_SETS
from benchmarks.ndsb_project import NdsbProject, ndsb_project
from label_studio_config.server_tasks import fetch_tasks
from label_studio_config.votes import read_votes

RESULTS = Path(__file__).parent / "results" / "judging_throughput"
ON_A_PAGE = 60
LOOK_S = 1.5
CORRECT_S = 1.0
MORPHOCLUSTER_AN_HOUR = 16_000


@dataclass
class Work:
    """What the annotator did."""

    judged: int = 0
    corrected: int = 0
    pages: int = 0
    human_s: float = 0.0
    waited_s: float = 0.0
    saving_ms: list[float] = field(default_factory=list)
    page_ms: list[float] = field(default_factory=list)
    hours: float = 0.0

    @property
    def seconds(self) -> float:
        return self.human_s + self.waited_s


class Annotator:
    """Somebody who knows the truth, and sees most of what is wrong."""

    def __init__(self, known: NdsbProject, notices: float, seed: int = 0) -> None:
        self.known, self.notices = known, notices
        self.rng = np.random.default_rng(seed)
        self.work = Work()
        self.path = f"{known.home.settings.label_studio_url}/api/planktrait/projects"
        self.path += f"/{known.project.id}"

    def work_through(self) -> Work:
        """All suggestions, label by label, the label with the most images first."""
        for one in self._get("gallery/labels", state="suggested")[1]["labels"]:
            while self._one_page(one["label"]):
                pass
        return self.work

    def accept_sure(self, confidence: float) -> None:
        """As the Data Manager's action: one click, and the time until it has answered."""
        began = time.perf_counter()
        self.known.api.post(
            f"/api/dm/actions?id=accept_suggestions&project={self.known.project.id}",
            {"selectedItems": {"all": True, "excluded": []}, "confidence": confidence},
        )
        self.work.waited_s += time.perf_counter() - began

    def _one_page(self, label: str) -> bool:
        took_s, page = self._get(
            "gallery/page", label=label, state="suggested", order="certain", limit=ON_A_PAGE
        )
        crops = page["crops"]
        if not crops:
            return False
        judgements = [self._judge(crop) for crop in crops]
        corrections = sum("label" in one for one in judgements)
        human_s = LOOK_S + CORRECT_S * corrections
        body = {
            "control": "group",
            "judgements": judgements,
            "seen_at": page["seen_at"],
            "lead_time_s": human_s,
        }
        began = time.perf_counter()
        answer = self.known.session.post(f"{self.path}/judgements", json=body, timeout=60)
        saved_s = time.perf_counter() - began
        assert answer.json()["saved"] == len(crops), answer.text[:500]
        self.work.judged += len(crops)
        self.work.corrected += corrections
        self.work.pages += 1
        self.work.human_s += human_s
        # The next page is fetched while she looks at this one.
        self.work.waited_s += saved_s + max(0.0, took_s - human_s)
        self.work.saving_ms.append(1000 * saved_s)
        self.work.page_ms.append(1000 * took_s)
        return True

    def _judge(self, crop: dict[str, Any]) -> dict[str, Any]:
        truth = self.known.truth[crop["task"]]
        judgement = {"task": crop["task"], "prediction": crop["suggestion"]["prediction"]}
        if crop["suggestion"]["label"] != truth and self.rng.random() < self.notices:
            return {**judgement, "label": truth}
        return {**judgement, "accept": True}

    def _get(self, path: str, **query: Any) -> tuple[float, dict[str, Any]]:
        began = time.perf_counter()
        answer = self.known.session.get(f"{self.path}/{path}", params=query, timeout=60)
        assert answer.ok, answer.text[:500]
        return time.perf_counter() - began, answer.json()


def precision(known: NdsbProject) -> tuple[float, int]:
    """The share of the saved annotations that are right, and how many there are."""
    tasks = fetch_tasks(known.home, known.project.id, annotated_only=True)
    votes = read_votes(known.project.schema, list(tasks))
    truth = known.table.set_index("image")[LABEL_SETS[known.labels]]
    right = [
        labels == (truth[image_id],)
        for labels, image_id in zip(votes["labels"], votes["image_id"], strict=True)
    ]
    return sum(right) / len(right), len(right)


def measure(
    data: Path,
    labels: str,
    share: float,
    notices: float,
    sure: float | None,
    model: Path | None = None,
) -> None:
    """One way of working, from a fresh project; prints its line and writes its file."""
    with ndsb_project(data, labels, share, seed=0, model=model) as known:
        known.suggest()
        annotator = Annotator(known, notices)
        if sure is not None:
            annotator.accept_sure(sure)
        work = annotator.work_through()
        right, saved = precision(known)
    an_hour = 3600 * saved / work.seconds
    result = {
        "labels": labels,
        "share_of_labels": share,
        "notices": notices,
        "accepted_unseen_from": sure,
        "objects": saved,
        "objects_an_hour": round(an_hour),
        "precision": round(right, 4),
        "ratio_to_morphocluster": round(an_hour / MORPHOCLUSTER_AN_HOUR, 2),
        "pages": work.pages,
        "corrected": work.corrected,
        "human_s": round(work.human_s, 1),
        "waited_s": round(work.waited_s, 1),
        "saving_a_page_ms": round(statistics.median(work.saving_ms)),
        "next_page_ms": round(statistics.median(work.page_ms)),
        **circumstances(),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    unseen = "" if sure is None else f"-unseen-{sure:g}"
    name = f"{labels}-{100 * share:g}pct-notices-{notices:g}{unseen}.json"
    (RESULTS / name).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=lambda text: Path(text).resolve())
    parser.add_argument("--labels", choices=["groups", "classes"], default="groups")
    parser.add_argument("--share", type=float, default=0.1, help="of the labels, to train with")
    parser.add_argument("--notices", type=float, default=0.8, help="share of the wrong ones")
    parser.add_argument("--sure", type=float, help="accept these unseen first")
    parser.add_argument(
        "--model",
        type=Path,
        help="folder of a version trained with that share, instead of training",
    )
    arguments = parser.parse_args()
    measure(
        arguments.data,
        arguments.labels,
        arguments.share,
        arguments.notices,
        arguments.sure,
        arguments.model,
    )


if __name__ == "__main__":
    main()
