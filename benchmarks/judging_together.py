"""Ten people judge one project at once for two minutes: is anything lost or doubled, how quick?

    python -m benchmarks.judging_together [--seconds 120] [--database SQLite|PostgreSQL]

It is the test `tests/test_judging_together.py`, with real sessions over real HTTP, for longer; it
prints what was judged, the conflicts that were shown, and what a request took.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

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
    environment = {**os.environ, "PLANKTRAIT_TOGETHER_S": str(arguments.seconds)}
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    raise SystemExit(main())
