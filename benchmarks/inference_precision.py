"""What bf16 and int8 cost in macro recall, and what they gain in speed, on images held out.

    python -m benchmarks.inference_precision path/to/ndsb --model path/to/version --labels groups
    python -m benchmarks.inference_precision path/to/ndsb --network resnet18 --side-px 128

The network of a trained version in OpenVINO: fp32, bf16 (what the product runs), and int8 after
training with 300 images that are not held out (NNCF). `accurate` corrects the biases layer by
layer, as `planktrait predict --int8` does, `fast` all at once. With `--network` the version is
trained first, from scratch, by `planktrait`'s own `train` on all images that are not held out; it
goes on where it was ended, and is there when repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import circumstances
from benchmarks.ndsb import LABEL_SETS, manifest_of, read_table, schema_of, tasks_of
from benchmarks.training import WORK, evaluate_on, train_tasks
from ml_backend.fit import FROM_SCRATCH
from ml_backend.images import read_batches
from ml_backend.model import TraitModel, size_inputs
from ml_backend.registry import Registry
from simclr.encoder import Encoder
from simclr.graph import graph_of
from simclr.quantise import in_integers
from simclr.turned import turned

RESULTS = Path(__file__).parent / "results" / "inference_precision"
EPOCHS = 12
CALIBRATION_IMAGES = 300
IMAGES_A_REQUEST = 32
ROUNDS = 5
TIMED_IMAGES = 1024

Compute = Callable[[np.ndarray], np.ndarray]


def name_of(labels: str, network: str, side_px: int, epochs: int) -> str:
    """What a network that is trained here is called in files."""
    return f"{labels}-{network.replace('/', '-')}-{side_px}px-{epochs}-epochs"


def trained(network: str, side_px: int, epochs: int, labels: str, data: Path) -> Path:
    """The folder of a version of a network that started untrained; trained where there is none."""
    home = WORK / "inference_precision" / name_of(labels, network, side_px, epochs)
    registry = Registry(home)
    if not registry.list():
        untrained = home / "untrained"
        torch.manual_seed(0)
        Encoder.create(network, side_px).save(untrained)
        table = read_table(data)
        schema = schema_of(table, labels)
        settings = replace(FROM_SCRATCH, fine_tune=replace(FROM_SCRATCH.fine_tune, epochs=epochs))
        tasks = tasks_of(table, labels, schema)
        train_tasks(tasks, schema, data, home, untrained, settings)
    return registry.list()[-1].folder


def graphs(model: TraitModel, calibration: np.ndarray) -> dict[str, tuple[Any, str]]:
    """The network and its precision hint, by name."""
    plain = graph_of(model.encoder)
    found = {"fp32": (plain, "f32"), "bf16": (plain, "bf16")}
    for name, fast in (("int8, fast", True), ("int8, accurate", False)):
        found[name] = (in_integers(plain.clone(), calibration, fast), "bf16")
    return found


def compiled(graph: Any, precision: str) -> Compute:
    """Features (n, d) of uint8 images (n, c, s, s), a stream a processor."""
    import openvino

    threads = os.cpu_count() or 1
    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "NUM_STREAMS": str(threads),
        "INFERENCE_NUM_THREADS": threads,
    }
    network = openvino.Core().compile_model(graph, "CPU", options)
    requests = deque(network.create_infer_request() for _ in range(threads + 1))

    def compute(pixels: np.ndarray) -> np.ndarray:
        waiting: deque[Any] = deque()
        features = []
        for first in range(0, len(pixels), IMAGES_A_REQUEST):
            if not requests:
                request = waiting.popleft()
                request.wait()
                features.append(request.get_output_tensor(0).data.copy())
                requests.append(request)
            request = requests.popleft()
            part = np.ascontiguousarray(pixels[first : first + IMAGES_A_REQUEST])
            request.start_async({0: part})
            waiting.append(request)
        for request in waiting:
            request.wait()
            features.append(request.get_output_tensor(0).data.copy())
            requests.append(request)
        return np.concatenate(features)

    return compute


def measure(data: Path, model: TraitModel, labels: str) -> dict[str, Any]:
    """Figures of each precision."""
    table = read_table(data)
    held_out, rest = table[table["held_out"]], table[~table["held_out"]]
    some = rest.sample(CALIBRATION_IMAGES, random_state=0)
    settings = model.encoder.preprocessing
    calibration, batches = (
        list(read_batches(manifest_of(part, data), settings, 64)) for part in (some, held_out)
    )
    pixels = np.concatenate([batch.pixels for batch in batches])
    sizes = size_inputs(torch.from_numpy(np.concatenate([b.log_extents for b in batches])))
    truth = held_out[LABEL_SETS[labels]].to_numpy().astype(str)
    found = {}
    computes = {
        name: compiled(*graph)
        for name, graph in graphs(model, np.concatenate([b.pixels for b in calibration])).items()
    }
    for name, compute in computes.items():
        views = [compute(turned(pixels, view)) for view in range(model.views)]
        inputs = torch.cat([torch.from_numpy(np.mean(views, axis=0)), sizes], dim=1)
        figures = evaluate_on(model, inputs, truth)
        keys = ("macro_recall", "micro_accuracy", "accuracy", "ece", "nll")
        found[name] = {key: round(float(figures[key]), 4) for key in keys if key in figures}
    rates: dict[str, list[float]] = {name: [] for name in computes}
    for _ in range(ROUNDS):
        for name, compute in computes.items():
            start = time.perf_counter()
            compute(pixels[:TIMED_IMAGES])
            rates[name].append(TIMED_IMAGES / (time.perf_counter() - start))
    for name, values in rates.items():
        found[name]["network_images_a_second"] = round(statistics.median(values))
    return {"precisions": found, "images": len(pixels), "views": model.views}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=lambda text: Path(text).resolve(), help="folder of ndsb")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", type=Path, help="a trained version's folder")
    which.add_argument("--network", help="a timm name, trained from scratch here")
    parser.add_argument("--side-px", type=int, default=128, help="of the images of --network")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of --network")
    parser.add_argument("--labels", choices=LABEL_SETS, default="groups")
    arguments = parser.parse_args()
    labels, side_px, epochs = arguments.labels, arguments.side_px, arguments.epochs
    folder = arguments.model
    if arguments.network:
        folder = trained(arguments.network, side_px, epochs, labels, arguments.data)
    model = TraitModel.load(folder)
    result = {
        "labels": labels,
        "network": model.encoder.backbone_name,
        "side_px": model.encoder.preprocessing.image_size_px,
        **({"epochs": epochs} if arguments.network else {}),
        **measure(arguments.data, model, labels),
        **circumstances(),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    name = labels
    if arguments.network:
        name = name_of(labels, arguments.network, side_px, epochs)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
