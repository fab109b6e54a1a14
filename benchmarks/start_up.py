"""What a process spends on its imports: as it is, with everything at once, and the limit.

    python -m benchmarks.start_up

Processor seconds of a new Python that imports one of ours, medians of alternating rounds:

- now: as it is;
- at once: what `imported_later` and imports within functions put off is imported before, as the
  libraries do by themselves;
- limit: PyTorch alone, without which none of ours can answer; for Label Studio there is none.

A job that trains needs most of what is put off a little later, so it is not shown.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.machine import keep
from label_studio_config.home import Home
from label_studio_config.hosting import server_environment

STARTS = {
    "ML backend": "import ml_backend.server",
    "job that predicts": "import ml_backend.predict",
    "Label Studio": "import django; django.setup(); import core.urls",
}
PUT_OFF = {
    "ML backend": "import torch._dynamo.utils, jsf, scipy.optimize, sklearn.cluster",
    "job that predicts": "import torch._dynamo.utils, jsf, scipy.optimize",
    "Label Studio": "import nltk.tokenize.treebank, jsf",
}


def processor_s(code: str, environment: dict[str, str]) -> float:
    """Of a new Python that runs the code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    root = Path(__file__).parent.parent
    with tempfile.TemporaryDirectory() as scratch:
        ours = server_environment(Home(Path(scratch) / "home"))
        environment = os.environ | ours | {"PYTHONPATH": str(root)}
        times: dict[str, dict[str, list[float]]] = {name: {} for name in STARTS}
        for turn in range(rounds + 1):
            limit = processor_s("import torch", environment)
            for name, code in STARTS.items():
                seen = {
                    "now": processor_s(code, environment),
                    "at once": processor_s(f"{PUT_OFF[name]}; {code}", environment),
                }
                if name != "Label Studio":
                    seen["limit"] = limit
                for way, spent_s in seen.items():
                    if turn:  # the first reads the files from the disk
                        times[name].setdefault(way, []).append(spent_s)
    table = Table(title="Processor seconds of imports")
    for column in ("start of", "now", "at once", "limit", "now : at once"):
        table.add_column(column, justify="left" if column == "start of" else "right")
    figures = {}
    for name, ways in times.items():
        medians = {way: round(statistics.median(spent), 2) for way, spent in ways.items()}
        ratio = round(medians["now"] / medians["at once"], 2)
        table.add_row(
            name,
            *(
                f"{medians[way]:.2f}" if way in medians else ""
                for way in ("now", "at once", "limit")
            ),
            f"{ratio:.2f}",
        )
        figures[name] = {**medians, "ratio": ratio}
    Console().print(table)
    keep("start_up", figures)


if __name__ == "__main__":
    main()
