"""Twenty annotators at once on PostgreSQL, without and beside trainings: no request fails.

For 30 seconds each, beside trainings of a tiny encoder, one after the other, of which the first is
waited for; `benchmarks/annotators_load.py` has them work for three minutes, beside trainings of the
default network.
"""

from __future__ import annotations

import os

import pytest

from benchmarks.annotators_load import measure
from tests.figures import FIGURES

SECONDS = float(os.environ.get("PLANKTRAIT_LOAD_S", "30"))
MOST_SLOWER = 4.0
"""Two is wanted and measured on a quiet machine; tests run beside each other."""


@pytest.mark.slow
def test_twenty_annotators_at_once_also_beside_trainings(postgres_template):
    result = measure(20, SECONDS, template=postgres_template, small=True)
    alone, beside = result["alone"], result["beside trainings"]
    for when, table in (("alone", alone), ("beside trainings", beside)):
        kinds = ", ".join(
            f"{kind} {values['p50_ms']:.0f}/{values['p95_ms']:.0f}/{values['p99_ms']:.0f}"
            for kind, values in table.items()
        )
        FIGURES.append(f"twenty annotators, {when}, ms (50/95/99 %): {kinds}")
    assert result["errors"] == []
    assert (result["lost"], result["doubled"]) == ([], [])
    # How many is the benchmark's to say: here that nobody was left out.
    for done in result["requests_of_each"].values():
        assert min(done) > 0
    assert result["answered"] > 0
    assert set(result["trainings"]) == {"finished"}
    assert set(alone) == {
        "all", "next task", "task", "image", "submit", "gallery page", "sprite"
    }  # fmt: skip
    assert result["p95_ratio"]["all"] < MOST_SLOWER, result
