"""Fixtures that all tests share: a real Label Studio, with and without the backend; a browser.

A second Chromium in one process is refused by Playwright, so the fixture must be one for all.
"""

import os

import pytest

# Before torch is imported: its threads must not spin while real servers run beside the tests.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker is told the width of a terminal that tables would be cut to.
    os.environ["COLUMNS"] = "160"
    if int(os.environ["PYTEST_XDIST_WORKER_COUNT"]) > 1:
        # Two trainings that each ask for all processors wait for each other.
        os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.browser_fixtures import browser
from tests.figures import FIGURES
from tests.gallery_page_fixtures import shelf_with_backend
from tests.label_studio_fixtures import (
    database_template,
    label_studio,
    label_studio_with_backend,
)
from tests.postgres_fixtures import postgres_template
from tests.slurm_fixtures import slurm

SLOWEST = (
    *("test_end_to_end", "test_train", "test_push", "test_ranks", "test_load"),
    *("test_backup_journey", "test_gallery_browser", "test_faults", "test_backend_faults"),
    *("test_clusters_page", "test_demo", "test_slurm_loop", "test_pretrain"),
    *("test_judging_together", "test_model_page", "test_backend_protocol", "test_submit"),
    *("test_hosting", "test_gallery_index", "test_predict"),
)


def pytest_collection_modifyitems(items) -> None:
    """The longest modules first: the workers then end at about the same time.

    `make test` asks pytest-xdist to keep this order (`--no-loadscope-reorder`).
    """
    places = {name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(SLOWEST)))


def pytest_sessionfinish(session) -> None:
    """A worker hands on the figures that its tests measured."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["figures"] = FIGURES


class FiguresOfWorkers:
    """Gathers the figures of pytest-xdist's workers."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node) -> None:
        FIGURES.extend(getattr(node, "workeroutput", {}).get("figures", []))


def pytest_configure(config) -> None:
    """Registered here, since it is a hook of pytest-xdist only."""
    config.pluginmanager.register(FiguresOfWorkers())


def pytest_terminal_summary(terminalreporter) -> None:
    """Print the figures that tests measured."""
    if FIGURES:
        terminalreporter.section("figures")
        for line in dict.fromkeys(FIGURES):
            terminalreporter.write_line(line)


__all__ = [
    "browser",
    "database_template",
    "label_studio",
    "label_studio_with_backend",
    "postgres_template",
    "shelf_with_backend",
    "slurm",
]
