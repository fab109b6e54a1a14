"""The machine that a benchmark ran on, and what its processes hold."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpc_jobs.whole_files import write_text

MB = 1e6
RESULTS = Path(__file__).parent / "results"


def circumstances() -> dict[str, Any]:
    """What a result says of where and when it was measured."""
    return {
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "processor": processor(),
    }


def processor() -> str:
    """What the machine calls its processor, with the family and model that say which it is."""
    told = dict(
        line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line
    )
    known = {key.strip(): value.strip() for key, value in told.items()}
    numbers = ", ".join(f"{key} {known[key]}" for key in ("cpu family", "model") if key in known)
    return f"{known.get('model name', 'unknown')} ({numbers})"


def keep(name: str, figures: Mapping[str, Any]) -> None:
    """Write `results/NAME.json`; what it knows of other figures stays."""
    path = RESULTS / f"{name}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    RESULTS.mkdir(exist_ok=True)
    kept = {**known, **{key: {"figures": made, **circumstances()} for key, made in figures.items()}}
    write_text(path, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def family(pid: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in children.read_text().split():
                yield from family(int(child))
        except OSError:
            continue


def share_of_memory_mb(pid: int) -> float:
    """Proportional set size: pages that processes share are divided between them.

    Raises
    ------
    OSError
        The process has ended.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    (pss,) = [line for line in lines if line.startswith("Pss:")]
    return int(pss.split()[1]) * 1024 / MB
