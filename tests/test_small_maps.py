"""Small maps as products of matrices: the same convolution, and the same gradients."""

from __future__ import annotations

import copy
import pickle
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from simclr import small_maps
from simclr.encoder import Encoder
from simclr.small_maps import SmallMapConv2d, quicken

CASES = [
    # channels, maps, kernel, stride, padding, height, width
    (8, 6, 3, 1, 1, 2, 2),
    (8, 6, 3, 2, 1, 4, 4),
    (8, 6, 1, 1, 0, 2, 2),
    (8, 6, 1, 2, 0, 4, 3),
    (3, 5, (3, 1), (1, 2), (1, 0), 2, 3),
    (4, 4, 2, 1, 2, 1, 1),
    (4, 4, 3, 1, 1, 1, 1),
]


@pytest.fixture
def any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with AMX, in any precision."""
    monkeypatch.setattr(small_maps, "_most_pixels", lambda _: 16)


def both(*sizes: Any, bias: bool = True) -> tuple[nn.Conv2d, nn.Conv2d]:
    """PyTorch's layer and ours, with the same weights."""
    torch.manual_seed(0)
    plain = nn.Conv2d(*sizes)
    if not bias:
        plain.bias = None
    ours = copy.deepcopy(plain)
    assert type(quicken(ours)) is SmallMapConv2d
    return plain, ours


def gradients(layer: nn.Module, images: Tensor) -> list[Tensor]:
    """The maps, and the gradients of images, weights and bias."""
    images = images.clone().requires_grad_()
    maps = layer(images)
    (maps.float() * torch.linspace(-1, 1, maps.numel()).view(maps.shape)).sum().backward()
    assert images.grad is not None
    return [maps.detach(), images.grad, *(one.grad for one in layer.parameters())]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.usefixtures("any_machine")
def test_what_it_computes_is_the_same(case: tuple, form: torch.memory_format) -> None:
    *sizes, height, width = case
    images = torch.randn(5, sizes[0], height, width).to(memory_format=form)
    plain, ours = both(*sizes)
    for one, other in zip(gradients(plain, images), gradients(ours, images), strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.usefixtures("any_machine")
def test_in_bf16_its_sums_are_as_exact(bias: bool) -> None:
    plain, ours = both(32, 32, 3, 1, 1, bias=bias)
    images = torch.randn(16, 32, 2, 2)
    exact = gradients(plain, images)
    plain.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        found = {"plain": gradients(plain, images), "ours": gradients(ours, images)}
    assert [one.dtype for one in found["ours"]] == [one.dtype for one in found["plain"]]

    def error(name: str, which: int) -> float:
        return float((found[name][which].float() - exact[which]).norm() / exact[which].norm())

    for which in range(len(exact)):
        assert error("ours", which) < 0.01
        assert error("ours", which) < 1.2 * error("plain", which)


class AddInPlace(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        maps += 1
        return maps * maps


@pytest.mark.usefixtures("any_machine")
@pytest.mark.parametrize("bias", [False, True])
def test_what_comes_after_may_change_it_in_place(bias: bool) -> None:
    images = torch.randn(5, 8, 2, 2)
    for change in (nn.ReLU(inplace=True), AddInPlace()):
        plain, ours = both(8, 6, 3, 1, 1, bias=bias)
        found = [gradients(nn.Sequential(layer, change), images) for layer in (plain, ours)]
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def learned(network: nn.Module, images: Tensor) -> list[float]:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    losses = []
    for _ in range(3):
        loss = network(images).pow(2).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each product."""
    made: list[int] = []
    product: Callable[..., Tensor] = small_maps._product

    def counted(*arguments: object) -> Tensor:
        made.append(1)
        return product(*arguments)

    monkeypatch.setattr(small_maps, "_product", counted)
    return made


def test_an_encoder_learns_as_without_it(
    any_machine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = calls(monkeypatch)
    images = torch.randint(0, 256, (8, 1, 64, 64), dtype=torch.uint8)
    torch.manual_seed(0)
    encoder = Encoder.create("resnet10t", 64)
    other = copy.deepcopy(encoder)
    with_products = learned(encoder, images)
    assert made
    made.clear()
    monkeypatch.setattr(small_maps, "_most_pixels", lambda _: 0)
    assert with_products == pytest.approx(learned(other, images), rel=1e-3)
    assert not made


@pytest.mark.usefixtures("any_machine")
def test_what_is_computed_again_for_its_gradients_is_the_same() -> None:
    _, ours = both(8, 6, 3, 1, 1)
    images = torch.randn(5, 8, 2, 2)
    again = copy.deepcopy(ours)
    kept = gradients(ours, images)
    wanted = images.clone().requires_grad_()
    maps = checkpoint(again, wanted, use_reentrant=False)
    (maps * torch.linspace(-1, 1, maps.numel()).view(maps.shape)).sum().backward()
    found = [wanted.grad, *(one.grad for one in again.parameters())]
    for one, other in zip(kept[1:], found, strict=True):
        torch.testing.assert_close(one, other)


def test_which_maps_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    made = calls(monkeypatch)

    def is_product(side: int, in_bf16: bool) -> bool:
        made.clear()
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
            both(4, 4, 3, 1, 1)[1](torch.randn(2, 4, side, side))
        return bool(made)

    intel_or_amd = platform.machine() in {"x86_64", "AMD64"}
    cpuinfo = Path("/proc/cpuinfo")
    amx = cpuinfo.is_file() and "amx_tile" in cpuinfo.read_text()
    assert [is_product(side, False) for side in (2, 3)] == [intel_or_amd, False]
    assert [is_product(side, True) for side in (2, 4, 5)] == [intel_or_amd, amx, False]
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert not is_product(2, True)


def test_without_gradients_and_when_traced_it_is_pytorchs(
    any_machine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = calls(monkeypatch)
    plain, ours = both(8, 6, 3, 1, 1)
    images = torch.randn(5, 8, 2, 2)
    with torch.no_grad():
        assert torch.equal(plain(images), ours(images))
    traced = torch.jit.trace(ours, images)
    assert "aten::_convolution" in str(traced.inlined_graph)
    batch = ({0: torch.export.Dim.AUTO},)
    exported = torch.export.export(ours, (images,), dynamic_shapes=batch, strict=False)
    assert "aten.conv2d" in str(exported.graph)
    ours.requires_grad_(False)
    assert torch.equal(plain(images), ours(images))
    assert not made


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    ],
    ids=str,
)
def test_other_convolutions_stay_as_they_are(layer: nn.Conv2d) -> None:
    assert type(quicken(nn.Sequential(layer))[0]) is nn.Conv2d  # type: ignore[index]


def test_names_and_weights_stay() -> None:
    plain, ours = both(4, 4, 3)
    kept = pickle.loads(pickle.dumps(ours)).state_dict()
    assert list(kept) == list(plain.state_dict())
    assert all(torch.equal(kept[name], value) for name, value in plain.state_dict().items())


def test_no_images_and_wrong_ones_are_as_with_pytorch(any_machine: None) -> None:
    _, ours = both(8, 6, 3, 1, 1)
    assert ours(torch.randn(0, 8, 2, 2)).shape == (0, 6, 2, 2)
    ours(torch.randn(0, 8, 2, 2)).sum().backward()
    with pytest.raises(RuntimeError, match="to have 8 channels, but got 5"):
        ours(torch.randn(2, 5, 2, 2))
    with pytest.raises(RuntimeError, match="same"):
        ours(torch.randn(2, 8, 2, 2, dtype=torch.float64))
