"""bf16 only where it is quick, and right."""

from __future__ import annotations

import pytest
import torch

from ml_backend.model import TraitModel
from simclr.encoder import Encoder
from simclr.precision import cpu_computes_in_bf16, fastest_precision
from tests.test_rare_labels import SCHEMA


def native(monkeypatch: pytest.MonkeyPatch, cpu: bool, gpu: bool = False) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: cpu, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: gpu)


def test_tiny_images_are_learned_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    native(monkeypatch, cpu=True)
    assert [fastest_precision(side) for side in (16, 32)] == ["32-true", "bf16-mixed"]
    native(monkeypatch, cpu=False)
    assert fastest_precision(64) == "32-true"


def test_gradients_of_small_images_are_written_in_bf16() -> None:
    """What the smallest side is about: a wrong kernel would leave some of them as they were."""
    encoder = Encoder.create("resnet10t", image_size_px=32)
    junk = [torch.full((512 * 256 * 9,), float("nan")) for _ in range(8)]
    del junk
    with torch.autocast("cpu", torch.bfloat16):
        features = encoder(torch.randint(0, 256, (16, 1, 32, 32), dtype=torch.uint8))
    features.float().pow(2).sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters() if p.grad is not None)


def test_a_model_on_the_cpu_asks_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    native(monkeypatch, cpu=False, gpu=True)
    assert not cpu_computes_in_bf16()
    assert not TraitModel(Encoder.create("resnet10t", image_size_px=32), [], SCHEMA, 1).in_bf16
