"""What a training starts from, as `--encoder` names it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
from PIL import Image
from timm.models import save_for_hf

from label_studio_config.manifest import Manifest
from ml_backend.fit import FROM_SCRATCH, FitSettings
from ml_backend.start import choose_start
from simclr.encoder import Encoder, EncoderError


@pytest.fixture
def grey(tmp_path: Path) -> Manifest:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    return Manifest(pd.DataFrame({"image_id": ["grey"], "path": ["grey.png"]}), tmp_path)


def test_a_folder_is_taken_as_it_is(grey: Manifest, tmp_path: Path) -> None:
    encoder = Encoder.create("test_resnet", image_size_px=48)
    start = choose_start(encoder.save(tmp_path / "ours"), grey)
    assert start.encoder.preprocessing == encoder.preprocessing
    assert start.name == "the encoder ours (test_resnet)"
    assert start.settings == FitSettings()
    again = choose_start(encoder.save(tmp_path / "cruise7" / "encoder"), grey)
    assert again.name == "the encoder cruise7/encoder (test_resnet)"
    (tmp_path / "newest").symlink_to(tmp_path / "cruise7" / "encoder")
    linked = choose_start(tmp_path / "newest", grey)
    assert linked.name == "the encoder newest (test_resnet)"
    model = timm.create_model("test_resnet", num_classes=3)
    save_for_hf(model, str(tmp_path / "theirs"), safe_serialization=True)
    downloaded = choose_start(str(tmp_path / "theirs"), grey)
    assert downloaded.encoder.preprocessing.channels == 3
    assert downloaded.encoder.preprocessing.image_size_px == model.pretrained_cfg["input_size"][1]
    assert downloaded.fingerprint != start.fingerprint


def test_without_an_encoder_the_images_decide(grey: Manifest) -> None:
    start = choose_start(None, grey)
    assert start.encoder.preprocessing.channels == 1
    assert not start.encoder.trained
    assert start.settings == FROM_SCRATCH
    assert choose_start(None, grey).fingerprint == start.fingerprint


def test_what_is_no_encoder_is_refused(grey: Manifest, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EncoderError, match="holds no encoder"):
        choose_start(tmp_path / "empty", grey)
    with pytest.raises(EncoderError, match="hf-hub:owner/model, or the folder"):
        choose_start("no-such-backbone", grey)
