"""bf16 only where it is quick, and right."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ml_backend.model import TraitModel
from simclr.encoder import Encoder
from simclr.precision import cpu_computes_in_bf16, fastest_precision
from tests.test_rare_labels import SCHEMA


def native(monkeypatch: pytest.MonkeyPatch, cpu: bool, gpu: bool = False) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: cpu, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: gpu)


def test_bf16_only_where_the_processor_computes_in_it() -> None:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    native = "avx512_bf16" in flags or "amx_tile" in flags
    if not torch.cuda.is_available():
        assert fastest_precision(nn.Conv2d(1, 8, 3)) == ("bf16-mixed" if native else "32-true")


def test_tiny_images_are_learned_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Conv2d(1, 8, 3)
    native(monkeypatch, cpu=True)
    assert [fastest_precision(network, side) for side in (16, 32)] == ["32-true", "bf16-mixed"]
    native(monkeypatch, cpu=False)
    assert fastest_precision(network, 64) == "32-true"


def test_networks_of_depthwise_convolutions_learn_in_full_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their answers, without gradients, still come in bf16: only gradients are slow in it."""
    native(monkeypatch, cpu=True)
    images = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    seen: list[torch.dtype] = []
    for name, learned_in in (
        ("mobilenetv4_conv_small", torch.float32),
        ("resnet10t", torch.bfloat16),
    ):
        encoder = Encoder.create(name, image_size_px=64)
        model = TraitModel(encoder, [], SCHEMA, 1).eval()
        encoder.register_forward_hook(lambda *passed: seen.append(passed[-1].dtype))
        model.describe(images, torch.zeros(2, 2))
        with torch.inference_mode():
            model.describe(images, torch.zeros(2, 2))
        assert seen == [learned_in, torch.bfloat16]
        assert fastest_precision(encoder, 64) == (
            "32-true" if learned_in == torch.float32 else "bf16-mixed"
        )
        seen.clear()


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
