"""What a training tells of itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from label_studio_config.manifest import Skipped
from ml_backend.promote import Promotion
from ml_backend.registry import ModelVersion


@dataclass(frozen=True)
class TrainingReport:
    """What a training did.

    Attributes
    ----------
    version : ModelVersion
        The new version, promoted or not.
    promotion : Promotion
    record : dict
        What metrics.json holds: images per side, split, metrics by side and control, controls
        without a head, notes, encoder, settings, fingerprints, seconds.
    skipped : list of Skipped
        Images with votes that could not be read.
    """

    version: ModelVersion
    promotion: Promotion
    record: dict[str, Any]
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def metrics(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Metrics by side ("test", "blind") and control."""
        return self.record["metrics"]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return plain(
            {
                "version": self.version.name,
                "promotion": self.promotion.as_dict(),
                "skipped": [asdict(skip) for skip in self.skipped],
                **self.record,
            }
        )


def plain(value: Any) -> Any:
    """Return JSON's own types: no tuples, no numpy, and None for what is not a finite number."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
