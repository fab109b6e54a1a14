"""The action "Suggest labels" beside Label Studio's own "Retrieve predictions", in the same run.

    python -m benchmarks.suggest_labels path/to/ndsb --tasks 5000

Both ask the same backend and the same model for the same kind of images, decoded from their files;
ours is timed from the click until the job has ended and every suggestion is in Label Studio and in
the gallery's index. Then both once more, where every task has its suggestion already.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import circumstances
from benchmarks.ndsb_project import NdsbProject, ndsb_project

RESULTS = Path(__file__).parent / "results" / "suggest_labels.json"
RETRIEVED = 500


def act(known: NdsbProject, action: str, ids: list[int]) -> tuple[float, dict[str, Any]]:
    """Seconds until the action's answer, and the answer."""
    items = {"all": False, "included": ids}
    if len(ids) == len(known.names):
        items = {"all": True, "excluded": []}
    began = time.perf_counter()
    path = f"/api/dm/actions?id={action}&project={known.project.id}"
    answer = known.api.post(path, {"selectedItems": items})
    return time.perf_counter() - began, answer


def suggested(known: NdsbProject, ids: list[int]) -> int:
    """How many of the tasks have a suggestion."""
    path = f"/api/planktrait/projects/{known.project.id}/tasks"
    wanted, found, after = set(ids), 0, 0
    while True:
        page = known.api.get(path, full=0, limit=5000, after=after)["tasks"]
        found += sum(task["id"] in wanted and task["total_predictions"] > 0 for task in page)
        if len(page) < 5000:
            return found
        after = page[-1]["id"]


def measure(data: Path, n_tasks: int, model: Path | None = None) -> dict[str, Any]:
    """Images a second of both, and their ratios."""
    with ndsb_project(data, "groups", 0.1, 0, n_images=n_tasks, model=model) as known:
        ids = sorted(known.names)
        theirs, ours = ids[:RETRIEVED], ids[RETRIEVED:]
        known.api.get(f"/api/planktrait/projects/{known.project.id}/gallery")
        retrieved_s, _ = act(known, "retrieve_tasks_predictions", theirs)
        assert suggested(known, theirs) == len(theirs), "Retrieve predictions did not save all"
        asked_s, answer = act(known, "suggest_labels", ours)
        job_s = known.wait_for(answer["job"])
        assert suggested(known, ours) == len(ours)
        again_theirs_s, _ = act(known, "retrieve_tasks_predictions", theirs)
        again_s, answer = act(known, "suggest_labels", ours)
        assert "job" not in answer, answer
    rates = {
        "retrieve_a_second": len(theirs) / retrieved_s,
        "suggest_a_second": len(ours) / (asked_s + job_s),
        "retrieve_again_a_second": len(theirs) / again_theirs_s,
        "suggest_again_a_second": len(ours) / again_s,
    }
    return {
        "retrieved": len(theirs),
        "suggested": len(ours),
        **{name: round(rate, 1) for name, rate in rates.items()},
        "until_the_answer_s": round(asked_s, 2),
        "job_s": round(job_s, 2),
        "ratio": round(rates["suggest_a_second"] / rates["retrieve_a_second"], 1),
        "ratio_where_there": round(rates["suggest_again_a_second"] / rates["retrieve_a_second"], 1),
        "ratio_where_there_to_theirs": round(
            rates["suggest_again_a_second"] / rates["retrieve_again_a_second"], 1
        ),
        **circumstances(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=lambda text: Path(text).resolve())
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--model", type=Path, help="a version's folder, instead of training one")
    arguments = parser.parse_args()
    result = measure(arguments.data, arguments.tasks, arguments.model)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
