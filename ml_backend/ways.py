"""Ways to train other than the default, by the names under which people ask for them.

Benchmarks take their settings from here too: what they measured is what a training then does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ml_backend.fit import FitSettings
from ml_backend.start import default_settings


class WaysError(ValueError):
    """Ways that there are not, or that do not go together; the message says why and the remedy."""


@dataclass(frozen=True)
class RareWay:
    """How rare labels count: see `FitSettings` and `FineTuneSettings`."""

    balance: float
    logit_adjustment: float = 0.0
    retrain_heads: bool = False

    def of(self, settings: FitSettings) -> FitSettings:
        """The settings, changed to this way."""
        steps = replace(settings.fine_tune, logit_adjustment=self.logit_adjustment)
        return replace(
            settings, balance=self.balance, retrain_heads=self.retrain_heads, fine_tune=steps
        )


DEFAULT_RARE = "square-root"
RARE_WAYS = {
    DEFAULT_RARE: RareWay(balance=0.5),
    "as-they-come": RareWay(balance=0.0),
    "even": RareWay(balance=1.0),
    "logit-adjustment": RareWay(balance=0.0, logit_adjustment=1.0),
    "retrain-heads": RareWay(balance=0.5, retrain_heads=True),
}


def self_trained(settings: FitSettings, most_unlabelled: int) -> FitSettings:
    """The settings, to learn from so many images without votes at most: fewer, longer epochs."""
    steps = replace(settings.fine_tune, epochs=10, min_images_per_epoch=8192)
    return replace(settings, most_unlabelled=most_unlabelled, fine_tune=steps)


def calibrated_by_all(settings: FitSettings) -> FitSettings:
    """The settings, to calibrate by all images that teach, whatever their number."""
    return replace(settings, cross_fit_below=None)


@dataclass(frozen=True)
class Ways:
    """What somebody asks of one training.

    Parameters
    ----------
    rare : str
        One of `RARE_WAYS`.
    self_train : int
        Images without votes that may help to teach; 0 for none.
    calibrate_by_all : bool

    Raises
    ------
    WaysError
        A way is unknown, or two do not go together.
    """

    rare: str = DEFAULT_RARE
    self_train: int = 0
    calibrate_by_all: bool = False

    def __post_init__(self) -> None:
        if self.rare not in RARE_WAYS:
            raise WaysError(f"rare {self.rare!r} is unknown: give {', '.join(RARE_WAYS)}")
        if self.self_train < 0:
            raise WaysError(f"self_train {self.self_train}: give a number of images, 0 for none")
        others = {
            "--self-train": self.self_train,
            "--rare retrain-heads": RARE_WAYS[self.rare].retrain_heads,
        }
        unfit = [name for name, asked in others.items() if asked]
        if self.calibrate_by_all and unfit:
            raise WaysError(
                f"--calibrate-by-all does not go with {' and '.join(unfit)}: the models that judge "
                "are taught by votes alone, and their heads are not fitted anew. Leave one out"
            )

    def settings(self, encoder: str | Path | None) -> FitSettings:
        """The settings of a training that starts from an encoder, or from nothing.

        Raises
        ------
        WaysError
            An untrained network cannot be asked for it.

        Examples
        --------
        >>> Ways(rare="even").settings("encoder").balance
        1.0
        """
        settings = RARE_WAYS[self.rare].of(default_settings(encoder))
        if self.self_train and encoder is None:
            raise WaysError(
                "--self-train asks an encoder what may be on images without votes, and an "
                "untrained network cannot say: run `planktrait pretrain` first, or give --encoder"
            )
        if self.self_train:
            settings = self_trained(settings, self.self_train)
        return calibrated_by_all(settings) if self.calibrate_by_all else settings
