"""SimCLR: learns, leaves a usable encoder after each epoch, goes on when killed."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from PIL import Image, ImageDraw

from label_studio_config.manifest import Manifest
from simclr.cache import ImageCache
from simclr.embed import features_of
from simclr.encoder import Encoder
from simclr.knn import knn_accuracy
from simclr.pretrain import PretrainError, SimCLRSettings, fitting_batch_size, pretrain
from simclr.run_folder import count_images

SMALL = "test_resnet"
DATA = Path(os.environ.get("PLANKTRAIT_DATA", Path(__file__).parents[2] / "shared" / "data"))


def draw_shapes(folder: Path, count: int) -> tuple[Manifest, dict[str, str]]:
    """Discs, bars and rings, anywhere and turned anyhow."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    labels = {}
    for number in range(count):
        name = ("disc", "bar", "ring")[number % 3]
        image = Image.new("L", (40, 40), 240)
        box = [12, 12, 28, 28] if name != "bar" else [6, 18, 34, 22]
        fill = None if name == "ring" else 60
        ImageDraw.Draw(image).ellipse(box, fill=fill, outline=60, width=2)
        image = image.rotate(generator.uniform(0, 360), fillcolor=240)
        image.save(folder / f"{number}.png")
        labels[f"{number}.png"] = name
    table = pd.DataFrame({"image_id": list(labels), "path": list(labels)})
    return Manifest(table, folder), labels


def small_encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder.create(SMALL, image_size_px=32)


def test_a_run_leaves_encoder_figures_and_plot(tmp_path: Path) -> None:
    manifest, labels = draw_shapes(tmp_path / "images", 60)
    manifest.paths[0].write_bytes(b"")
    encoder = small_encoder()
    weights = {name: value.clone() for name, value in encoder.state_dict().items()}
    folder = pretrain(manifest, encoder, tmp_path / "run", epochs=3, labels=labels)

    history = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert history["epoch"].tolist() == [0, 1, 2, 3]
    losses = history["loss"].to_numpy()
    assert np.isnan(losses[0])
    assert np.isfinite(losses[1:]).all()
    assert history["knn_macro"].between(0, 1).all()
    assert Image.open(tmp_path / "run" / "progress.png").size[0] > 300
    assert pd.read_csv(tmp_path / "run" / "_skipped.csv")["path"].tolist() == ["0.png"]
    assert count_images(folder) == 59

    learned = Encoder.load(folder)
    assert learned.preprocessing.mean[0] == pytest.approx(0.9, abs=0.06)  # of the images
    moved = [
        not torch.equal(value, weights[f"backbone.{name}"])
        for name, value in learned.backbone.state_dict().items()
    ]
    assert sum(moved) > len(moved) / 2
    for name, value in encoder.state_dict().items():  # the one that was given is left as it is
        assert torch.equal(value, weights[name])


def test_a_finished_run_returns_at_once_and_another_is_refused(tmp_path: Path) -> None:
    manifest, _ = draw_shapes(tmp_path / "images", 16)
    folder = pretrain(manifest, small_encoder(), tmp_path / "run", epochs=1)
    weights = folder / "model.safetensors"
    written_ns = weights.stat().st_mtime_ns
    assert pretrain(manifest, small_encoder(), tmp_path / "run", epochs=1) == folder
    assert weights.stat().st_mtime_ns == written_ns
    with pytest.raises(PretrainError, match=r"other epochs.*fresh"):
        pretrain(manifest, small_encoder(), tmp_path / "run", epochs=2)
    pretrain(manifest, small_encoder(), tmp_path / "run", epochs=2, fresh=True)
    assert pd.read_csv(tmp_path / "run" / "metrics.csv")["epoch"].tolist() == [1, 2]


def test_a_run_in_its_own_folder_is_never_refused(tmp_path: Path) -> None:
    manifest, _ = draw_shapes(tmp_path / "images", 16)

    def run(encoder: Encoder, **settings: Any) -> Path:
        return pretrain(
            manifest,
            encoder,
            tmp_path / "runs",
            epochs=1,
            cache_folder=tmp_path / "cache",
            own_folder=True,
            settings=SimCLRSettings(**settings),
        )

    first = run(small_encoder())
    assert run(small_encoder()) == first
    assert first.parent.parent == tmp_path / "runs"
    other_settings = run(small_encoder(), temperature=0.3)  # as after an upgrade
    os.utime(manifest.paths[0], (0, 0))  # as rsync does
    touched = run(small_encoder())
    learned = [run(Encoder.load(folder)) for folder in (touched, other_settings)]
    assert len({first, other_settings, touched, *learned}) == 5


def test_half_a_checkpoint_starts_from_the_beginning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest, _ = draw_shapes(tmp_path / "images", 16)
    pretrain(manifest, small_encoder(), tmp_path / "run", epochs=2)
    checkpoint = tmp_path / "run" / "checkpoint.ckpt"
    metrics = tmp_path / "run" / "metrics.csv"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    metrics.write_text("\n".join(metrics.read_text().splitlines()[:2]) + "\n")
    pretrain(manifest, small_encoder(), tmp_path / "run", epochs=2)
    assert "starts from the beginning" in caplog.text
    assert pd.read_csv(metrics)["epoch"].tolist() == [1, 2]
    torch.load(checkpoint, weights_only=True)


def test_a_checkpoint_is_never_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, _ = draw_shapes(tmp_path / "images", 16)
    save = lightning.Trainer.save_checkpoint
    written: list[Path] = []

    def noted(trainer: Any, path: Path, *args: Any, **options: Any) -> None:
        written.append(Path(path))
        save(trainer, path, *args, **options)

    monkeypatch.setattr(lightning.Trainer, "save_checkpoint", noted)
    pretrain(manifest, small_encoder(), tmp_path / "run", epochs=1)
    assert [path.parent for path in written] == [tmp_path / "run"]
    assert written[0].name != "checkpoint.ckpt"
    assert (tmp_path / "run" / "checkpoint.ckpt").is_file()
    assert not written[0].exists()


def test_two_processes_do_not_learn_in_one_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    manifest, _ = draw_shapes(tmp_path / "images", 16)
    (tmp_path / "run").mkdir()
    with ThreadPoolExecutor(1) as pool:
        with FileLock(tmp_path / "run" / ".lock"):
            waiting = pool.submit(pretrain, manifest, small_encoder(), tmp_path / "run", 1)
            end_s = time.monotonic() + 30
            while "waiting for its end" not in caplog.text:
                assert time.monotonic() < end_s
                time.sleep(0.05)
            assert not (tmp_path / "run" / "run.json").exists()
        assert waiting.result(60) == tmp_path / "run" / "encoder"


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    manifest, _ = draw_shapes(tmp_path / "images", 9)
    for path in manifest.paths[:2]:
        path.write_text("no image")
    with pytest.raises(PretrainError, match=r"7 readable images \(2 skipped\)"):
        pretrain(manifest, small_encoder(), tmp_path / "run", epochs=1)
    with pytest.raises(PretrainError, match="epochs 0"):
        pretrain(manifest, small_encoder(), tmp_path / "run", epochs=0)
    assert not (tmp_path / "run" / "encoder").exists()


@pytest.mark.parametrize(
    ("images", "batch_size"), [(8, 8), (20, 8), (40, 16), (100, 32), (600, 64), (9000, 256)]
)
def test_the_batch_fits_the_images(images: int, batch_size: int) -> None:
    assert fitting_batch_size(images, 256) == batch_size


def test_labels_that_nobody_shares_give_no_knn(tmp_path: Path) -> None:
    manifest, _ = draw_shapes(tmp_path / "images", 8)
    labels = {image_id: image_id for image_id in manifest.image_ids}
    pretrain(manifest, small_encoder(), tmp_path / "run", epochs=1, labels=labels)
    assert "knn_macro" not in pd.read_csv(tmp_path / "run" / "metrics.csv")


def test_knn_leaves_the_image_itself_out() -> None:
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(300, 16))
    chance = knn_accuracy(noise, generator.integers(0, 3, 300))
    assert 0.2 < chance.micro < 0.47
    labels = np.repeat(["a", "b", "c"], [200, 50, 1])
    centres = np.repeat(np.eye(3, 16), [200, 50, 1], axis=0)
    clear = knn_accuracy(centres + 0.1 * noise[:251], labels)
    assert (clear.macro, clear.micro) == (1.0, 1.0)
    assert (clear.image_count, clear.label_count) == (250, 2)
    with pytest.raises(ValueError, match="label more images"):
        knn_accuracy(np.eye(3), np.array(["a", "b", "c"]))


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_call(tmp_path: Path) -> None:
    manifest, _ = draw_shapes(tmp_path / "images", 64)
    path = manifest.write(tmp_path / "manifest.parquet")
    code = f"""
import torch
from simclr.encoder import Encoder
from simclr.pretrain import pretrain
from label_studio_config.manifest import Manifest
torch.manual_seed(0)
encoder = Encoder.create({SMALL!r}, image_size_px=32)
pretrain(Manifest.read({str(path)!r}), encoder, {str(tmp_path / "run")!r}, epochs=300)
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    metrics = tmp_path / "run" / "metrics.csv"
    deadline_s = time.monotonic() + 300
    while not (metrics.is_file() and len(metrics.read_text().splitlines()) > 4):
        assert process.poll() is None
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    Encoder.load(tmp_path / "run" / "encoder")  # usable although the run was killed
    checkpoint = torch.load(tmp_path / "run" / "checkpoint.ckpt", weights_only=True)
    done = checkpoint["epoch"] + 1
    assert 2 <= done < 300

    run = tmp_path / "run" / "run.json"
    run.write_text(run.read_text().replace('"epochs": 300', f'"epochs": {done + 2}'))
    schedule = checkpoint["lr_schedulers"][0]
    assert schedule["last_epoch"] == checkpoint["global_step"]
    pretrain(manifest, small_encoder(), tmp_path / "run", epochs=done + 2)
    assert pd.read_csv(metrics)["epoch"].tolist() == list(range(1, done + 3))
    again = torch.load(tmp_path / "run" / "checkpoint.ckpt", weights_only=True)
    steps = checkpoint["global_step"] // done
    assert again["global_step"] == checkpoint["global_step"] + 2 * steps
    moments = again["optimizer_states"][0]["state"][0]["step"]
    assert int(moments) == again["global_step"]  # AdamW went on instead of starting anew


@pytest.mark.slow
def test_features_of_real_images_get_better(tmp_path: Path) -> None:
    table = DATA / "ndsb" / "labels.csv"
    if not table.is_file():
        pytest.skip(f"no real images in {DATA}")
    rows = pd.read_csv(table).sample(600, random_state=0)
    manifest = Manifest(
        pd.DataFrame({"image_id": rows["image"], "path": rows["image"]}), DATA / "ndsb"
    )
    labels = dict(zip(rows["image"], rows["functional_group"], strict=True))
    torch.manual_seed(0)
    encoder = Encoder.create()
    folder = pretrain(manifest, encoder, tmp_path / "run", epochs=10, labels=labels)
    history = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert history["knn_macro"].iloc[-1] > history["knn_macro"].iloc[0] + 0.01
    assert history["loss"].iloc[-1] < history["loss"].iloc[1] - 0.5
    learned = Encoder.load(folder)
    cache = ImageCache.build(manifest, learned.preprocessing, tmp_path / "run" / "cache")
    accuracy = knn_accuracy(
        features_of(learned, cache.images), np.array([labels[name] for name in cache.image_ids])
    )
    assert accuracy.macro == pytest.approx(history["knn_macro"].iloc[-1], abs=1e-3)
