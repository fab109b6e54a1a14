"""Encoder and preprocessing: any image in, features out, saved and loaded as one thing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageDraw
from timm.models import save_for_hf

from label_studio_config.source_images import why_unusable
from simclr.encoder import Encoder, EncoderError
from simclr.preprocessing import Preprocessing, PreprocessingError, read_image

SMALL = "test_resnet"


def drawn(mode: str = "L", size: tuple[int, int] = (60, 30), light: bool = True) -> Image.Image:
    """An ellipse on a light (shadowgraph) or dark (dark-field) background."""
    back, front = (250, 40) if light else (8, 200)
    image = Image.new("L", size, back)
    ImageDraw.Draw(image).ellipse([15, 8, size[0] - 15, size[1] - 8], fill=front)
    return image.convert(mode)


@pytest.mark.parametrize(("light", "background"), [(True, 250), (False, 8)])
def test_the_margin_takes_the_background_of_the_image(light: bool, background: int) -> None:
    pixels, log_extent = Preprocessing(32).preprocess_image(drawn(light=light))
    assert pixels.shape == (1, 32, 32)
    assert pixels.dtype == np.uint8
    assert (pixels[0, :8] == background).all()
    assert abs(int(pixels[0, 16, 16]) - (40 if light else 200)) < 5
    np.testing.assert_allclose(log_extent, np.log([60, 30]), rtol=1e-6)


def test_aspect_is_kept_or_squeezed() -> None:
    image = Image.new("L", (100, 50), 200)
    padded, _ = Preprocessing(64, background=0).preprocess_image(image)
    assert (padded[0] == 200).sum() == 64 * 32
    squeezed, _ = Preprocessing(64, background=0, pad=False).preprocess_image(image)
    assert (squeezed[0] == 200).all()


def test_extent_in_micrometres_is_independent_of_the_turn() -> None:
    preprocessing = Preprocessing(32)
    lying = preprocessing.preprocess_image(drawn(size=(60, 30)), pixel_size_um=10.0)[1]
    standing = preprocessing.preprocess_image(drawn(size=(60, 30)).rotate(90, expand=True), 10.0)[1]
    np.testing.assert_allclose(lying, np.log([600, 300]), rtol=1e-6)
    np.testing.assert_array_equal(lying, standing)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "LA", "RGBA", "I", "F"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_of_pillow_gives_the_same_picture(mode: str, channels: int) -> None:
    expected, _ = Preprocessing(32, channels).preprocess_image(drawn())
    pixels, _ = Preprocessing(32, channels).preprocess_image(drawn(mode))
    tolerance = 255 if mode == "1" else 12  # dithered
    assert pixels.shape == (channels, 32, 32)
    assert np.abs(pixels.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_deep_grey_is_scaled_by_its_bit_depth(bits: int, tmp_path: Path) -> None:
    values = np.asarray(drawn()).astype(np.uint16) << (bits - 8)
    Image.fromarray(values).save(tmp_path / "deep.png")
    pixels, _ = Preprocessing(32).preprocess_image(read_image(tmp_path / "deep.png"))
    expected, _ = Preprocessing(32).preprocess_image(drawn())
    np.testing.assert_array_equal(pixels, expected)


def test_transparent_surroundings_become_background() -> None:
    image = drawn("RGBA", light=False)
    alpha = Image.new("L", image.size, 0)
    ImageDraw.Draw(alpha).ellipse([15, 8, 45, 22], fill=255)
    image.putalpha(alpha)
    pixels, _ = Preprocessing(32).preprocess_image(image)
    assert (pixels[0, 0] == 255).all()
    assert pixels[0, 16, 16] < 205


def test_unreadable_images_are_refused_with_a_reason(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99)).astype("u1")).save(whole)
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:2000])
    reasons = {"empty": "empty", "text": "not an image", "cut": "decoded", "absent": "not exist"}
    for name, reason in reasons.items():
        with pytest.raises(PreprocessingError, match=reason):
            read_image(tmp_path / f"{name}.png")
    with pytest.raises(PreprocessingError, match="99×99 px is above the limit"):
        read_image(whole, max_pixels=5000)


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (16000, 16000)).save(path)
    with pytest.raises(PreprocessingError, match="too many pixels"):
        read_image(path)


def test_what_is_too_large_to_import_is_too_large_to_predict(tmp_path: Path) -> None:
    for side, usable in ((6300, True), (6400, False)):
        path = tmp_path / f"{side}.png"
        Image.new("1", (side, side)).save(path)
        assert (why_unusable(path, tmp_path) is None) == usable
        if usable:
            assert read_image(path).width == side
        else:
            with pytest.raises(PreprocessingError, match="40 million pixels"):
                read_image(path)


def test_settings_are_checked() -> None:
    for wrong in (
        {"image_size_px": 2},
        {"channels": 2},
        {"background": 300},
        {"std": (0.0,)},
        {"mean": (0.1, 0.2)},
        {"interpolation": "magic"},
    ):
        with pytest.raises(PreprocessingError, match=next(iter(wrong))):
            Preprocessing(**wrong)


@pytest.mark.parametrize("channels", [1, 3])
def test_saved_and_loaded_encoders_agree(channels: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = Encoder.create(SMALL, image_size_px=48, channels=channels).eval()
    images = torch.randint(0, 256, (4, channels, 48, 48), dtype=torch.uint8)
    encoder.fit_normalisation(images.numpy())
    expected = encoder(images)
    assert expected.shape == (4, encoder.feature_count)
    loaded = Encoder.load(encoder.save(tmp_path / "encoder")).eval()
    assert loaded.preprocessing == encoder.preprocessing
    assert loaded.backbone_name == SMALL
    assert (loaded.trained, encoder.trained) == (True, False)
    torch.testing.assert_close(loaded(images), expected)
    assert sorted(path.name for path in (tmp_path / "encoder").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_a_saved_encoder_is_a_model_of_timm_and_a_name(tmp_path: Path) -> None:
    encoder = Encoder.create(SMALL, image_size_px=32).eval()
    folder = encoder.save(tmp_path)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    image = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(model((image - 0.5) / 0.25), encoder(image))
    assert Encoder.create(str(folder)).preprocessing == encoder.preprocessing


def test_a_transformer_takes_the_size_asked_for(tmp_path: Path) -> None:
    encoder = Encoder.create("vit_tiny_patch16_224", image_size_px=64).eval()
    images = torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
    torch.testing.assert_close(Encoder.load(encoder.save(tmp_path)).eval()(images), encoder(images))


def test_floats_and_bytes_are_the_same_image() -> None:
    encoder = Encoder.create(SMALL, image_size_px=32).eval()
    images = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(encoder(images), encoder(images.float() / 255))


def test_what_is_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"unknown.*timm\.list_models"):
        Encoder.create("resnet_of_my_own")
    with pytest.raises(EncoderError, match="holds no encoder"):
        Encoder.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": SMALL}))
    with pytest.raises(EncoderError, match="does not say how an image becomes an input"):
        Encoder.load(tmp_path)
    folder = Encoder.create(SMALL, image_size_px=32).save(tmp_path / "damaged")
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(EncoderError, match="cannot be read"):
        Encoder.load(folder)


def foreign_model(folder: Path, name: str = SMALL, **options: Any) -> Any:
    """A colour model of timm with a classifier, saved as it lies on the Hugging Face hub."""
    torch.manual_seed(1)
    model = timm.create_model(name, num_classes=7, **options).eval()
    save_for_hf(model, str(folder), safe_serialization=True)
    assert "planktrait" not in (folder / "config.json").read_text()
    return model


def test_a_model_that_timm_saved_is_an_encoder(tmp_path: Path) -> None:
    model = foreign_model(tmp_path)
    encoder = Encoder.load(tmp_path).eval()
    config = model.pretrained_cfg
    settings = encoder.preprocessing
    assert (settings.image_size_px, settings.channels) == (config["input_size"][1], 3)
    assert (settings.mean, settings.std) == (config["mean"], config["std"])
    assert settings.interpolation == config["interpolation"]
    assert encoder.trained
    image = torch.rand(2, 3, 96, 96)
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    expected = model.forward_head(model.forward_features((image - mean) / std), pre_logits=True)
    torch.testing.assert_close(encoder(image), expected)

    smaller = Encoder.create(str(tmp_path), image_size_px=64)
    assert smaller.preprocessing.image_size_px == 64
    again = Encoder.load(smaller.save(tmp_path / "ours")).eval()  # now with our settings
    assert again.preprocessing == smaller.preprocessing
    torch.testing.assert_close(again(image), expected)


def test_grey_models_and_transformers_that_timm_saved_are_encoders(tmp_path: Path) -> None:
    foreign_model(tmp_path / "grey", in_chans=1)
    grey = Encoder.load(tmp_path / "grey")
    assert grey.preprocessing.channels == 1
    assert len(grey.preprocessing.mean) == 1
    foreign_model(tmp_path / "vit", "test_vit")
    transformer = Encoder.create(str(tmp_path / "vit"), image_size_px=64).eval()
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    assert transformer(images).shape == (2, transformer.feature_count)


def create_offline(name: str, cache: Path) -> str:
    """What a process without network says of the encoder of that name with pretrained weights."""
    code = f"""
from simclr.encoder import Encoder, EncoderError
try:
    encoder = Encoder.create({name!r}, image_size_px=32, channels=3, pretrained=True)
    print(encoder.backbone_name, float(next(encoder.backbone.parameters()).detach().sum()))
except EncoderError as error:
    print(error)
"""
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(cache)}
    run = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("name", [SMALL, "hf-hub:someone/plankton"])
def test_pretrained_weights_without_network_are_refused_with_the_remedy(
    name: str, tmp_path: Path
) -> None:
    said = create_offline(name, tmp_path)
    assert f"the weights of {name!r} cannot be had" in said
    assert "HF_HOME" in said
    assert "give a folder with config.json and model.safetensors" in said
    assert "start without pretrained weights" in said


@pytest.mark.parametrize("name", [SMALL, "hf-hub:someone/plankton"])
def test_weights_in_the_cache_need_no_network(name: str, tmp_path: Path) -> None:
    repository = name.removeprefix("hf-hub:")
    if name == SMALL:
        repository = str(timm.get_pretrained_cfg(SMALL).hf_hub_id)
    folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    model = foreign_model(folder / "snapshots" / "0123abc")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123abc")
    backbone_name, first_weights = create_offline(name, tmp_path).split()
    assert backbone_name == SMALL
    expected = float(next(model.parameters()).detach().sum())
    assert float(first_weights) == pytest.approx(expected, rel=1e-4)
