"""Ways to learn features without labels, each with lightly's own loss and heads.

| method | what it asks of two views of an image | module |
|---|---|---|
| SimCLR, DCL | be alike, and unlike the other images of the batch | contrastive.py |
| VICReg | be alike, while each feature varies and no two say the same | vicreg.py |
| BYOL | the one predicts the other, as a slowly moving teacher sees it | byol.py |
| DINO | fall into the same groups that a slowly moving teacher sees | dino.py |
"""

from __future__ import annotations

from simclr.encoder import Encoder
from simclr.methods.base import Method
from simclr.methods.byol import BYOL
from simclr.methods.contrastive import DCL, SimCLR
from simclr.methods.dino import DINO
from simclr.methods.vicreg import VICReg
from simclr.settings import SimCLRSettings

__all__ = ["BYOL", "CLASSES", "DCL", "DINO", "Method", "SimCLR", "VICReg", "make_method"]

CLASSES: dict[str, type[Method]] = {
    "simclr": SimCLR,
    "dcl": DCL,
    "vicreg": VICReg,
    "dino": DINO,
    "byol": BYOL,
}


def make_method(encoder: Encoder, settings: SimCLRSettings) -> Method:
    """The method that the settings name, ready to train `encoder`."""
    return CLASSES[settings.method](encoder, settings)
