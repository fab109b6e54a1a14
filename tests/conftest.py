"""Fixtures that all tests share: a real Label Studio, with and without the backend."""

import os

# Before torch is imported: its threads must not spin while real servers run beside the tests.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tests.label_studio_fixtures import (
    database_template,
    label_studio,
    label_studio_with_backend,
)

__all__ = ["database_template", "label_studio", "label_studio_with_backend"]
