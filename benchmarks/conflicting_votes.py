"""Does it pay to learn from conflicting votes, rather than from the label that most chose?

    python -m benchmarks.conflicting_votes path/to/ndsb

Three annotators are simulated on every image (`simulated_annotators.py`): each errs in a stated
share of the images, mostly towards groups that look alike to SimCLR, which is measured once on the
images that are not held out and kept in `results/conflicting_votes/confusion.json`. Then the same
images are trained through `planktrait`'s own `train`: on all three votes (kl), on one annotation
with the label that most chose (majority; ties are drawn), on three votes weighted by how far
annotators agree (weighted), and, as a ceiling, on the true labels (truth). Split, seeds and
settings are the same.

All are judged on the held-out images (SHA-256 of the file name is 0 modulo 5), which never train,
fit or choose anything: against the true label, and against three votes by the same annotators.
Weighted accuracy is the share of annotators who chose the suggested label over the share who chose
the modal one, averaged over images (Schanz et al. 2023, MLST 4:035007).
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.cells import OfResult, finished, read_options, run_cells
from benchmarks.conflicting_votes_plot import draw
from benchmarks.ndsb import CONTROL, LABEL_SETS, manifest_of, read_table, schema_of, subset
from benchmarks.simulated_annotators import (
    NEIGHBOURS,
    UNIFORM_SHARE,
    confusion_of,
    looks_like,
    majority,
    shares_of,
    simulate,
    weights_by_agreement,
)
from benchmarks.training import RULE, decoded, heads_only, train_tasks
from hpc_jobs.whole_files import replacing, write_text
from label_studio_config.results import write_result
from label_studio_config.schema import LabelSchema
from ml_backend.annotators import update_weights
from ml_backend.calibrate import brier_score, calibrated, fit_temperature, log_loss
from ml_backend.describe import describe
from ml_backend.evaluate import evaluate_labels
from ml_backend.fit import FROZEN, FitSettings
from ml_backend.model import TraitModel
from ml_backend.schema_change import ServedHead, serve
from simclr.embed import embed
from simclr.encoder import Encoder

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "conflicting_votes"
WORK = HERE / "work" / "conflicting_votes"
LABELS = "groups"
TEAMS = {"mixed": (0.10, 0.25, 0.40), "good": (0.10, 0.10, 0.10), "poor": (0.40, 0.40, 0.40)}
"""Share of the images that each of the three annotators gets wrong."""
METHODS = {"mixed": ("kl", "majority", "weighted", "truth")}
COMPARED = ("kl", "majority")
MODELS = ("heads", "network")
SHARES = (0.1, 0.01)
SEEDS = (0, 1, 2)
MAIL = "annotator-{}@example.org"
LIKELIHOODS = ("nll", "brier")
TRUTH_FIGURES = ("macro_recall", "micro_accuracy", "macro_f1", *LIKELIHOODS, "ece", "ece_classwise")
VOTE_FIGURES = ("agreement", *LIKELIHOODS, "kl", "ece")


@dataclass(frozen=True, order=True)
class Cell(OfResult):
    """One training: what is fitted, from how many images, by whom, and what it makes of votes."""

    model: str
    share: float
    team: str
    method: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.model}-{100 * self.share:g}pct-{self.team}-{self.method}-seed{self.seed}"


def cells() -> list[Cell]:
    """All of them: what the comparison stands on first."""
    return [
        Cell(model, share, team, method, seed)
        for team in TEAMS
        for share in SHARES
        for model in MODELS
        if team == "mixed" or (share == SHARES[0] and model == MODELS[0])
        for seed in SEEDS
        for method in METHODS.get(team, COMPARED)
    ]


@dataclass(frozen=True)
class Votes:
    """What the annotators say of every image of the table, rows as there.

    Attributes
    ----------
    truth, majority : int arrays (n,)
    votes : int array (n, 3)
    tied : bool array (n,)
    """

    labels: list[str]
    truth: np.ndarray
    votes: np.ndarray
    majority: np.ndarray
    tied: np.ndarray

    @classmethod
    def draw(cls, table: pd.DataFrame, team: str, likeness: np.ndarray, seed: int) -> Votes:
        """Votes of a team; the same for every method and share of the labels."""
        rng = np.random.default_rng([seed, list(TEAMS).index(team)])
        column = table[LABEL_SETS[LABELS]]
        labels = sorted(column.unique())
        truth = column.map({label: number for number, label in enumerate(labels)}).to_numpy(int)
        confusions = [confusion_of(error, likeness) for error in TEAMS[team]]
        votes = simulate(truth, confusions, rng)
        return cls(labels, truth, votes, *majority(votes, len(labels), rng))

    def said(self, method: str) -> np.ndarray:
        """The annotations that a method learns from, (n, 3) or (n, 1)."""
        single = {"majority": self.majority, "truth": self.truth}
        return single[method][:, None] if method in single else self.votes

    def shares(self, target: str, rows: np.ndarray) -> np.ndarray:
        """Truth, majority or votes as shares of the labels, (rows, k)."""
        said = self.said(target)[rows]
        return shares_of(said, len(self.labels))


def tasks_of(
    images: pd.Series, said: np.ndarray, labels: list[str], schema: LabelSchema
) -> list[dict[str, Any]]:
    """Tasks as Label Studio exports them: an annotation for each column of `said` (n, m)."""
    results = [write_result(schema, {CONTROL: label}) for label in labels]
    return [
        {
            "id": number,
            "data": {"image": image, "image_id": image},
            "annotations": [
                {
                    "id": len(said[0]) * number + who,
                    "completed_by": {"id": who, "email": MAIL.format(who)},
                    "result": results[label],
                }
                for who, label in enumerate(row, start=1)
            ],
            "predictions": [],
        }
        for number, (image, row) in enumerate(zip(images, said, strict=True), start=1)
    ]


def measured_likeness(
    table: pd.DataFrame, folder: Path, encoder: Path, path: Path, cache_folder: Path
) -> np.ndarray:
    """Which group is taken for which, (k, k): measured once, then read from `path`.

    Raises
    ------
    SystemExit
        It was measured with another encoder.
    """
    digest = _digest(encoder)
    if path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["encoder_sha256"] != digest:
            raise SystemExit(f"{path} is of another encoder: give that one, or remove the results")
        return np.array(record["taken_for"])
    rest = table[~table["held_out"]]
    ids, features, _ = embed(
        Encoder.load(encoder), manifest_of(rest, folder), cache_folder=cache_folder
    )
    column = rest.set_index("image")[LABEL_SETS[LABELS]].loc[ids]
    labels = sorted(table[LABEL_SETS[LABELS]].unique())
    codes = column.map({label: number for number, label in enumerate(labels)}).to_numpy(int)
    likeness = looks_like(features, codes, len(labels)).round(5)
    likeness /= likeness.sum(axis=1, keepdims=True)
    record = {
        "what": "share of each group (column) among what a group (row) is taken for by an "
        "annotator who errs",
        "measured_on": f"{len(ids)} images that are not held out, {NEIGHBOURS} nearest neighbours "
        "by cosine similarity of SimCLR features",
        "uniform_share": UNIFORM_SHARE,
        "encoder_sha256": digest,
        "labels": labels,
        "taken_for": [[round(float(share), 5) for share in row] for row in likeness],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return np.array(record["taken_for"])


def _digest(encoder: Path) -> str:
    """Of its weights in 16 bits, as they are kept: those in 32 they came from have the same."""
    return Encoder.load(encoder).half().fingerprint


def run(
    cell: Cell, folder: Path, encoder: Path, likeness: np.ndarray, work: Path = WORK
) -> dict[str, Any]:
    """Train one cell and score it on the held-out images."""
    began_s = time.monotonic()
    table = read_table(folder)
    votes = Votes.draw(table, cell.team, likeness, cell.seed)
    some = subset(table, LABELS, cell.share, cell.seed)
    schema = schema_of(table, LABELS)
    home = work / cell.name
    shutil.rmtree(home, ignore_errors=True)
    learned = votes.votes[some.index]
    weights: dict[str, float] = {}
    if cell.method == "weighted":
        measured = weights_by_agreement(learned).round(3).tolist()
        weights = update_weights(
            home, {MAIL.format(who): weight for who, weight in enumerate(measured, start=1)}
        )
    settings = replace(FitSettings(), seed=cell.seed)
    if cell.model == "heads":
        settings = heads_only(settings)
    report = train_tasks(
        tasks_of(some["image"], votes.said(cell.method)[some.index], votes.labels, schema),
        schema,
        folder,
        home,
        encoder,
        settings,
        work.parent / "cache",
    )
    same = work / f"held_out-{_digest(encoder)[:16]}.npy"
    scored = score(
        TraitModel.load(report.version.folder),
        table,
        some,
        folder,
        votes,
        work,
        same if report.record["trained"] == FROZEN else None,
    )
    shutil.rmtree(home)
    return {
        **asdict(cell),
        "n_images": len(some),
        "error_rates": TEAMS[cell.team],
        "wrong_votes": (learned != votes.truth[some.index, None]).mean(axis=0).round(4).tolist(),
        "wrong_majority": float((votes.majority != votes.truth)[some.index].mean()),
        "ties": float(votes.tied[some.index].mean()),
        "alpha": report.record["agreement"][CONTROL]["alpha"],
        "weights": weights,
        "trained": report.record["trained"],
        "penalty": report.record["penalties"][CONTROL],
        "settings": report.record["settings"],
        **scored,
        "seconds": round(time.monotonic() - began_s, 1),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def score(
    model: TraitModel,
    table: pd.DataFrame,
    some: pd.DataFrame,
    folder: Path,
    votes: Votes,
    work: Path,
    same: Path | None,
) -> dict[str, Any]:
    """Figures on the held-out images, against the truth and against the votes.

    The validation images are predicted too, for `retempered`: what the likelihoods would be had
    the temperature been fitted to their votes, to the label that most chose, or to the truth. It
    tells what the temperature does from what the weights have learned.

    Parameters
    ----------
    same : Path, optional
        Holds, or is to hold, what the encoder says of the held-out images: it is the same for all
        heads on frozen features.
    """
    held_out = np.flatnonzero(table["held_out"])
    sides = np.array([RULE.side(image) for image in some["image"]])
    validation = some.index.to_numpy()[sides == "validation"]
    served = serve(model.heads, model.schema)[0][0]
    values = _answers(model, table.loc[held_out], folder, work, same)
    checked = _answers(model, table.loc[validation], folder, work, None)
    truth, voted = votes.shares("truth", held_out), votes.shares("kl", held_out)
    suggested = served.choose(values)
    most_probable = np.eye(len(votes.labels), dtype=bool)[values.argmax(axis=1)]
    before, images = served.before_correction(values), table["image"].to_numpy(str)[held_out]

    def figures(names: tuple[str, ...], chosen: np.ndarray, shares: np.ndarray) -> dict[str, float]:
        measured = evaluate_labels("one of", votes.labels, values, before, chosen, shares, images)
        return {name: measured[name] for name in names}

    return {
        "n_held_out": len(held_out),
        "temperature": served.head.temperature,
        "biased": bool(served.head.bias),
        "truth": figures(TRUTH_FIGURES, suggested, truth),
        "votes": figures(VOTE_FIGURES, suggested, voted),
        "most_probable": {
            **figures(("macro_recall", "micro_accuracy", "ece"), most_probable, truth),
            **figures(("agreement",), most_probable, voted),
        },
        "ceiling": figures(("agreement",), truth.astype(bool), voted),
        "retempered": {
            target: _retempered(
                served,
                (checked, votes.shares(target, validation)),
                values,
                {"truth": truth, "votes": voted},
            )
            for target in ("kl", "majority", "truth")
        },
    }


def _answers(
    model: TraitModel, images: pd.DataFrame, folder: Path, work: Path, same: Path | None
) -> np.ndarray:
    """Calibrated probabilities (n, k) of images, in their order."""
    if same is not None and same.exists():
        inputs = torch.from_numpy(np.load(same))
    else:
        cache = decoded(images, folder, model.encoder, work.parent / "cache")
        inputs = describe(model, cache.images, cache.log_extents, np.arange(len(cache)))
        if same is not None:
            with replacing(same) as temporary, temporary.open("wb") as file:
                np.save(file, inputs.numpy())
    with torch.inference_mode():
        logits = model.classify(inputs)[CONTROL].numpy()
    return model.head(CONTROL).answer(logits)


def _retempered(
    served: ServedHead,
    validation: tuple[np.ndarray, np.ndarray],
    values: np.ndarray,
    judged: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Likelihoods on held-out images, the temperature fitted anew to shares of validation images.

    Parameters
    ----------
    validation : two arrays (m, k)
        Probabilities and shares of the validation images.
    values : array (n, k)
        Probabilities of the held-out images.
    """

    def logits_of(probabilities: np.ndarray) -> np.ndarray:
        return np.log(np.clip(served.before_correction(probabilities), 1e-12, 1.0))

    checked, shares = validation
    weights, shift = served.head.prior_weights(shares), served.head.shift()
    factor = fit_temperature("one of", logits_of(checked), shares, weights)
    logits = logits_of(values)
    anew = calibrated("one of", logits, factor, shift)
    return {"factor": factor} | {
        name: {
            "nll": log_loss("one of", logits, shares, factor, shift),
            "brier": brier_score(anew, shares),
        }
        for name, shares in judged.items()
    }


def rows_of(results: list[dict[str, Any]]) -> pd.DataFrame:
    """One row a result: its cell and the figures that are compared.

    "alike": with every temperature fitted to the label that most chose, whatever was learned.
    The product keeps the whole network only where the validation side prefers it to the heads.
    """
    return pd.DataFrame(
        [
            asdict(Cell.of(result))
            | {
                "NLL votes": result["votes"]["nll"],
                "NLL truth": result["truth"]["nll"],
                "NLL votes, alike": result["retempered"]["majority"]["votes"]["nll"],
                "NLL truth, alike": result["retempered"]["majority"]["truth"]["nll"],
                "Brier votes": result["votes"]["brier"],
                "Brier truth": result["truth"]["brier"],
                "weighted accuracy": result["votes"]["agreement"],
                "w. acc., most probable": result["most_probable"]["agreement"],
                "macro recall": result["truth"]["macro_recall"],
                "accuracy": result["truth"]["micro_accuracy"],
                "ECE votes": result["votes"]["ece"],
                "ECE truth": result["truth"]["ece"],
                "whole network kept": float(result["trained"] != FROZEN),
            }
            for result in results
        ]
    )


def show(results: list[dict[str, Any]]) -> None:
    """Means over seeds, and what learning from votes gains over the majority, seed by seed."""
    if not results:
        print("nothing is finished yet")
        return
    table = rows_of(results)
    setting = ["team", "share", "model"]
    figures = [name for name in table if name not in {*setting, "method", "seed"}]
    for (team, share, model), group in table.groupby(setting, sort=False):
        print(f"\n{model}, {share:.0%} of the labels, {team} annotators {TEAMS[str(team)]}")
        by_method = group.groupby("method", sort=False)
        means = by_method[figures].mean()
        print(means.assign(seeds=by_method.size()).T.round(3).to_string())
        ours, theirs = (
            group[group["method"] == method].set_index("seed")[figures] for method in COMPARED
        )
        gains = (ours - theirs).dropna().T
        if len(gains.columns):
            print("kl minus majority, by seed")
            print(gains.assign(mean=gains.mean(axis=1)).round(4).to_string())


def main() -> None:
    arguments = read_options(__doc__, "heads-10pct-mixed-*")
    logging.basicConfig(level=logging.WARNING)
    path = RESULTS / "confusion.json"
    table = read_table(arguments.data)
    likeness = measured_likeness(
        table, arguments.data, arguments.encoder, path, HERE / "work" / "cache"
    )
    run_one = partial(run, folder=arguments.data, encoder=arguments.encoder, likeness=likeness)
    for result in run_cells(cells(), RESULTS, arguments, run_one):
        print(
            f"{Cell.of(result).name}: weighted accuracy {result['votes']['agreement']:.3f}, "
            f"NLL of votes {result['votes']['nll']:.3f}, of the truth "
            f"{result['truth']['nll']:.3f}, {result['seconds']:.0f} s",
            flush=True,
        )
    results = finished(cells(), RESULTS)
    show(results)
    if results and not arguments.list:
        draw(rows_of(results), RESULTS.parent / "conflicting_votes.svg")


if __name__ == "__main__":
    main()
