"""An encoder as OpenVINO's graph, made from it or kept in a file."""

from __future__ import annotations

import os
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from simclr.encoder import Encoder

PARTS = ("xml", "bin")


class GraphError(RuntimeError):
    """A file of a graph that cannot be read; the message says the remedy."""


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch in one thread: a small operation of all of them waits for those of the network.

    So do several threads for each other where a processor has other work. For jobs and commands:
    a web server's threads share the setting, so there it stays as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def evaluating(encoder: Encoder) -> Iterator[None]:
    """The encoder as it answers, whatever becomes of it; afterwards as it was."""
    training = encoder.training
    encoder.eval()
    try:
        yield
    finally:
        encoder.train(training)


def graph_of(encoder: Encoder) -> Any:
    """The encoder as an `openvino.Model`: uint8 images (n, c, s, s) in, features (n, d) out.

    Raises
    ------
    Exception
        OpenVINO is not installed, or does not know one of the network's operations.
    """
    openvino = _openvino()
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    settings = encoder.preprocessing
    shape = [-1, settings.channels, settings.image_size_px, settings.image_size_px]
    example = torch.zeros(2, *shape[1:], dtype=torch.uint8)
    with warnings.catch_warnings(), evaluating(encoder), one_thread():
        warnings.simplefilter("ignore")  # of tracing, about Python values that are constants
        # PyTorch would trace it twice more to compare: who compares features sees more for less.
        traced = TorchScriptPythonDecoder(
            encoder, example_input=example, trace_kwargs={"check_trace": False}
        )
        return openvino.convert_model(traced, example_input=example, input=shape)


def save_graph(graph: Any, path: Path) -> None:
    """Write a graph as one file (.npz): OpenVINO itself writes two."""
    openvino = _openvino()
    with tempfile.TemporaryDirectory() as folder:
        both = Path(folder) / "graph.xml"
        openvino.save_model(graph, both, compress_to_fp16=False)
        xml, weights = (np.fromfile(both.with_suffix(f".{part}"), np.uint8) for part in PARTS)
    np.savez(path, xml=xml, bin=weights)


def read_graph(path: Path) -> Any:
    """The graph that `save_graph` has written.

    Raises
    ------
    GraphError
    """
    openvino = _openvino()
    try:
        with np.load(path) as file:
            xml, weights = (np.array(file[part]) for part in PARTS)
        return openvino.Core().read_model(xml.tobytes(), openvino.Tensor(weights))
    except Exception as error:  # of zip, of NumPy, of OpenVINO
        raise GraphError(
            f"{path} cannot be read ({error}): remove it and the shards beside it, and all is "
            "made anew"
        ) from error


def _openvino() -> Any:
    # It sends usage statistics where its telemetry package is installed and nobody said no.
    os.environ.setdefault("OPENVINO_TELEMETRY_OPT_OUT", "1")
    import openvino

    return openvino
