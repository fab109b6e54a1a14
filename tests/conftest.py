"""Fixtures that all tests share: a real Label Studio, with and without the backend."""

from tests.label_studio_fixtures import (
    database_template,
    label_studio,
    label_studio_with_backend,
)

__all__ = ["database_template", "label_studio", "label_studio_with_backend"]
