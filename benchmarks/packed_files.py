"""Reading 10,000 images from files of their own, and from shards of `planktrait pack`.

    python -m benchmarks.packed_files path/to/ndsb

Both ways read the same bytes in the same random order in one thread, alternating; medians. The
files are in the page cache of a local disk, so what differs is what opening costs. A parallel file
system asks a server for each opening; how many are saved is stated, its time is not measured here.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.ndsb import manifest_of, read_table
from hpc_jobs.whole_files import write_text
from label_studio_config.pack import pack
from label_studio_config.packed import open_image
from label_studio_config.sources import read_source

RESULT = Path(__file__).parent / "results" / "packed_files.json"
IMAGES = 10_000
ROUNDS = 5


def read_all(paths: list[Path]) -> float:
    """Seconds to read every image."""
    began_s = time.perf_counter()
    for path in paths:
        with open_image(path) as file:
            file.read()
    return time.perf_counter() - began_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of ndsb, with labels.csv")
    data = parser.parse_args().data.resolve()
    table = read_table(data).sample(IMAGES, random_state=0)
    single = manifest_of(table, data)
    with tempfile.TemporaryDirectory() as scratch:
        began_s = time.perf_counter()
        packed = pack(single, scratch)
        packing_s = time.perf_counter() - began_s
        together, _ = read_source(packed.folder)
        order = np.random.default_rng(0).permutation(IMAGES)
        ways = {
            name: [paths[row] for row in order]
            for name, paths in (("single", single.paths), ("packed", together.paths))
        }
        bytes_packed = sum(path.stat().st_size for path in Path(scratch).iterdir())
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS + 1):
            for name, paths in ways.items():
                seconds[name].append(read_all(paths))
    medians = {name: float(np.median(taken[1:])) for name, taken in seconds.items()}
    result = {
        "images": IMAGES,
        "seconds": {name: round(value, 3) for name, value in medians.items()},
        "ratio": round(medians["single"] / medians["packed"], 2),
        "files_opened": {"single": IMAGES, "packed": packed.shards},
        "bytes": {"single": sum(p.stat().st_size for p in single.paths), "packed": bytes_packed},
        "packing_s": round(packing_s, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    print(json.dumps(result, indent=1))
    write_text(RESULT, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
