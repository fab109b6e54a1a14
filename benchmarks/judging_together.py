"""Ten people judge one project at once for two minutes: is anything lost or doubled, how quick?

    python -m benchmarks.judging_together [--seconds 120] [--database SQLite|PostgreSQL]

It is the test `tests/test_judging_together.py`, with real sessions over real HTTP, for longer; what
was judged, the conflicts that were shown, and what a request took go to `results/`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import circumstances

RESULT = Path(__file__).parent / "results" / "judging_together.json"
ROOT = Path(__file__).parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--database", choices=["SQLite", "PostgreSQL"], help="by default both")
    arguments = parser.parse_args()
    only = ["-k", arguments.database] if arguments.database else []
    command = [sys.executable, "-m", "pytest", "tests/test_judging_together.py", "-q", *only]
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "PLANKTRAIT_TOGETHER_S": str(arguments.seconds),
            "PLANKTRAIT_TOGETHER_RESULTS": folder,
        }
        ended = subprocess.run(command, cwd=ROOT, env=environment).returncode
        for path in Path(folder).glob("*.json"):
            known[path.stem] = json.loads(path.read_text()) | circumstances()
    RESULT.write_text(json.dumps(known, indent=1) + "\n")
    return ended


if __name__ == "__main__":
    raise SystemExit(main())
