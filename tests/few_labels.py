"""Trainings on a few drawn images, heads only unless settings say more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from label_studio_config.schema import LabelSchema
from ml_backend.fit import FitSettings
from ml_backend.registry import Registry
from ml_backend.report import TrainingReport
from ml_backend.train import train
from simclr.encoder import Encoder
from tests.trait_fixtures import XML, resolver

SCHEMA = LabelSchema.from_xml(XML)
HEADS_ONLY = replace(
    FitSettings(views=1, untrained=True), fine_tune=replace(FitSettings().fine_tune, epochs=0)
)


def small_encoder(folder: Path) -> Path:
    """A small encoder, the same whatever was drawn before."""
    torch.manual_seed(0)
    return Encoder.create("resnet10t", image_size_px=32).save(folder)


def learn(
    tmp_path: Path, tasks: list[dict[str, Any]], encoder: Path, settings: FitSettings, name: str
) -> TrainingReport:
    """Train on the images in the folder `images`; the versions are in the one of that name."""
    return train(
        tasks,
        SCHEMA,
        resolve_image=resolver(tmp_path / "images"),
        registry=Registry(tmp_path / name),
        encoder=encoder,
        settings=settings,
    )
