"""The numbers of a pretraining: which method, and how it is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from simclr.augment import Augmentation

METHODS = ("simclr", "dcl", "vicreg", "dino", "byol")
CONTRASTIVE = ("simclr", "dcl")
_WITH_TEMPERATURE = (*CONTRASTIVE, "dino")
# Where a method's paper or lightly's benchmarks ask for something else than SimCLR gets here.
_OWN: dict[str, dict[str, float]] = {
    "dcl": {"temperature": 0.1},
    "dino": {"temperature": 0.1, "learning_rate": 5e-4},
}


class PretrainError(ValueError):
    """A pretraining that cannot start; the message says why and the remedy."""


@dataclass(frozen=True)
class SimCLRSettings:
    """The method's numbers; `SimCLRSettings.of(method)` for those of another method than SimCLR.

    Parameters
    ----------
    batch_size : int
        Images in a batch; less where there are few images.
    temperature : float
        Of NT-Xent and of DCL; of the student in DINO. VICReg and BYOL have none.
    learning_rate : float
        Peak of the one-cycle schedule of AdamW.
    weight_decay : float
    warmup : float
        Share of the steps until the peak.
    projection_size : int
        Outputs of the projection head of SimCLR and DCL; the other heads have their papers' sizes.
    view_share : float
        Side of a view as a share of the image size. Smaller views cost less; convolutional
        backbones then still see whole images at full size. 1 for backbones of a fixed size.
    augmentation : Augmentation
    seed : int
    method : str
        One of `METHODS`.
    chunk_size : int, optional
        SimCLR and DCL: views that are in memory at once with what their gradient needs, whatever
        the batch size (`simclr.methods.gradient_cache`); by default all of the batch.

    Raises
    ------
    PretrainError
        A number is out of its range, or the method is unknown or has no such number.
    """

    batch_size: int = 256
    temperature: float = 0.2
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup: float = 0.2
    projection_size: int = 128
    view_share: float = 0.5
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    method: str = "simclr"
    chunk_size: int | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise PretrainError(f"method {self.method!r} is unknown: give {', '.join(METHODS)}")
        for name in ("batch_size", "temperature", "learning_rate"):
            if getattr(self, name) <= 0:
                raise PretrainError(f"{name} {getattr(self, name)}: give more than 0")
        if not 0 < self.view_share <= 1:
            raise PretrainError(f"view_share {self.view_share}: give a share, above 0 up to 1")
        if self.chunk_size is not None and self.chunk_size < 1:
            raise PretrainError(f"chunk_size {self.chunk_size}: give 1 or more")
        if self.chunk_size is not None and self.method not in CONTRASTIVE:
            raise PretrainError(
                f"{self.method} cannot run in chunks: give a smaller batch_size instead, or one of "
                f"the methods {', '.join(CONTRASTIVE)}"
            )

    @classmethod
    def of(cls, method: str = "simclr", **changes: Any) -> SimCLRSettings:
        """A method's own numbers, with changes.

        Raises
        ------
        PretrainError
            As the class does; or the method has no temperature, and one is given.

        Examples
        --------
        >>> SimCLRSettings.of("dino").learning_rate, SimCLRSettings.of("dcl").learning_rate
        (0.0005, 0.002)
        """
        settings = cls(method=method, **{**_OWN.get(method, {}), **changes})
        if "temperature" in changes and method not in _WITH_TEMPERATURE:
            raise PretrainError(f"{method} has no temperature: leave it out")
        return settings


def settings_facts(settings: SimCLRSettings) -> dict[str, Any]:
    """What a run's record says of its settings: the method, and the numbers that are in use."""
    facts = asdict(settings)
    method = facts.pop("method")
    return {
        "method": method,
        "settings": {name: value for name, value in facts.items() if value is not None},
    }


def completed_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The record of an earlier run, with the settings that did not exist when it was written.

    What is new has the default that leaves a run as it was, so the run can go on.
    """
    today = settings_facts(SimCLRSettings())
    settings = {**today["settings"], **facts.get("settings", {})}
    augmentation = {**today["settings"]["augmentation"], **settings["augmentation"]}
    return {
        **facts,
        "method": facts.get("method", "simclr"),
        "settings": {**settings, "augmentation": augmentation},
    }
