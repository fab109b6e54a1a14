"""Features as fast as the machine gives them: OpenVINO on processors, PyTorch on GPUs.

The weights stay those of the encoder, and bf16 is used where the device computes in it;
`benchmarks/inference_precision.py` and `benchmarks/bulk_predict.py` measure what that costs and
gains.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch

from simclr.encoder import Encoder
from simclr.graph import evaluating, graph_of, one_thread, read_graph
from simclr.precision import cpu_computes_in_bf16
from simclr.turned import turned

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Runtime = Literal["auto", "openvino", "torch"]
Waiting = Callable[[], np.ndarray]

IMAGES_PER_REQUEST = 32
"""More do not stay in a processor's cache between the layers: 64 are a tenth slower."""
BATCHES_WAITING = 6
LARGEST_DIFFERENCE = 0.1
"""Of the features, relatively; bf16 alone comes to about 0.01."""


class _Network(Protocol):
    """Starts on a batch of uint8 (n, c, s, s) and returns how to wait for its features (n, d)."""

    at_work: int
    description: str

    def start(self, pixels: np.ndarray) -> Waiting: ...


class FeatureExtractor:
    """An encoder made ready for many images. It is not to change afterwards.

    Parameters
    ----------
    encoder : Encoder
    views : int
        Over how many turns of an image the features are averaged (1, 2, 4 or 8).
    runtime : {"auto", "openvino", "torch"}
        "auto" takes a GPU where there is one, then OpenVINO where it is installed and knows the
        network's operations, then PyTorch.
    threads : int, optional
        Processor threads; by default as many as PyTorch may use.
    graph : Path, optional
        The encoder as `simclr.quantise` has written it: OpenVINO runs that, whatever `runtime` is.

    Attributes
    ----------
    description : str
        Runtime and precision, for people.

    Raises
    ------
    RuntimeError
        `runtime` is "openvino", and it is not installed or cannot run this network.
    """

    def __init__(
        self,
        encoder: Encoder,
        views: int = 1,
        runtime: Runtime = "auto",
        threads: int | None = None,
        graph: Path | None = None,
    ) -> None:
        self.views = views
        self.feature_count = encoder.feature_count
        threads = threads or torch.get_num_threads()
        if graph is None:
            self._network = _network(encoder, runtime, threads)
        else:
            self._network = _OpenVinoNetwork(encoder, threads, graph)
        self.description = self._network.description

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Features of one batch: uint8 (n, channels, s, s) to float32 (n, feature_count)."""
        return next(iter(self.stream([pixels], lambda batch: batch)))[1]

    def stream(
        self, items: Iterable[Item], pixels: Callable[[Item], np.ndarray]
    ) -> Iterator[tuple[Item, np.ndarray]]:
        """Items with the features of their images, in order, several batches at work at a time.

        Parameters
        ----------
        items : iterable
            Taken as they are needed, never more than the device can work on ahead.
        pixels : callable
            The images of an item, uint8 (n, channels, s, s); n may be 0.
        """
        waiting: deque[tuple[Item, Waiting]] = deque()
        for item in items:
            waiting.append((item, self._start(pixels(item))))
            if len(waiting) >= max(2, self._network.at_work // self.views):
                first, wait = waiting.popleft()
                yield first, wait()
        while waiting:
            first, wait = waiting.popleft()
            yield first, wait()

    def _start(self, pixels: np.ndarray) -> Waiting:
        if not len(pixels):
            return partial(np.zeros, (0, self.feature_count), dtype=np.float32)
        if self.views == 1:
            return self._network.start(pixels)
        # With NumPy: PyTorch would ask all its threads, which are the network's, and wait for them.
        stacked = np.concatenate([turned(pixels, view) for view in range(self.views)])
        wait = self._network.start(stacked)
        return lambda: wait().reshape(self.views, len(pixels), -1).mean(axis=0)


def _network(encoder: Encoder, runtime: Runtime, threads: int) -> _Network:
    if runtime == "torch" or (runtime == "auto" and torch.cuda.is_available()):
        return _TorchNetwork(encoder)
    try:
        return _OpenVinoNetwork(encoder, threads)
    except Exception as error:  # an operation it does not know, an odd processor, not installed
        if runtime == "openvino":
            raise RuntimeError(
                f"OpenVINO cannot run {encoder.backbone_name} here ({error}): choose the runtime "
                "'torch'"
            ) from error
        logger.warning("OpenVINO cannot run %s: PyTorch does (%s)", encoder.backbone_name, error)
        return _TorchNetwork(encoder)


class _OpenVinoNetwork:
    """One stream a thread: no thread waits for another, also when decoding takes a processor."""

    def __init__(self, encoder: Encoder, threads: int, graph: Path | None = None) -> None:
        made = graph_of(encoder) if graph is None else read_graph(graph)
        import openvino

        core = openvino.Core()
        native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        precision = "bf16" if native else "f32"
        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": str(threads),
            "INFERENCE_NUM_THREADS": threads,
        }
        self._compiled = core.compile_model(made, "CPU", options)
        # So many that the streams have work while whoever takes the features is busy.
        self.at_work = threads + BATCHES_WAITING
        self._free: deque[Any] = deque()
        told = precision if graph is None else f"int8 and {precision}"
        self.description = f"OpenVINO, {told}, {threads} streams"
        if graph is None:
            self._compare(encoder)

    def _compare(self, encoder: Encoder) -> None:
        """A graph has lost what depends on the values of its example: such a network is refused."""
        shape = (3, *encoder.mean.shape[1:2], *[encoder.preprocessing.image_size_px] * 2)
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        with one_thread():
            expected = _TorchNetwork(encoder).start(pixels)()
        found = self.start(pixels)()
        if found.shape != expected.shape:
            raise ValueError(f"its graph gives {found.shape} instead of {expected.shape}")
        error = np.linalg.norm(found - expected) / max(float(np.linalg.norm(expected)), 1e-12)
        if not error <= LARGEST_DIFFERENCE:
            raise ValueError(f"its features differ from PyTorch's by {error:.0%}")

    def start(self, pixels: np.ndarray) -> Waiting:
        parts = [
            self._start(pixels[first : first + IMAGES_PER_REQUEST])
            for first in range(0, len(pixels), IMAGES_PER_REQUEST)
        ]
        return lambda: np.concatenate([wait() for wait in parts])

    def _start(self, pixels: np.ndarray) -> Waiting:
        request = self._free.popleft() if self._free else self._compiled.create_infer_request()
        pixels = np.ascontiguousarray(pixels)
        request.start_async({0: pixels}, share_inputs=True)

        def wait(_read_meanwhile: np.ndarray = pixels) -> np.ndarray:
            request.wait()
            features = np.array(request.get_output_tensor(0).data, dtype=np.float32)
            self._free.append(request)
            return features

        return wait


class _TorchNetwork:
    """PyTorch, on a GPU where there is one: the copy of the next batch overlaps with this one."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.cuda = torch.cuda.is_available()
        self.at_work = 2 if self.cuda else 1
        if self.cuda:
            self.encoder = copy.deepcopy(encoder).cuda()
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            half = torch.bfloat16 if native else torch.float16
            self._precision = partial(torch.autocast, "cuda", half)
            self.description = f"PyTorch, {torch.cuda.get_device_name()}, {half}"
        elif cpu_computes_in_bf16(encoder.preprocessing.image_size_px):
            self._precision = partial(torch.autocast, "cpu", torch.bfloat16)
            self.description = "PyTorch, bf16"
        else:
            self._precision = nullcontext  # type: ignore[assignment]
            self.description = "PyTorch, fp32"

    @torch.inference_mode()
    def start(self, pixels: np.ndarray) -> Waiting:
        images = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
        if self.cuda:
            images = images.pin_memory().cuda(non_blocking=True)
        with evaluating(self.encoder), self._precision():
            features = self.encoder(images).float()
        if not self.cuda:
            return features.numpy
        # A copy that is asked for later would wait behind the next batch.
        copied = torch.empty(features.shape, pin_memory=True)
        copied.copy_(features, non_blocking=True)
        done = torch.cuda.Event()
        done.record()

        def wait() -> np.ndarray:
            done.synchronize()
            return copied.numpy()

        return wait
