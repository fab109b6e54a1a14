"""Fixtures that all tests share: a real Label Studio, with and without the backend; a browser.

A second Chromium in one process is refused by Playwright, so the fixture must be one for all.
"""

import os

# Before torch is imported: its threads must not spin while real servers run beside the tests.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tests.browser_fixtures import browser
from tests.figures import FIGURES
from tests.label_studio_fixtures import (
    database_template,
    label_studio,
    label_studio_with_backend,
)


def pytest_terminal_summary(terminalreporter) -> None:
    """Print the figures that tests measured."""
    if FIGURES:
        terminalreporter.section("figures")
        for line in FIGURES:
            terminalreporter.write_line(line)


__all__ = ["browser", "database_template", "label_studio", "label_studio_with_backend"]
