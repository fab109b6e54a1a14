"""Predictions as suggestions for Label Studio and as Parquet shards."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from hpc_jobs.processors import processors
from label_studio_config.manifest import Manifest
from label_studio_config.prediction import labels_of
from label_studio_config.prediction_shards import ShardError, Shards
from label_studio_config.results import read_novelty, read_probabilities, read_result
from label_studio_config.schema import LabelSchema
from ml_backend import predict as predict_module
from ml_backend.head import Head
from ml_backend.images import DecodingError, read_batches
from ml_backend.model import TraitModel
from ml_backend.novelty import Novelty
from ml_backend.predict import predict, write_predictions
from ml_backend.predict_pieces import extractor_of, predict_in_pieces
from simclr.encoder import Encoder
from simclr.inference import FeatureExtractor
from simclr.marked_shards import ShardsError
from simclr.preprocessing import Preprocessing
from tests.small_disk import small_disk
from tests.trait_fixtures import XML, make_tasks

SCHEMA = LabelSchema.from_xml(XML)
SMALL = Preprocessing(image_size_px=32)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    """Twelve drawn images, two of which cannot be read."""
    folder = tmp_path_factory.mktemp("images")
    make_tasks(folder, 12)
    (folder / "3.png").write_bytes(b"")
    (folder / "7.png").write_text("not an image")
    table = pd.DataFrame(
        {
            "image_id": [f"image-{n}" for n in range(12)],
            "path": [f"{n}.png" for n in range(12)],
            "sample_id": [f"haul-{n % 2}" for n in range(12)],
        }
    )
    return Manifest(table, folder)


def make_model(xml: str = XML) -> TraitModel:
    torch.manual_seed(0)
    half = (0.5, 0.5)
    heads = [
        Head(
            "group",
            "one of",
            ("Disc", "Rod", "Ring"),
            trained_prior=(0.3, 0.3, 0.4),
            deployed_prior=(0.3, 0.3, 0.4),
        ),
        Head("spot", "one of", ("with spot", "no spot"), trained_prior=half, deployed_prior=half),
        Head("flags", "any of", ("dark", "noisy"), trained_prior=half, deployed_prior=half),
        Head("diameter", "number", unit="px", offset=40.0, scale=10.0, sd=2.5, half_width_95=6.0),
    ]
    model = TraitModel(Encoder.create("resnet10t", 32), heads, LabelSchema.from_xml(xml))
    for classifier in model.classifiers:
        torch.nn.init.normal_(classifier.weight, std=0.2)  # type: ignore[arg-type]
    return model.eval()


def test_bad_images_are_skipped_and_listed(manifest: Manifest) -> None:
    predictions = predict(make_model(), manifest)
    assert len(predictions) == 10
    assert "image-3" not in set(predictions.images["image_id"])
    assert sorted(Path(s.path).name for s in predictions.skipped) == ["3.png", "7.png"]
    assert all(s.reason for s in predictions.skipped)


def test_a_batch_of_bad_images_only(manifest: Manifest) -> None:
    predictions = predict(make_model(), manifest.select(["image-3", "image-7"]))
    assert len(predictions) == 0
    assert len(predictions.skipped) == 2
    assert predictions.table().num_rows == 0


def test_batches_do_not_change_answers(manifest: Manifest) -> None:
    one, many = predict(make_model(), manifest, batch_size=1), predict(make_model(), manifest)
    np.testing.assert_allclose(one.values["group"], many.values["group"], atol=1e-5)
    assert list(one.images["image_id"]) == list(many.images["image_id"])


def test_suggestions_are_valid_for_the_config(manifest: Manifest) -> None:
    predictions = predict(make_model(), manifest, model_version="p-v0001")
    suggestions = predictions.suggestions()
    assert set(suggestions) == set(predictions.images["image_id"])
    for suggestion in suggestions.values():
        answers = read_result(SCHEMA, suggestion["result"])  # raises on what does not fit
        assert suggestion["model_version"] == "p-v0001"
        probabilities = read_probabilities(suggestion["result"])["group"]
        assert sum(probabilities.values()) == pytest.approx(1.0, abs=0.001)
        assert suggestion["score"] == pytest.approx(
            probabilities[answers["group"].labels[0]], abs=0.001
        )


def test_a_trait_is_suggested_only_where_its_condition_holds(manifest: Manifest) -> None:
    model = make_model()
    groups = set()
    for wanted in ("Disc", "Ring"):
        index = ("Disc", "Rod", "Ring").index(wanted)
        with torch.no_grad():
            model.classifiers[0].weight.zero_()  # type: ignore[operator]
            model.classifiers[0].bias.copy_(torch.eye(3)[index] * 9)  # type: ignore[operator]
        predictions = predict(model, manifest)
        for suggestion in predictions.suggestions().values():
            answers = read_result(SCHEMA, suggestion["result"])
            groups.add(answers["group"].labels[0])
            assert ("spot" in answers) == (answers["group"].labels == ("Disc",))
        spots = predictions.table().column("spot").to_pylist()
        assert all((spot is not None) == (wanted == "Disc") for spot in spots)
    assert groups == {"Disc", "Ring"}


def test_the_table_holds_what_the_contract_says(manifest: Manifest) -> None:
    table = predict(make_model(), manifest, model_version="p-v0002").table()
    assert table.column("model_version").to_pylist() == ["p-v0002"] * 10
    assert table.column("sample_id")[0].as_py() == "haul-0"
    probabilities = np.array(table.column("group__probabilities").to_pylist())
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)
    labels = labels_of(table.schema.field("group__probabilities"))
    assert labels == ("Disc", "Rod", "Ring")
    chosen = table.column("group").to_pylist()
    np.testing.assert_allclose(
        table.column("confidence").to_pylist(),
        [row[labels.index(name)] for row, name in zip(probabilities, chosen, strict=True)],
        atol=1e-5,
    )
    assert table.column("diameter__sd").to_pylist() == [2.5] * 10
    low, high = (table.column(f"diameter__{end}95").to_numpy() for end in ("low", "high"))
    np.testing.assert_allclose(high - low, 12, rtol=1e-5)
    assert len(table.column("embedding")[0].as_py()) == 512
    assert table.column("novelty").null_count == 10


def test_a_changed_config_keeps_what_fits(manifest: Manifest) -> None:
    xml = XML.replace('<Choice value="Ring"/>', "").replace('name="flags"', 'name="marks"')
    schema = LabelSchema.from_xml(xml)
    predictions = predict(make_model(), manifest, schema=schema)
    assert set(predictions.unfit) == {"flags", "marks"}
    for suggestion in predictions.suggestions().values():
        answers = read_result(schema, suggestion["result"])
        assert answers["group"].labels[0] in ("Disc", "Rod")


def test_without_a_head_that_fits_there_is_nothing_to_say(manifest: Manifest) -> None:
    xml = (
        '<View><Image name="i" value="$image"/><Choices name="new" toName="i">'
        '<Choice value="a"/><Choice value="b"/></Choices></View>'
    )
    predictions = predict(make_model(), manifest, schema=LabelSchema.from_xml(xml))
    suggestion = predictions.suggestions()["image-0"]
    assert suggestion["result"] == []
    assert suggestion["score"] is None


def test_sizes_in_um_need_a_pixel_size(manifest: Manifest) -> None:
    table = manifest.table.assign(pixel_size_um=[2.0] * 6 + [np.nan] * 6)
    mixed = Manifest(table, manifest.root)
    batches = list(read_batches(mixed, SMALL, 4, "um"))
    assert sum(len(b.rows) for b in batches) == 5
    reasons = {s.reason for b in batches for s in b.skipped}
    assert any("pixel_size_um" in reason for reason in reasons)
    in_px = next(iter(read_batches(mixed, SMALL, 4, "px"))).log_extents
    np.testing.assert_allclose(batches[0].log_extents, in_px + np.log(2.0), atol=1e-5)


def test_novelty_is_low_for_ordinary_images_and_high_for_others() -> None:
    rng = np.random.default_rng(0)
    centre = rng.normal(size=64).astype(np.float32) * 3
    ordinary = centre + rng.normal(size=(600, 64)).astype(np.float32)
    novelty = Novelty.fit(ordinary[:300], ordinary[300:500])
    assert novelty is not None
    assert novelty.score(ordinary[500:]).mean() == pytest.approx(0.5, abs=0.1)
    assert novelty.score(-ordinary[500:]).min() == 1.0
    assert Novelty.fit(ordinary[:300], ordinary[300:305]) is None


def test_novelty_travels_with_the_model(manifest: Manifest, tmp_path: Path) -> None:
    model = make_model()
    rng = np.random.default_rng(0)
    model.novelty = Novelty.fit(
        rng.random((30, 512)).astype(np.float32), rng.random((30, 512)).astype(np.float32)
    )
    model.save(tmp_path)
    predictions = predict(TraitModel.load(tmp_path), manifest)
    assert ((predictions.novelty >= 0) & (predictions.novelty <= 1)).all()
    first = predictions.suggestions()["image-0"]["result"]
    assert read_novelty(first) == pytest.approx(float(predictions.novelty[0]), abs=1e-3)


def test_shards_are_resumed(manifest: Manifest, tmp_path: Path, monkeypatch) -> None:
    shards, skipped = write_predictions(
        make_model(), manifest, tmp_path, model_version="p-v0001", shard_size=5
    )
    assert [s.name for s in shards] == [f"part-0000{n}.parquet" for n in range(3)]
    assert len(skipped) == 2
    assert pq.read_table(tmp_path).num_rows == 10
    shards[1].unlink()
    asked = []

    def counted(model, part, *args, **kwargs):
        asked.append(len(part))
        return predict_in_pieces(model, part, *args, **kwargs)

    monkeypatch.setattr(predict_module, "predict_in_pieces", counted)
    again, skipped_again = write_predictions(
        make_model(), manifest, tmp_path, model_version="p-v0001", shard_size=5
    )
    assert again == shards
    assert asked == [5]
    assert len(skipped_again) == 2


def test_shards_of_another_version_are_refused(manifest: Manifest, tmp_path: Path) -> None:
    write_predictions(make_model(), manifest, tmp_path, model_version="p-v0001")
    with pytest.raises(ShardsError, match="another version"):
        write_predictions(make_model(), manifest, tmp_path, model_version="p-v0002")


def test_shards_of_other_weights_under_the_same_name_are_refused(
    manifest: Manifest, tmp_path: Path
) -> None:
    write_predictions(make_model(), manifest, tmp_path, model_version="p-v0001")
    retrained = make_model()
    with torch.no_grad():
        retrained.input_mean += 1.0
    with pytest.raises(ShardsError, match="another version"):
        write_predictions(retrained, manifest, tmp_path, model_version="p-v0001")


def test_shards_at_other_pixel_sizes_are_refused(manifest: Manifest, tmp_path: Path) -> None:
    sized = Manifest(manifest.table.assign(pixel_size_um=10.0), manifest.root)
    write_predictions(make_model(), sized, tmp_path, model_version="p-v0001")
    other = Manifest(manifest.table.assign(pixel_size_um=20.0), manifest.root)
    with pytest.raises(ShardsError, match="other pixel sizes"):
        write_predictions(make_model(), other, tmp_path, model_version="p-v0001")


def test_shards_of_a_longer_run_are_refused(manifest: Manifest, tmp_path: Path) -> None:
    write_predictions(make_model(), manifest, tmp_path, model_version="p-v0001", shard_size=4)
    first = manifest.select([f"image-{n}" for n in range(4)])
    with pytest.raises(ShardsError, match=r"part-00001\.parquet is left from a run with more"):
        write_predictions(make_model(), first, tmp_path, model_version="p-v0001", shard_size=4)


@pytest.mark.parametrize("size", [2, 4, 6, 20])
def test_shards_of_another_size_are_named_as_such(
    manifest: Manifest, tmp_path: Path, size: int
) -> None:
    shards, _ = write_predictions(make_model(), manifest, tmp_path, shard_size=5)
    with pytest.raises(
        ShardsError, match=r"00000.*of another --shard-size: .* give --shard-size 5,"
    ):
        write_predictions(make_model(), manifest, tmp_path, shard_size=size)
    shards[0].unlink()
    shards[1].unlink()  # as of one call among several
    with pytest.raises(ShardsError, match="give --shard-size 5,"):
        write_predictions(make_model(), manifest, tmp_path, shard_size=size)


def test_shards_of_fewer_images_are_named_as_such(manifest: Manifest, tmp_path: Path) -> None:
    first = manifest.select(manifest.image_ids[:7])
    write_predictions(make_model(), first, tmp_path, shard_size=20)
    with pytest.raises(ShardsError, match="of another --shard-size, or of fewer images"):
        write_predictions(make_model(), manifest, tmp_path, shard_size=20)


def test_a_part_without_shards_says_so(manifest: Manifest, tmp_path: Path, caplog) -> None:
    shards, _ = write_predictions(make_model(), manifest, tmp_path, shard_size=5, part=(3, 8))
    assert not shards
    assert "--part 3/8: there are 3 shard(s), and others make them" in caplog.text


def test_numbers_alone_have_no_confidence(manifest: Manifest) -> None:
    model = make_model()
    only = TraitModel(model.encoder, [replace(model.head("diameter"))], model.schema)
    assert np.isnan(predict(only, manifest).confidence).all()


def test_a_damaged_shard_is_made_anew(manifest: Manifest, tmp_path: Path, caplog) -> None:
    shards, _ = write_predictions(make_model(), manifest, tmp_path, shard_size=5)
    whole = pq.read_table(tmp_path)
    size = shards[1].stat().st_size
    for left in (0, 100, size - 20, size):
        with shards[1].open("r+b") as file:
            file.truncate(left)
            if left == size:  # as a power cut leaves it
                file.seek(size // 3)
                file.write(bytes(100))
        _, skipped = write_predictions(make_model(), manifest, tmp_path, shard_size=5)
        assert len(skipped) == 2
        assert "part-00001.parquet is damaged" in caplog.text
        again = pq.read_table(tmp_path)
        assert again.column("image_id").equals(whole.column("image_id"))
        assert again.column("group").equals(whole.column("group"))


def test_shards_without_any_of_their_images_are_made_anew(
    manifest: Manifest, tmp_path: Path
) -> None:
    some = manifest.select(manifest.image_ids[:3])
    away = [path.rename(path.with_suffix(".away")) for path in some.paths]  # as an unmounted disk
    shards, skipped = write_predictions(make_model(), manifest, tmp_path / "out", shard_size=3)
    assert pq.read_metadata(shards[0]).num_rows == 0
    whole = {shard: shard.stat().st_mtime_ns for shard in shards[1:]}
    for path, there in zip(away, some.paths, strict=True):
        path.rename(there)
    shards, again = write_predictions(make_model(), manifest, tmp_path / "out", shard_size=3)
    assert pq.read_metadata(shards[0]).num_rows > 0
    assert len(again) == 2 < len(skipped)
    assert all(shard.stat().st_mtime_ns == when for shard, when in whole.items())


def test_parts_make_the_same_shards_as_one_run(manifest: Manifest, tmp_path: Path) -> None:
    model = make_model()
    write_predictions(model, manifest, tmp_path / "one", shard_size=3)
    names = []
    for k in range(3):
        shards, _ = write_predictions(
            model, manifest, tmp_path / "three", shard_size=3, part=(k, 3)
        )
        names += [shard.name for shard in shards]
    assert sorted(names) == [f"part-0000{n}.parquet" for n in range(4)]
    one, three = (pq.read_table(tmp_path / name).to_pandas() for name in ("one", "three"))
    assert one["image_id"].tolist() == three["image_id"].tolist()
    np.testing.assert_allclose(
        np.stack(one["group__probabilities"]), np.stack(three["group__probabilities"]), atol=1e-3
    )


def test_shards_are_made_in_one_go_around_those_that_are_there(
    manifest: Manifest, tmp_path: Path, monkeypatch, caplog
) -> None:
    """Images 3 and 7, which cannot be read, are the last of one shard and the first of another."""
    model, size = make_model(), {"shard_size": 4, "model_version": "v"}
    ids = list(manifest.image_ids)
    ordered = manifest.select([*ids[:4], *ids[8:], ids[7], *ids[4:7]])
    shards, skipped = write_predictions(model, ordered, tmp_path / "whole", **size)
    rows = [pq.read_table(shard).column("image_id").to_pylist() for shard in shards]
    assert rows == [ids[:3], ids[8:], ids[4:7]]
    assert [Path(one.path).name for one in skipped] == ["3.png", "7.png"]
    _, only = write_predictions(model, ordered, tmp_path / "parts", part=(1, 3), **size)
    assert only == []
    there = (tmp_path / "parts" / shards[1].name).stat().st_mtime_ns
    told = []
    monkeypatch.setattr("hpc_jobs.progress.report", lambda *what: told.append(what))
    asked = []

    def noted(model, part, *args, **kwargs):
        asked.append((len(part), kwargs["shards"]))
        return predict_in_pieces(model, part, *args, **kwargs)

    monkeypatch.setattr(predict_module, "predict_in_pieces", noted)
    again, skipped_again = write_predictions(model, ordered, tmp_path / "parts", **size)
    assert asked == [(8, [range(4), range(8, 12)])]
    assert again[1].stat().st_mtime_ns == there
    assert skipped_again == skipped
    assert [done for _, done, *_ in told] == [4, 12]
    assert told[-1] == ("predict", 12, 12, "2 skipped")
    for one, other in zip(shards, again, strict=True):
        assert pq.read_table(one).equals(pq.read_table(other), check_metadata=True)


@pytest.mark.parametrize(("threads", "decoders"), [("1", 1), ("10000,2", processors())])
def test_images_are_decoded_while_the_network_is_made_ready(
    many, monkeypatch, threads: str, decoders: int
) -> None:
    """By as many processes as there are processors, or threads that a part of an array may have."""
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    model, manifest = TraitModel.load(many[0]), Manifest.read(many[1])
    seen, before = [], set(multiprocessing.active_children())

    def make() -> FeatureExtractor:
        seen.append(len(set(multiprocessing.active_children()) - before))
        return extractor_of(model, "torch")

    pieces = predict_in_pieces(model, manifest, 2000, extractor=make)
    assert seen == []
    sizes = [piece.n_images for piece in pieces]
    assert sum(sizes) == 3000
    assert max(sizes) <= 2000
    assert seen == [decoders]


def test_a_decoding_process_that_dies_while_the_network_is_made_ready_is_told(
    manifest: Manifest,
) -> None:
    model = make_model()

    def tell(*_: object) -> None:  # as PyTorch does
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    def make() -> FeatureExtractor:
        # As making a network ready for OpenVINO takes any error for its own.
        with suppress(Exception):
            signal.raise_signal(signal.SIGCHLD)
        return extractor_of(model, "torch")

    before = signal.signal(signal.SIGCHLD, tell)
    try:
        with pytest.raises(DecodingError, match="is killed by signal"):
            next(predict_in_pieces(model, manifest, 20, extractor=make))
        assert signal.getsignal(signal.SIGCHLD) is tell
    finally:
        signal.signal(signal.SIGCHLD, before)


def run_apart(
    model: Path, table: Path, output: Path, shard_size: int = 200, before: str = ""
) -> subprocess.Popen[bytes]:
    """`write_predictions` in a process of its own."""
    script = (
        "import sys; from label_studio_config.manifest import Manifest\n"
        "from ml_backend.model import TraitModel\n"
        "from ml_backend.predict import write_predictions\n"
        "write_predictions(TraitModel.load(sys.argv[1]), Manifest.read(sys.argv[2]), sys.argv[3],"
        " shard_size=int(sys.argv[4]))"
    )
    arguments = map(str, (model, table, output, shard_size))
    return subprocess.Popen(
        [sys.executable, "-c", before + script, *arguments], stderr=subprocess.PIPE
    )


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> tuple[Path, Path]:
    """A saved model, and a saved manifest of 3,000 images (drawn ones, again and again)."""
    folder = tmp_path_factory.mktemp("many")
    make_tasks(folder, 12)
    table = pd.DataFrame(
        {
            "image_id": [f"image-{n}" for n in range(3000)],
            "path": [f"{n % 12}.png" for n in range(3000)],
        }
    )
    saved = folder / "manifest.parquet"
    Manifest(table, folder).write(saved)
    return make_model().save(folder / "model"), saved


@pytest.mark.slow
def test_a_killed_run_goes_on_and_doubles_nothing(many, tmp_path: Path) -> None:
    process = run_apart(*many, tmp_path)
    end = time.monotonic() + 120
    while not (first := tmp_path / "part-00001.parquet").exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    process.wait()
    written = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("part-*.parquet")}
    assert len(written) < 15, "it was killed too late to say anything"
    again = run_apart(*many, tmp_path)
    assert again.wait(120) == 0, again.stderr and again.stderr.read()
    assert first.stat().st_mtime_ns == written[first.name]
    ids = pq.read_table(tmp_path).column("image_id").to_pylist()
    assert sorted(ids) == sorted(f"image-{n}" for n in range(3000))


def test_what_a_killed_run_left_half_written_is_no_shard(
    manifest: Manifest, tmp_path: Path
) -> None:
    model = make_model().save(tmp_path / "model")
    table, out = manifest.write(tmp_path / "manifest.parquet"), tmp_path / "out"
    # Killed when the file is whole, and does not bear its name yet.
    dies = "import os, pathlib; pathlib.Path.replace = lambda *_: os.kill(os.getpid(), 9)\n"
    assert run_apart(model, table, out, before=dies).wait(120) == -signal.SIGKILL
    (left,) = out.iterdir()
    assert left.name.endswith(".part-00000.parquet")
    with pytest.raises(ShardError, match="planktrait predict"):
        Shards(out, SCHEMA)
    (path,), _ = write_predictions(make_model(), manifest, out)
    assert list(out.iterdir()) == [path]
    shards = Shards(out, SCHEMA)
    assert (shards.rows, shards.bad) == (10, [])


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_repetition_completes(many, tmp_path: Path) -> None:
    with small_disk(tmp_path, "100k") as grow:
        full = run_apart(*many, tmp_path)
        assert full.wait(120) != 0
        assert full.stderr is not None
        assert b"No space left on device" in full.stderr.read()
        whole = sorted(tmp_path.glob("part-*.parquet"))
        assert 0 < len(whole) < 15
        assert all(pq.read_table(path).num_rows == 200 for path in whole)
        grow("50m")
        assert run_apart(*many, tmp_path).wait(120) == 0
        assert pq.read_table(tmp_path).num_rows == 3000


def slowly(seconds: float) -> str:
    """For `run_apart`: each image takes so much longer, or all may be over before one looks."""
    return (
        "import time; from ml_backend import images\n"
        "read = images.read_image\n"
        f"images.read_image = lambda *given: (time.sleep({seconds}), read(*given))[1]\n"
    )


def decoders_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Those that decode for it, once all of them have left SIGTERM to it."""
    end = time.monotonic() + 120
    while True:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < end
        with suppress(OSError):
            listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            told = [Path(f"/proc/{child}/status").read_text() for child in listed]
            blocked = [int(re.findall(r"SigBlk:\s*(\w+)", one)[0], 16) for one in told]
            if listed and all(mask >> signal.SIGTERM - 1 & 1 for mask in blocked):
                return [int(child) for child in listed]
        time.sleep(0.01)


@pytest.mark.slow
def test_a_scheduler_that_terminates_all_ends_no_decoding_process(many, tmp_path: Path) -> None:
    """As Slurm does before the end of a time limit, where submitit has the job go on."""
    deaf = "import signal; signal.signal(signal.SIGTERM, lambda *_: None)\n"
    process = run_apart(*many, tmp_path, shard_size=3000, before=deaf + slowly(0.002))
    children = decoders_of(process)
    for child in [process.pid, *children]:
        os.kill(child, signal.SIGTERM)
    assert process.wait(120) == 0, process.stderr and process.stderr.read()
    assert pq.read_table(tmp_path).num_rows == 3000
    assert not any(Path(f"/proc/{child}").exists() for child in children)


@pytest.mark.slow
def test_a_killed_decoding_process_ends_the_run_with_a_word(many, tmp_path: Path) -> None:
    process = run_apart(*many, tmp_path, shard_size=3000, before=slowly(0.02))
    child, *_ = decoders_of(process)
    os.kill(child, signal.SIGKILL)
    assert process.wait(60) != 0
    assert process.stderr is not None
    assert b"is killed by signal" in process.stderr.read()
    assert list(tmp_path.iterdir()) == []
    assert run_apart(*many, tmp_path, shard_size=3000).wait(120) == 0
    assert pq.read_table(tmp_path).num_rows == 3000
