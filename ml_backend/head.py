"""One head of a model: what it answers, and how its outputs become calibrated probabilities."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ml_backend.calibrate import calibrated, prior_shift, prior_weights
from ml_backend.conformal import relative_spread

BEYOND_SHARE = 0.1


@dataclass(frozen=True)
class Head:
    """What one head answers, and how its answers become probabilities.

    Attributes
    ----------
    control, kind
        As in the schema: "one of", "any of" or "number".
    labels : tuple of str
        Order of the outputs; empty for a number.
    ordinal : bool
        Whether the labels of "one of" are steps of a scale: then its loss knows near from far.
    n_images : int
        Images with votes it learned from.
    n_per_label : tuple of float
        Votes per label among them.
    temperature : float
        Fitted on images that did not teach, at the prior as the head was taught.
    tempered : bool
        Whether it was fitted: not so on too few images.
    cross_fitted : bool
        Whether temperature and offsets, or the interval, rest on all images that were there to
        learn from, each judged by a model that it did not teach; else on the validation side.
    bias : tuple of float
        Added to the tempered outputs, label by label; empty where the temperature alone is as good.
    trained_prior, deployed_prior : tuple of float
        How often each label occurs as the head was taught, and where it serves.
    choice_balance : float
        How far a suggestion leans to what is rare ("one of"): 0 suggests the most probable label,
        1 the one that the image speaks for most, whatever its frequency. Probabilities stay as
        they are.
    unit : str or None
        For a number: of the votes it learned from, as the config said.
    lowest, highest : float or None
        For a number: of the training votes. No answer lies further outside than a tenth of their
        range: far from what it learned, a linear head would say anything.
    root : bool
        For a number: whether its square root is learned. Counts scatter as their root does, so that
        it scatters evenly (Anscombe 1948, doi 10.1093/biomet/35.3-4.246): many do not outweigh few.
    offset, scale : float
        For a number: answer (or its root) = offset + scale × output.
    sd : float or None
        For a number: standard deviation of the errors on images that did not teach.
    half_width_95 : float or None
        For a number: half the width of its 95 % interval, where it answers `middle`; None with too
        few images to tell.
    error_slope : float
        For a number: how much wider the interval is for each unit above `middle`, relatively.
    """

    control: str
    kind: str
    labels: tuple[str, ...] = ()
    ordinal: bool = False
    n_images: int = 0
    n_per_label: tuple[float, ...] = ()
    temperature: float = 1.0
    tempered: bool = False
    cross_fitted: bool = False
    bias: tuple[float, ...] = ()
    trained_prior: tuple[float, ...] = ()
    deployed_prior: tuple[float, ...] = ()
    choice_balance: float = 0.5
    unit: str | None = None
    lowest: float | None = None
    highest: float | None = None
    root: bool = False
    offset: float = 0.0
    scale: float = 1.0
    sd: float | None = None
    half_width_95: float | None = None
    error_slope: float = 0.0

    @property
    def n_outputs(self) -> int:
        """One a label; one for a number."""
        return len(self.labels) or 1

    def answer(self, logits: np.ndarray) -> np.ndarray:
        """Turn outputs (n, k) into calibrated probabilities (n, k), or numbers (n, 1)."""
        if self.kind == "number":
            outputs = self.offset + self.scale * np.asarray(logits, dtype=np.float64)
            return self._bounded(np.maximum(outputs, 0.0) ** 2 if self.root else outputs)
        return calibrated(self.kind, logits, self.temperature, self.offsets() + self.shift())

    def wanted_output(self, numbers: np.ndarray) -> np.ndarray:
        """What the output should be for each number: the reverse of `answer`."""
        return (
            (np.sqrt(np.maximum(numbers, 0.0)) if self.root else numbers) - self.offset
        ) / self.scale

    @property
    def middle(self) -> float:
        """The number that it answers when nothing speaks for more or for less."""
        return self.offset**2 if self.root else self.offset

    @property
    def votes_sd(self) -> float:
        """Standard deviation of a number's votes, to first order where its root is learned."""
        return 2 * self.offset * self.scale if self.root else self.scale

    @property
    def expected_slope(self) -> float:
        """How errors of a number grow before any are known: as the root of counts does.

        Below one count they do not shrink as the root says.
        """
        return 0.5 / max(self.middle, 1.0) if self.root else 0.0

    def offsets(self) -> np.ndarray | float:
        """What calibration adds to the tempered outputs, (k,), or 0."""
        return np.array(self.bias) if self.bias else 0.0

    def half_widths(self, numbers: np.ndarray) -> np.ndarray:
        """Half the width of the 95 % interval at each number that was answered; NaN if unknown."""
        if self.half_width_95 is None:
            return np.full(np.shape(numbers), np.nan)
        return self.half_width_95 * relative_spread(numbers, self.middle, self.error_slope)

    def _bounded(self, numbers: np.ndarray) -> np.ndarray:
        if self.lowest is None or self.highest is None:
            return numbers
        margin = BEYOND_SHARE * (self.highest - self.lowest)
        return np.clip(numbers, self.lowest - margin, self.highest + margin)

    def shift(self) -> np.ndarray:
        """What the deployment prior adds to the tempered outputs, (k,)."""
        return prior_shift(self.kind, np.array(self.trained_prior), np.array(self.deployed_prior))

    def prior_weights(self, shares: np.ndarray) -> np.ndarray:
        """Weights that let natural images, with votes (n, k), occur as the head was taught."""
        trained, deployed = np.array(self.trained_prior), np.array(self.deployed_prior)
        return prior_weights(self.kind, shares, trained, deployed)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Head:
        """Read what `as_dict` gave, after its way through JSON."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in record.items()
        }
        return cls(**values)
