"""TraitModel: one encoder, one head a control, and all that its probabilities rest on.

A head sees the encoder's features and the organism's extent: an image scaled to a fixed input has
lost its size, and size tells many groups apart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from label_studio_config.schema import LabelSchema
from ml_backend.head import Head
from ml_backend.novelty import Novelty
from simclr.encoder import Encoder
from simclr.precision import cpu_computes_in_bf16, cpu_learns_in_bf16
from simclr.turned import VIEWS, turned

FORMAT = 2  # 1 knew no unit of a number and no leaning of suggestions
SIZE_INPUTS = 5


class ModelError(ValueError):
    """A model folder that cannot be loaded, or images that do not fit the model."""


def size_inputs(log_extents: Tensor) -> Tensor:
    """Return what heads see of the size, (n, 5): long and short side (log), and their squares.

    Sides are ordered because an organism has no upright position.
    """
    long = log_extents.amax(dim=1)
    short = log_extents.amin(dim=1)
    return torch.stack([long, short, long**2, short**2, long * short], dim=1)


class TraitModel(nn.Module):
    """Encoder and heads.

    Parameters
    ----------
    encoder : Encoder
    heads : sequence of Head
    schema : LabelSchema
        The config that the model was trained for.
    views : int
        Over how many turns of an image the features are averaged (1, 2, 4 or 8).
    extent_unit : "px" or "um"
        Unit of the extents it learned from, and must be given.

    Attributes
    ----------
    novelty : Novelty or None
        What the training images look like; None when there were too few to say.
    """

    input_mean: Tensor
    input_scale: Tensor

    def __init__(
        self,
        encoder: Encoder,
        heads: Sequence[Head],
        schema: LabelSchema,
        views: int = 1,
        extent_unit: str = "px",
    ) -> None:
        super().__init__()
        if views not in VIEWS:
            raise ModelError(f"views is {views}: choose one of {VIEWS}")
        self.encoder = encoder
        self.heads = tuple(heads)
        self.schema = schema
        self.views = views
        self.extent_unit = extent_unit
        side_px = encoder.preprocessing.image_size_px
        self.in_bf16 = cpu_computes_in_bf16(side_px)
        self.learns_in_bf16 = cpu_learns_in_bf16(encoder, side_px)
        self.novelty: Novelty | None = None
        n_inputs = encoder.feature_count + SIZE_INPUTS
        self.register_buffer("input_mean", torch.zeros(n_inputs))
        self.register_buffer("input_scale", torch.ones(n_inputs))
        self.classifiers = nn.ModuleList(nn.Linear(n_inputs, head.n_outputs) for head in heads)
        for classifier in self.classifiers:
            nn.init.zeros_(classifier.weight)  # type: ignore[arg-type]
            nn.init.zeros_(classifier.bias)  # type: ignore[arg-type]

    def head(self, control: str) -> Head:
        """The head of one control.

        Raises
        ------
        ModelError
            The model has none.
        """
        for head in self.heads:
            if head.control == control:
                return head
        raise ModelError(f"the model has no head for control {control!r}")

    def set_head(self, head: Head) -> None:
        """Replace what is recorded of a head (its temperature, say); its weights stay."""
        self.heads = tuple(head if head.control == h.control else h for h in self.heads)

    def fit_inputs(self, inputs: Tensor) -> None:
        """Standardise the heads' inputs by those of the training images, (n, d)."""
        self.input_mean.copy_(inputs.mean(dim=0))
        self.input_scale.copy_(inputs.std(dim=0).clamp_min(1e-3))

    def describe(self, images: Tensor, log_extents: Tensor, views: int | None = None) -> Tensor:
        """Return the heads' inputs, (n, feature_count + 5), before standardising."""
        turns = range(self.views if views is None else views)
        # In bf16 where the processor is quick in it; what is averaged and classified is not.
        in_bf16 = self.learns_in_bf16 if torch.is_grad_enabled() else self.in_bf16
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
            features = [self.encoder(turned(images, view)) for view in turns]
        mean = torch.stack([f.float() for f in features]).mean(dim=0)
        return torch.cat([mean, size_inputs(log_extents)], dim=1)

    def classify(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return the outputs (n, k) by control, from the inputs of `describe`."""
        standard = (inputs - self.input_mean) / self.input_scale
        return {
            head.control: classifier(standard)
            for head, classifier in zip(self.heads, self.classifiers, strict=True)
        }

    @torch.no_grad()
    def logits(self, inputs: Tensor) -> dict[str, np.ndarray]:
        """Return the same as arrays: what calibration and `Head.answer` take."""
        return {name: outputs.numpy() for name, outputs in self.classify(inputs).items()}

    def forward(
        self, images: Tensor, log_extents: Tensor, views: int | None = None
    ) -> dict[str, Tensor]:
        """Return the outputs (n, k) by control.

        Parameters
        ----------
        images : uint8 or float tensor (n, c, s, s)
            As from the encoder's preprocessing.
        log_extents : float tensor (n, 2)
            Logarithm of the original height and width.
        """
        return self.classify(self.describe(images, log_extents, views))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that its answers rest on: the same answers have the same one."""
        settings = (FORMAT, self.heads, self.views, self.extent_unit, self.encoder.preprocessing)
        digest = hashlib.sha256(repr(settings).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.inference_mode()
    def answer(self, images: np.ndarray, log_extents: np.ndarray) -> Answers:
        """Predict one batch: calibrated probabilities (n, k) or numbers (n, 1) by control."""
        was_training = self.training
        self.eval()
        inputs = self.describe(
            torch.from_numpy(np.require(images, requirements=["C", "W"])),
            torch.from_numpy(np.ascontiguousarray(log_extents, dtype=np.float32)),
        )
        self.train(was_training)
        return self.answer_features(inputs[:, : self.encoder.feature_count].numpy(), log_extents)

    @torch.inference_mode()
    def answer_features(self, features: np.ndarray, log_extents: np.ndarray) -> Answers:
        """The same from the encoder's features, float32 (n, d), averaged over the views."""
        extents = torch.from_numpy(np.ascontiguousarray(log_extents, dtype=np.float32))
        inputs = torch.cat([torch.from_numpy(features), size_inputs(extents)], dim=1)
        logits = self.logits(inputs)
        values = {head.control: head.answer(logits[head.control]) for head in self.heads}
        return Answers(features, values)

    def save(self, folder: str | Path) -> Path:
        """Write encoder/, heads.safetensors, model.json and schema.xml into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.encoder.save(folder / "encoder")
        tensors = {
            name: tensor.contiguous()
            for name, tensor in self.state_dict().items()
            if not name.startswith("encoder.")
        }
        save_file(tensors, folder / "heads.safetensors")
        if self.novelty is not None:
            self.novelty.save(folder)
        (folder / "schema.xml").write_text(self.schema.xml, encoding="utf-8")
        record = {
            "format": FORMAT,
            "views": self.views,
            "extent_unit": self.extent_unit,
            "heads": [head.as_dict() for head in self.heads],
        }
        text = json.dumps(record, indent=2, ensure_ascii=False)
        (folder / "model.json").write_text(text + "\n", encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> TraitModel:
        """Read what `save` wrote.

        Raises
        ------
        ModelError
            A file is missing or is not ours.
        """
        folder = Path(folder)
        try:
            record = json.loads((folder / "model.json").read_text(encoding="utf-8"))
            if record["format"] != FORMAT:
                raise ModelError(
                    f"{folder}: format {record['format']}, this version reads {FORMAT}: train a "
                    "new version"
                )
            schema = LabelSchema.from_xml((folder / "schema.xml").read_text(encoding="utf-8"))
            heads = [Head.from_dict(head) for head in record["heads"]]
            encoder = Encoder.load(folder / "encoder")
            model = cls(encoder, heads, schema, record["views"], record["extent_unit"])
            model.novelty = Novelty.load(folder)
            missing = model.load_state_dict(load_file(folder / "heads.safetensors"), strict=False)
        except ModelError:
            raise
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"{folder} holds no model that can be loaded: {error}") from error
        lost = [name for name in missing.missing_keys if not name.startswith("encoder.")]
        if lost or missing.unexpected_keys:
            raise ModelError(f"{folder}: weights do not fit ({lost or missing.unexpected_keys})")
        return model.eval()


@dataclass(frozen=True)
class Answers:
    """What a model says about n images.

    Attributes
    ----------
    embedding : float32 (n, feature_count)
    values : dict
        By control: calibrated probabilities (n, k), or numbers (n, 1).
    """

    embedding: np.ndarray
    values: dict[str, np.ndarray]
