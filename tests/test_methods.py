"""Every method learns, leaves an encoder, and goes on when it is ended; large batches in chunks."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch.utils.checkpoint import checkpoint as run_twice

import simclr.methods.gradient_cache as gradient_cache
from simclr.encoder import Encoder
from simclr.methods import CLASSES, make_method
from simclr.methods.gradient_cache import in_chunks
from simclr.pretrain import pretrain
from simclr.record import EpochRecord
from simclr.settings import CONTRASTIVE, METHODS, PretrainError, SimCLRSettings
from tests.test_pretrain import draw_shapes, small_encoder

SIZE_PX = 32


class EndedError(RuntimeError):
    """Stands for a kill between two epochs."""


def uint8_images(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, SIZE_PX, SIZE_PX), generator=generator).to(torch.uint8)


def test_every_method_has_its_class() -> None:
    assert tuple(CLASSES) == METHODS


@pytest.mark.parametrize("name", METHODS)
def test_an_ended_run_goes_on_with_all_its_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, labels = draw_shapes(tmp_path / "images", 24)
    settings = SimCLRSettings.of(name, batch_size=8)

    def run() -> Path:
        encoder = small_encoder()
        return pretrain(
            manifest, encoder, tmp_path / "run", epochs=2, labels=labels, settings=settings
        )

    epoch_starts = EpochRecord.on_train_epoch_start
    modules: list[Any] = []

    def end_in_the_second(record: EpochRecord, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == 1:
            raise EndedError
        epoch_starts(record, trainer, module)

    def keep_the_module(record: EpochRecord, trainer: Any, module: Any) -> None:
        modules.append(
            (trainer.global_step, {k: v.clone() for k, v in module.state_dict().items()})
        )
        epoch_starts(record, trainer, module)

    monkeypatch.setattr(EpochRecord, "on_train_epoch_start", end_in_the_second)
    with pytest.raises(EndedError):
        run()
    saved = torch.load(tmp_path / "run" / "checkpoint.ckpt", weights_only=True)
    monkeypatch.setattr(EpochRecord, "on_train_epoch_start", keep_the_module)
    folder = run()

    ((step, restored),) = modules  # one epoch was left
    assert step == saved["global_step"]
    assert restored.keys() == saved["state_dict"].keys()
    for key, value in restored.items():
        assert torch.equal(value, saved["state_dict"][key]), key
    history = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert history["epoch"].tolist() == [0, 1, 2]
    assert history["loss"].iloc[1:].notna().all()
    assert f'"method": "{name}"' in (tmp_path / "run" / "run.json").read_text()
    learned = Encoder.load(folder).backbone.state_dict()
    state = torch.load(tmp_path / "run" / "checkpoint.ckpt", weights_only=True)["state_dict"]
    first = small_encoder().backbone.state_dict()
    for key, value in learned.items():
        torch.testing.assert_close(value, state[f"encoder.backbone.{key}"])
    assert (
        sum(not torch.equal(value, first[key]) for key, value in learned.items()) > len(first) / 2
    )


@pytest.mark.parametrize(("name", "teacher", "student"), [
    ("byol", "teacher_encoder", "encoder"),
    ("dino", "encoder", "student_encoder"),
])  # fmt: skip
def test_the_teacher_follows_the_student_from_afar(
    name: str, teacher: str, student: str, tmp_path: Path
) -> None:
    manifest, _ = draw_shapes(tmp_path / "images", 24)
    settings = SimCLRSettings.of(name, batch_size=8)
    pretrain(manifest, small_encoder(), tmp_path / "run", epochs=1, settings=settings)
    saved = torch.load(tmp_path / "run" / "checkpoint.ckpt", weights_only=True)
    first = small_encoder().state_dict()

    def moved(part: str) -> float:
        differences = [
            (saved["state_dict"][f"{part}.{key}"] - value).abs().mean()
            for key, value in first.items()
            if key.endswith("weight")
        ]
        return float(torch.stack(differences).mean())

    assert 0 < moved(teacher) < 0.2 * moved(student)
    trained = sum(len(group["params"]) for group in saved["optimizer_states"][0]["param_groups"])
    method = make_method(small_encoder(), settings)
    assert trained == sum(weights.requires_grad for weights in method.parameters())


def test_another_method_is_another_run(tmp_path: Path) -> None:
    manifest, _ = draw_shapes(tmp_path / "images", 16)
    pretrain(manifest, small_encoder(), tmp_path / "run", epochs=1)
    with pytest.raises(PretrainError, match="other method: give another folder"):
        pretrain(
            manifest,
            small_encoder(),
            tmp_path / "run",
            epochs=1,
            settings=SimCLRSettings(method="vicreg"),
        )


def test_a_run_from_before_there_were_methods_is_still_finished(tmp_path: Path) -> None:
    manifest, _ = draw_shapes(tmp_path / "images", 16)
    folder = pretrain(manifest, small_encoder(), tmp_path / "run", epochs=1)
    record = tmp_path / "run" / "run.json"
    lines = record.read_text().splitlines()
    newer = ('"method"', '"rotation_degrees"', '"flip_probability"')
    text = "\n".join(line for line in lines if not line.strip().startswith(newer))
    record.write_text(text.replace('"saturation": 0.3,', '"saturation": 0.3'))
    written_ns = (folder / "model.safetensors").stat().st_mtime_ns
    pretrain(manifest, small_encoder(), tmp_path / "run", epochs=1)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written_ns


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "moco"}, "'moco' is unknown: give simclr, dcl, vicreg, dino, byol"),
        ({"method": "byol", "temperature": 0.1}, "byol has no temperature"),
        ({"method": "dino", "chunk_size": 8}, "dino cannot run in chunks"),
        ({"temperature": 0.0}, "temperature 0.0: give more than 0"),
        ({"view_share": 1.5}, "view_share 1.5"),
        ({"chunk_size": 0}, "chunk_size 0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PretrainError, match=said):
        SimCLRSettings.of(**changes)


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_chunks_give_the_gradients_of_the_whole_batch(name: str) -> None:
    """For a backbone and a head without batch norm."""
    torch.manual_seed(0)
    encoder = Encoder.create("test_vit", image_size_px=SIZE_PX)
    views = uint8_images(22) / 255
    gradients = {}
    for chunk_size in (None, 6):
        method = make_method(encoder, SimCLRSettings.of(name, chunk_size=chunk_size))
        method.projection_head = torch.nn.Linear(encoder.feature_count, 16)
        torch.nn.init.orthogonal_(method.projection_head.weight, generator=seeded())
        method.projection_head.bias.data.zero_()
        loss = method.loss_of(views)
        loss.backward()
        reached = [weight.grad for weight in method.parameters() if weight.grad is not None]
        assert len(reached) == len(list(method.parameters()))
        gradients[chunk_size] = (loss.detach(), reached)
        method.zero_grad(set_to_none=True)
    assert max(float(gradient.abs().max()) for gradient in gradients[None][1]) > 1e-3
    torch.testing.assert_close(gradients[6][0], gradients[None][0])
    for chunked, whole in zip(gradients[6][1], gradients[None][1], strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-3, atol=1e-5)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_chunks_are_run_twice_with_the_same_random_numbers() -> None:
    rows: list[int] = []
    noises: list[torch.Tensor] = []
    layer = torch.nn.Linear(4, 3)

    def project(views: torch.Tensor) -> torch.Tensor:
        rows.append(len(views))
        noises.append(torch.rand(len(views), 4))
        return layer(views * noises[-1])

    assert in_chunks(project, torch.ones(9, 4), None).shape == (9, 3)
    assert rows == [9]
    projections = in_chunks(project, torch.ones(9, 4), 4)
    assert rows == [9, 4, 5]  # none with a single view
    projections.sum().backward()
    assert sorted(rows[3:]) == [4, 5]
    first = {len(noise): noise for noise in noises[1:3]}
    for noise in noises[3:]:
        assert torch.equal(noise, first[len(noise)])


def test_a_run_in_chunks_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, _ = draw_shapes(tmp_path / "images", 32)
    rows: list[int] = []

    def noted(project: Any, chunk: torch.Tensor, **options: Any) -> torch.Tensor:
        rows.append(len(chunk))
        return run_twice(project, chunk, **options)

    monkeypatch.setattr(gradient_cache, "checkpoint", noted)
    settings = SimCLRSettings(batch_size=16, chunk_size=8)
    pretrain(manifest, small_encoder(), tmp_path / "run", epochs=2, settings=settings)
    assert rows == [8] * 16  # 2 epochs of 2 batches of 32 views
    assert pd.read_csv(tmp_path / "run" / "metrics.csv")["loss"].notna().all()
