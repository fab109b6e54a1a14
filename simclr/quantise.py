"""An encoder in integers of 8 bits, which processors multiply about twice as fast as bf16.

Quantised after training, biases corrected layer by layer (Nagel et al. 2019, arXiv 1906.04721), by
NNCF. `benchmarks/inference_precision.py` measures what that costs in macro recall.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from hpc_jobs.whole_files import place_once, remove_abandoned
from simclr.encoder import Encoder
from simclr.graph import graph_of, save_graph
from simclr.inference import FeatureExtractor

logger = logging.getLogger(__name__)

IMAGES_A_BATCH = 30
FEWEST_IMAGES = 20
COMPARED = 100
LOWEST_COSINE = 0.9
"""Trained networks on ndsb have .995 (resnet18, 128 px) and .999 (mobilenetv4_conv_small)."""


class QuantisationError(RuntimeError):
    """An encoder that does not go in integers; the message says the remedy."""


def quantise(
    encoder: Encoder, images: np.ndarray, path: Path, lowest_cosine: float = LOWEST_COSINE
) -> None:
    """Write the encoder in integers, for `FeatureExtractor(graph=path)`.

    Nothing happens where the file is there; of several that write it the first one wins.

    Parameters
    ----------
    encoder : Encoder
    images : uint8 array, shape (n, channels, s, s)
        Some hundred such as will be asked: they show how far the values between the layers reach.
        Nobody needs to have labelled them.
    path : Path
        Ends in .npz.
    lowest_cosine : float
        Between the features of images and those before, around their mean, on average. Those of an
        untrained network differ little from image to image, and then mostly by what is rounded.

    Raises
    ------
    QuantisationError
        There are fewer than 20 images, the network holds what OpenVINO or NNCF do not know, or its
        features are no longer what they were.
    """
    if path.exists():
        return
    remedy = "predict without int8"
    if len(images) < FEWEST_IMAGES:
        raise QuantisationError(
            f"int8 needs {FEWEST_IMAGES} images that can be read, here are {len(images)}: {remedy}"
        )
    try:
        quantised = in_integers(graph_of(encoder), images)
    except Exception as error:  # of a library, on a network that nobody has tried
        raise QuantisationError(
            f"{encoder.backbone_name} does not go in int8 here ({error}): {remedy}"
        ) from error

    def write(temporary: Path) -> None:
        save_graph(quantised, temporary)
        cosine = alike(encoder, temporary, images[:: max(len(images) // COMPARED, 1)])
        logger.info("int8: the features' cosine with those before is %.4f", cosine)
        if not cosine >= lowest_cosine:
            raise QuantisationError(
                f"{encoder.backbone_name} in int8 gives other features (cosine {cosine:.2f}, "
                f"{lowest_cosine:g} is the least): {remedy}"
            )

    remove_abandoned(path)
    place_once(path, write)


def in_integers(graph: Any, images: np.ndarray, fast: bool = False) -> Any:
    """A graph as from `graph_of`, in integers.

    Parameters
    ----------
    images : uint8 array, shape (n, channels, s, s)
    fast : bool
        Correct the biases all at once instead of layer by layer.
    """
    parts = [images[i : i + IMAGES_A_BATCH] for i in range(0, len(images), IMAGES_A_BATCH)]
    with _quiet_nncf() as nncf:
        # Its subset of 300 is of batches: all of them, for the biases too.
        return nncf.quantize(graph, nncf.Dataset(parts), fast_bias_correction=fast)


def alike(encoder: Encoder, path: Path, images: np.ndarray) -> float:
    """Mean cosine between the features of images in integers and before, around their mean.

    0 where the graph has lost what depends on the values of its example: then it gives others.
    """
    before, after = (FeatureExtractor(encoder, graph=graph)(images) for graph in (None, path))
    if before.shape != after.shape:
        return 0.0
    a, b = before - before.mean(axis=0), after - before.mean(axis=0)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(norms, 1e-12)).mean())


@contextmanager
def _quiet_nncf() -> Iterator[Any]:
    """NNCF without its bars and remarks: a command has its own, and a job's log keeps each line."""
    import nncf

    # Not its `set_log_level`: that is also set on the handlers of everybody else.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with redirect_stdout(io.StringIO()):
        yield nncf
