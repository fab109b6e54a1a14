"""A training from tasks to a live version, and all that must not harm the live one."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from PIL import Image

from label_studio_config.manifest import Manifest
from label_studio_config.schema import LabelSchema
from ml_backend.calibrate import expected_calibration_error
from ml_backend.checkpoint import CHECKPOINT
from ml_backend.evaluate import FEW_IMAGES
from ml_backend.fine_tune import FineTune, FineTuneSettings
from ml_backend.fit import FROM_SCRATCH, FitSettings
from ml_backend.folds import FOLDS
from ml_backend.head import Head
from ml_backend.model import TraitModel
from ml_backend.predict import predict
from ml_backend.registry import Registry
from ml_backend.report import TrainingReport
from ml_backend.split import SplitRule
from ml_backend.targets import ControlTargets, LearningSet
from ml_backend.train import TrainingRefused, train
from simclr.encoder import Encoder
from tests.trait_fixtures import XML, make_tasks, resolver

SCHEMA = LabelSchema.from_xml(XML)
QUICK = FitSettings(
    untrained=True, views=1, fine_tune=FineTuneSettings(epochs=2, min_images_per_epoch=128)
)
NDSB = Path(os.environ.get("PLANKTRAIT_NDSB", Path(__file__).parents[2] / "shared/data/ndsb"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """A small encoder, so that trainings take seconds; the same whatever was drawn before."""
    torch.manual_seed(0)
    return Encoder.create("resnet10t", image_size_px=32).save(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


def run(
    tasks: list[dict[str, Any]],
    images: Path,
    registry: Registry,
    encoder: Path | None,
    schema: LabelSchema = SCHEMA,
    settings: FitSettings = QUICK,
) -> TrainingReport:
    return train(
        tasks,
        schema,
        resolve_image=resolver(images),
        registry=registry,
        encoder=encoder,
        settings=settings,
    )


def test_from_tasks_to_a_live_version(images: Path, tmp_path: Path, encoder: Path) -> None:
    registry = Registry(tmp_path / "project-1")
    tasks = make_tasks(images, 200, annotators=2, blind_share=0.15)
    settings = replace(QUICK, cross_fit_below=0)
    report = run(tasks, images, registry, encoder, settings=settings)
    assert report.promotion.promoted
    assert registry.live is not None
    assert registry.live.name == "project-1-v0001"
    group = report.metrics["test"]["group"]
    assert group["macro_recall"] > group["majority_macro_recall"] + 0.2
    assert {"group", "diameter"} <= set(report.metrics["blind"])
    assert report.record["left_out"] == {"flags": "no votes on training images"}
    assert any("held-out images" in note for note in report.promotion.notes)
    folder = registry.live.folder
    card = (folder / "README.md").read_text()
    assert "macro recall" in card
    assert "square-root balanced" in card
    assert "to the power -0.5, which leans towards rare labels" in card
    tempered = {head["control"]: head["tempered"] for head in report.record["heads"]}
    assert tempered == {"group": True, "spot": False, "diameter": False}
    assert "**Not calibrated: spot**" in card
    assert group["ece_before_correction"] != group["ece"]
    assert "flags: no votes" in card
    decision = json.loads((folder / "promotion.json").read_text())
    assert decision["promoted"]
    assert decision["notes"] == report.promotion.notes
    assert f"Promoted when it was made: {decision['reason']}" in card
    assert all(note in card for note in decision["notes"])
    assert LabelSchema.from_xml(registry.live.schema_xml).fingerprint == SCHEMA.fingerprint
    stored = json.loads(
        (folder / "metrics.json").read_text(), parse_constant=lambda text: pytest.fail(text)
    )
    assert stored["data_fingerprint"] == report.record["data_fingerprint"]
    json.dumps(report.as_dict(), allow_nan=False)
    model = TraitModel.load(folder)
    assert {head.control for head in model.heads} == {"group", "spot", "diameter"}
    assert not (registry.folder / ".work" / CHECKPOINT).exists()


def test_blind_images_change_nothing_but_their_own_figures(
    images: Path, tmp_path: Path, encoder: Path
) -> None:
    """The same training twice; the second time every blind image bears the wrong group."""
    reports = []
    for wrong in (False, True):
        tasks = make_tasks(images, 120, blind_share=0.3, wrong_if_blind=wrong)
        reports.append(run(tasks, images, Registry(tmp_path / f"wrong-{wrong}"), encoder))
    right, wrong_blind = reports
    assert right.record["images"]["blind"] > 20
    assert right.record["heads"] == wrong_blind.record["heads"]
    for name in ("heads.safetensors", "encoder/model.safetensors"):
        first, second = ((r.version.folder / name).read_bytes() for r in reports)
        assert first == second
    accuracy = [r.metrics["blind"]["group"]["micro_accuracy"] for r in reports]
    assert accuracy[1] < accuracy[0] - 0.2
    assert right.metrics["test"] == wrong_blind.metrics["test"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda task: task.update(annotations=[]), "No votes|no votes"),
        (lambda task: relabel(task, "Rod"), r"one label only \(Rod\)"),
        (lambda task: task["data"].update(blind="yes"), "no votes on training images"),
        (lambda task: relabel(task, "Cannot tell"), "no votes on training images"),
    ],
    ids=["none annotated", "one class", "all blind", "none assessable"],
)
def test_nothing_to_learn_is_refused_and_the_live_model_stays(
    images: Path, tmp_path: Path, encoder: Path, change, reason: str
) -> None:
    registry = Registry(tmp_path / "p")
    tasks = make_tasks(images, 80)
    run(tasks, images, registry, encoder)
    live = registry.live
    for task in tasks:
        change(task)
    groups_only = LabelSchema.from_xml(XML.replace("Number", "TextArea"))
    with pytest.raises(TrainingRefused, match=reason):
        run(tasks, images, registry, encoder, schema=groups_only)
    assert registry.live == live
    assert len(registry.list()) == 1


def relabel(task: dict[str, Any], label: str) -> None:
    for annotation in task["annotations"]:
        annotation["result"] = [
            {
                "from_name": "group",
                "to_name": "image",
                "type": "choices",
                "value": {"choices": [label]},
            }
        ]


def test_bad_images_are_skipped_listed_and_counted(
    images: Path, tmp_path: Path, encoder: Path
) -> None:
    tasks = make_tasks(images, 100)
    (images / "4.png").write_bytes(b"")
    (images / "5.png").unlink()
    tasks[6]["data"]["image"] = "/data/local-files/?d=../secret.png"
    report = run(tasks, images, Registry(tmp_path / "p"), encoder)
    assert len(report.skipped) == 3
    assert sum(report.record["images"].values()) == 97
    assert any("3 image(s) could not be read" in note for note in report.record["notes"])


def test_a_worse_version_is_kept_but_not_promoted(
    images: Path, tmp_path: Path, encoder: Path, caplog
) -> None:
    registry = Registry(tmp_path / "p")
    tasks = make_tasks(images, 500)
    settings = replace(QUICK, fine_tune=replace(QUICK.fine_tune, epochs=0))
    run(tasks, images, registry, encoder, settings=settings)
    rng = np.random.default_rng(0)
    held_out = held_out_ids(tasks)
    for task in tasks:  # an annotator who answers at random, on all but the held-out images
        if task["data"]["image_id"] not in held_out:
            relabel(task, str(rng.choice(["Disc", "Rod", "Ring"])))
    with caplog.at_level(logging.WARNING):
        report = run(tasks, images, registry, encoder, settings=settings)
    assert not report.promotion.promoted
    assert report.promotion.difference_interval[1] < 0
    assert registry.live is not None
    assert registry.live.name == "p-v0001"
    assert [v.name for v in registry.list()] == ["p-v0001", "p-v0002"]
    assert "stays unpromoted" in caplog.text
    assert f"fewer than {FEW_IMAGES}" in caplog.text
    assert (
        "Not promoted when it was made: worse than"
        in (report.version.folder / "README.md").read_text()
    )


def test_blind_images_of_samples_that_teach_are_told_apart(
    images: Path, tmp_path: Path, encoder: Path
) -> None:
    registry = Registry(tmp_path / "p")
    tasks = make_tasks(images, 240, blind_share=0.3, samples=40)
    report = run(tasks, images, registry, encoder)
    rule = SplitRule(unit="sample")
    taught = {
        task["data"]["sample_id"]
        for task in tasks
        if task["data"]["blind"] == "no" and rule.side(task["data"]["sample_id"]) == "train"
    }
    blind = [task["data"]["sample_id"] for task in tasks if task["data"]["blind"] == "yes"]
    apart = [sample for sample in blind if sample not in taught]
    assert 20 <= len(apart) < len(blind)
    assert report.record["blind"]["images_apart"] == len(apart)
    share = report.record["blind"]["share_in_training_samples"]
    assert share == pytest.approx(1 - len(apart) / len(blind))
    assert report.metrics["blind_apart"]["group"]["n_images"] == len(apart)
    assert report.metrics["blind"]["group"]["n_images"] == len(blind)
    card = (report.version.folder / "README.md").read_text()
    assert f"{share:.0%} of the blind images are from samples that also have training" in card
    assert "On blind images of samples that taught it nothing" in card


def test_held_out_and_blind_images_decide_neither_colour_nor_unit(
    images: Path, tmp_path: Path
) -> None:
    """Every training image is grey with a pixel size; all others are coloured, with none."""
    tasks = make_tasks(images, 100, blind_share=0.6)
    rule = SplitRule(unit="image")
    for number, task in enumerate(tasks):
        data = task["data"]
        if data["blind"] == "no" and rule.side(data["image_id"]) == "train":
            data["pixel_size_um"] = 10.0
        else:
            path = images / f"{number}.png"
            Image.merge(
                "RGB", [Image.open(path), *[Image.new("L", Image.open(path).size)] * 2]
            ).save(path)
    settings = replace(QUICK, fine_tune=replace(QUICK.fine_tune, epochs=0))
    report = run(tasks, images, Registry(tmp_path / "p"), None, settings=settings)
    model = TraitModel.load(report.version.folder)
    assert model.encoder.preprocessing.channels == 1
    assert model.extent_unit == "um"


def held_out_ids(tasks: list[dict[str, Any]]) -> set[str]:
    rule = SplitRule(unit="image")
    ids = [task["data"]["image_id"] for task in tasks]
    return {image_id for image_id in ids if rule.side(image_id) == "test"}


def test_a_config_changed_after_training(images: Path, tmp_path: Path, encoder: Path) -> None:
    """A new label and a renamed control: the next version learns both; what was lost is named."""
    registry = Registry(tmp_path / "p")
    tasks = make_tasks(images, 150)
    run(tasks, images, registry, encoder)
    xml = XML.replace('<Choice value="Ring"/>', '<Choice value="Ring"/><Choice value="Star"/>')
    changed = LabelSchema.from_xml(xml.replace('name="spot"', 'name="mark"'))
    for task in tasks:
        for annotation in task["annotations"]:
            for entry in annotation["result"]:
                if entry["from_name"] == "spot":
                    entry["from_name"] = "mark"
    report = run(tasks, images, registry, encoder, schema=changed)
    assert report.promotion.shared_controls == ("group", "diameter")
    notes = " ".join(report.promotion.notes)
    assert "'spot': the config has no such control any more" in notes
    assert "'mark' is new in this version" in notes
    assert any("no training votes yet for Star" in note for note in report.record["notes"])


def test_samples_stay_together_and_the_rule_is_kept(
    images: Path, tmp_path: Path, encoder: Path
) -> None:
    registry = Registry(tmp_path / "p")
    report = run(make_tasks(images, 150, samples=30), images, registry, encoder)
    assert report.record["split"]["unit"] == "sample"
    rule = SplitRule.read(registry.folder)
    assert rule is not None
    assert rule.unit == "sample"


def test_only_one_training_at_a_time(images: Path, tmp_path: Path, encoder: Path) -> None:
    registry = Registry(tmp_path / "p")
    (registry.folder / ".work").mkdir()
    with (
        FileLock(registry.folder / ".work" / "lock"),
        pytest.raises(TrainingRefused, match="another training"),
    ):
        run(make_tasks(images, 20), images, registry, encoder)


def test_a_checkpoint_of_other_data_is_not_used(
    images: Path, tmp_path: Path, encoder: Path, caplog
) -> None:
    registry = Registry(tmp_path / "p")
    (registry.folder / ".work").mkdir()
    (registry.folder / ".work" / CHECKPOINT).write_bytes(b"broken")
    with caplog.at_level(logging.WARNING):
        report = run(make_tasks(images, 80), images, registry, encoder)
    assert "starting clean" in caplog.text
    assert report.promotion.promoted


def test_killed_after_the_fine_tuning_its_epochs_are_not_run_again(
    images: Path, tmp_path: Path, encoder: Path, monkeypatch
) -> None:
    """Calibration, evaluation and writing come after: whatever stops them, the epochs are kept."""
    registry = Registry(tmp_path / "p")
    tasks = make_tasks(images, 80)
    with pytest.raises(KeyboardInterrupt), killed_before_writing(registry):
        run(tasks, images, registry, encoder)
    epochs = count_epochs(monkeypatch)
    run(tasks, images, registry, encoder)
    assert epochs == []
    assert not (registry.folder / ".work" / CHECKPOINT).exists()


@contextmanager
def killed_before_writing(registry: Registry) -> Iterator[None]:
    """A version is taught, calibrated and measured; then comes Ctrl-C."""
    with patch.object(registry, "add", side_effect=KeyboardInterrupt):
        yield


def count_epochs(monkeypatch) -> list[int]:
    """Fills with the number of each epoch that is trained from now on."""
    trained: list[int] = []
    train_epoch = FineTune._train_epoch

    def counted(self: FineTune) -> float:
        trained.append(self.epoch)
        return train_epoch(self)

    monkeypatch.setattr(FineTune, "_train_epoch", counted)
    return trained


def test_a_loss_that_is_no_number_makes_no_version(
    images: Path, tmp_path: Path, encoder: Path
) -> None:
    registry = Registry(tmp_path / "p")
    wild = replace(QUICK.fine_tune, encoder_learning_rate=1e30, head_learning_rate=1e30)
    with pytest.raises(TrainingRefused, match="lower learning rates"):
        run(
            make_tasks(images, 80),
            images,
            registry,
            encoder,
            settings=replace(QUICK, fine_tune=wild),
        )
    assert registry.list() == []
    assert registry.live is None
    assert not (registry.folder / ".work" / CHECKPOINT).exists()


def test_controls_in_another_order_start_clean(
    images: Path, tmp_path: Path, encoder: Path, monkeypatch
) -> None:
    """Heads are numbered in the order of the config: a checkpoint of the other order is no use."""
    registry = Registry(tmp_path / "p")
    tasks = make_tasks(images, 80)
    with pytest.raises(KeyboardInterrupt), killed_before_writing(registry):
        run(tasks, images, registry, encoder)
    number = '<Number name="diameter" toName="image" unit="px"/>'
    first = XML.replace(number, "").replace("<View>\n  <Image", f"<View>{number}\n  <Image")
    reordered = LabelSchema.from_xml(first)
    assert reordered.trainable[0].name == "diameter"
    epochs = count_epochs(monkeypatch)
    report = run(tasks, images, registry, encoder, schema=reordered)
    # Where the whole network was chosen, it learns anew from both sides.
    assert epochs[:2] == [0, 1]
    group = report.metrics["test"]["group"]
    assert group["macro_recall"] > group["majority_macro_recall"]


def test_a_checkpoint_that_does_not_fit_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    run_of = fine_tuning(tmp_path)
    run_of._save()
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    # The encoder would be loaded before the heads are found not to fit.
    for name, tensor in state["model"].items():
        if name.startswith("encoder.") and tensor.is_floating_point():
            tensor.zero_()
    state["model"]["classifiers.0.weight"] = torch.zeros(1, 1)
    torch.save(state, tmp_path / CHECKPOINT)
    again = fine_tuning(tmp_path)
    before = {name: tensor.clone() for name, tensor in again.model.state_dict().items()}
    again._resume()
    assert again.epoch == 0
    after = again.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("learned_below", [2.0, 0.002])
def test_it_ends_when_nothing_is_left_to_learn(
    tmp_path: Path, monkeypatch, learned_below: float
) -> None:
    """Blank images of three kinds: the loss stays about 1.1, the entropy of a guess."""
    settings = FineTuneSettings(epochs=4, min_images_per_epoch=16, learned_below=learned_below)
    epochs = count_epochs(monkeypatch)
    fine_tuning(tmp_path, settings).run()
    wanted = [0, 1] if learned_below == 2.0 else [0, 1, 2, 3]
    assert epochs == wanted
    fine_tuning(tmp_path, settings).run()
    assert epochs == wanted


def test_a_fine_tuning_masks_images_without_votes(tmp_path: Path) -> None:
    """Their gradient is exactly zero, and what stands in their shares changes nothing."""
    n_votes = np.array([1, 0, 2, 0, 1, 1, 0, 1])
    outputs = torch.randn(8, 3, requires_grad=True, generator=torch.Generator().manual_seed(0))
    losses = []
    for other in (0.0, 0.7, np.nan):
        shares = np.where(n_votes[:, None] > 0, ONE_HOT, np.float32(other))
        run_of = fine_tuning(tmp_path, target=ControlTargets(GROUP, shares, n_votes))
        losses.append(run_of._loss({"group": outputs}, torch.arange(8)))
    assert losses[0] == losses[1] == losses[2]
    sum(losses).backward()
    assert outputs.grad is not None
    assert ((outputs.grad == 0).all(dim=1).numpy() == (n_votes == 0)).all()


def test_without_any_vote_a_fine_tuning_changes_nothing(tmp_path: Path) -> None:
    run_of = fine_tuning(tmp_path, target=ControlTargets(GROUP, ONE_HOT, np.zeros(8, dtype=int)))
    before = {name: tensor.clone() for name, tensor in run_of.model.state_dict().items()}
    after = run_of.run().state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_images_that_were_judged_but_not_assessable_do_not_stop_a_fine_tuning(
    images: Path, tmp_path: Path, encoder: Path
) -> None:
    """A batch of them alone would have no loss: none of them is drawn."""
    tasks = make_tasks(images, 100)
    for task in tasks[20:]:
        relabel(task, "Cannot tell")
    fine_tune = FineTuneSettings(epochs=1, min_images_per_epoch=128, batch_size=4)
    settings = replace(QUICK, fine_tune=fine_tune, refit_below=0, cross_fit_below=0)
    report = run(tasks, images, Registry(tmp_path / "p"), encoder, settings=settings)
    assert report.promotion.promoted
    assert report.record["images"]["train"] > 50


GROUP = SCHEMA.control("group")
ONE_HOT = np.eye(3, dtype=np.float32)[np.arange(8) % 3]


def fine_tuning(
    folder: Path, settings: FineTuneSettings | None = None, target: ControlTargets | None = None
) -> FineTune:
    """A run on eight blank images, each with a vote if no targets are given."""
    torch.manual_seed(0)
    head = Head("group", "one of", ("Disc", "Rod", "Ring"))
    target = target or ControlTargets(GROUP, ONE_HOT, np.ones(8, dtype=int))
    table = pd.DataFrame({"image_id": [str(n) for n in range(8)], "side": "train"})
    return FineTune(
        TraitModel(Encoder.create("resnet10t", 32), [head], SCHEMA),
        LearningSet(SCHEMA, table, {"group": target}),
        np.zeros((8, 1, 32, 32), dtype=np.uint8),
        np.zeros((8, 2), dtype=np.float32),
        np.ones(8),
        settings or FineTuneSettings(epochs=1),
        folder,
        "mark",
    )


KILLED = """
import logging, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {root!r})
logging.basicConfig(level=logging.INFO)
from tests.test_train import QUICK, run
from tests.trait_fixtures import make_tasks
from ml_backend.registry import Registry
images = Path({images!r})
settings = replace(QUICK, fine_tune=replace(QUICK.fine_tune, epochs={epochs}))
tasks = make_tasks(images, 80)
run(tasks, images, Registry({registry!r}), Path({encoder!r}), settings=settings)
"""


@pytest.mark.slow
def test_killed_half_way_it_resumes_and_the_live_model_stays(
    images: Path, tmp_path: Path, encoder: Path, monkeypatch
) -> None:
    registry = Registry(tmp_path / "p")
    run(make_tasks(images, 80), images, registry, encoder)
    epochs = 12
    script = KILLED.format(
        root=str(Path(__file__).parents[1]),
        images=str(images),
        registry=str(registry.folder),
        encoder=str(encoder),
        epochs=epochs,
    )
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    checkpoint = registry.folder / ".work" / CHECKPOINT
    deadline_s = time.monotonic() + 300
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    assert registry.live is not None
    assert registry.live.name == "p-v0001"
    assert len(registry.list()) == 1

    settings = replace(QUICK, fine_tune=replace(QUICK.fine_tune, epochs=epochs))
    done = torch.load(checkpoint, weights_only=True)["epoch"]
    assert 0 < done < epochs
    trained = count_epochs(monkeypatch)
    resumed = run(make_tasks(images, 80), images, registry, encoder, settings=settings)
    # The rest of the killed run, and then, where the whole network was better than heads alone, all
    # of those that judge a fifth each, and of the one that the validation images teach too.
    rest, again = trained[: epochs - done], trained[epochs - done :]
    assert rest == [*range(done, epochs)]
    assert again in ([], [*range(epochs)] * (FOLDS + 1))
    straight = run(
        make_tasks(images, 80), images, Registry(tmp_path / "q"), encoder, settings=settings
    )
    assert resumed.version.name == "p-v0002"
    # The resumed run draws what the killed one would have drawn: the same model to rounding.
    assert resumed.metrics["test"]["group"]["nll"] == pytest.approx(
        straight.metrics["test"]["group"]["nll"], abs=0.05
    )


@pytest.mark.slow
@pytest.mark.skipif(not NDSB.exists(), reason=f"no real images in {NDSB}")
def test_real_images_from_scratch_beat_the_majority(tmp_path: Path) -> None:
    """1,500 votes of ndsb's 21 groups, no SimCLR; evaluated on the 15 % held out."""
    everything = pd.read_csv(NDSB / "labels.csv").sample(frac=1, random_state=0)
    table, others = everything[:1500], everything[1500:4500]
    choices = "".join(
        f'<Choice value="{group}"/>' for group in sorted(table["functional_group"].unique())
    )
    schema = LabelSchema.from_xml(
        f'<View><Image name="image" value="$image"/><Choices name="group" toName="image">{choices}'
        "</Choices></View>"
    )
    tasks = [
        {
            "id": number,
            "data": {"image": row.image, "image_id": row.image},
            "annotations": [
                {
                    "id": number,
                    "completed_by": 1,
                    "result": [
                        {
                            "from_name": "group",
                            "to_name": "image",
                            "type": "choices",
                            "value": {"choices": [row.functional_group]},
                        }
                    ],
                }
            ],
        }
        for number, row in enumerate(table.itertuples())
    ]
    report = train(
        tasks,
        schema,
        resolve_image=lambda url: NDSB / url,
        registry=Registry(tmp_path / "ndsb"),
        settings=replace(FROM_SCRATCH, fine_tune=replace(FROM_SCRATCH.fine_tune, epochs=12)),
    )
    group = report.metrics["test"]["group"]
    print({k: v for k, v in group.items() if k != "per_label"}, report.record["seconds"])
    assert group["macro_recall"] > group["majority_macro_recall"] + 0.25
    assert group["micro_accuracy"] > 0.45
    held_out = [SplitRule(unit="image").side(image) == "test" for image in table["image"]]
    assert calibration_errors(report, table[held_out])[0] == pytest.approx(group["ece"], abs=1e-4)
    # Of 240 images the two differ by chance; of 3,000 that nobody labelled they do not.
    tempered, untempered = calibration_errors(report, others)
    print("ECE tempered, untempered", tempered, untempered)
    assert tempered < untempered


def calibration_errors(report: TrainingReport, table: pd.DataFrame) -> tuple[float, float]:
    """ECE on the images of `table`, with the fitted temperature and without."""
    truth_of = dict(zip(table["image"], table["functional_group"], strict=True))
    images = sorted(truth_of)
    manifest = Manifest(pd.DataFrame({"image_id": images, "path": images}), NDSB)
    model = TraitModel.load(report.version.folder)
    errors = []
    for temperature in (model.head("group").temperature, 1.0):
        model.set_head(replace(model.head("group"), temperature=temperature))
        predictions = predict(model, manifest)
        labels = predictions.served[0].labels
        truth = np.array([labels.index(truth_of[i]) for i in predictions.images["image_id"]])
        right = predictions.choices["group"].argmax(axis=1) == truth
        errors.append(expected_calibration_error(predictions.confidence, right))
    return errors[0], errors[1]
