"""The page of a version: all of it there, nothing fetched, and no version without one."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser
from typer.testing import CliRunner

import planktrait
from label_studio_config.schema import LabelSchema
from ml_backend import record
from ml_backend.evaluate import evaluate_labels
from ml_backend.fine_tune import FineTuneSettings
from ml_backend.fit import FitSettings
from ml_backend.registry import ModelVersion, Registry
from ml_backend.report_page import report_html, write_report
from ml_backend.train import train
from simclr.encoder import Encoder
from tests.browser_fixtures import ARTEFACTS, WINDOW
from tests.trait_fixtures import GROUPS, XML, make_tasks, resolver

SCHEMA = LabelSchema.from_xml(XML)
HEADS_ONLY = FitSettings(views=1, refit_below=0, fine_tune=FineTuneSettings(epochs=0))
SECTIONS = ("learned", "calibration", "rejection", "agreement", "promotion", "card")


@dataclass
class Parsed(HTMLParser):
    """What a page holds: ids, text, and every address that it names."""

    ids: set[str] = field(default_factory=set)
    images: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in ("div", "td", "li", "p"):
            self.text += " "
        if named.get("id"):
            self.ids.add(str(named["id"]))
        for key in ("src", "href", "srcset", "data", "action", "poster"):
            if named.get(key):
                self.addresses.append(str(named[key]))
        if tag == "img":
            self.images.append(str(named["src"]))

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(page: str) -> Parsed:
    found = Parsed()
    found.feed(page)
    found.text = " ".join(found.text.split())
    return found


def check_fetches_nothing(page: str) -> None:
    found = parsed(page)
    assert all(address.startswith(("data:image/", "#")) for address in found.addresses)
    assert all(image.startswith("data:image/") for image in found.images)
    assert "url(" not in page
    assert "@import" not in page


@dataclass(frozen=True)
class Trained:
    """Two versions on phantoms; when the first was made, no page could be drawn."""

    registry: Registry
    images: Path
    blind: set[str]

    @property
    def first(self) -> ModelVersion:
        return self.registry.list()[0]

    @property
    def second(self) -> ModelVersion:
        return self.registry.list()[1]

    @property
    def page(self) -> str:
        return (self.second.folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    images = tmp_path_factory.mktemp("images")
    encoder = Encoder.create("resnet10t", image_size_px=32).save(tmp_path_factory.mktemp("encoder"))
    registry = Registry(tmp_path_factory.mktemp("models") / "project-1")
    tasks = make_tasks(images, 420, annotators=2, blind_share=0.1, samples=30)
    for task in tasks[::9]:  # so that there are mistakes to show
        for annotation in task["annotations"]:
            said = annotation["result"][0]["value"]["choices"]
            said[0] = GROUPS[(GROUPS.index(said[0]) + 1) % 3]

    def learn(n: int) -> None:
        train(
            tasks[:n],
            SCHEMA,
            resolve_image=resolver(images),
            registry=registry,
            encoder=encoder,
            settings=HEADS_ONLY,
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "report_html", lambda *_: 1 / 0)
        learn(150)
    learn(420)
    blind = {t["data"]["image_id"] for t in tasks if t["data"]["blind"] == "yes"}
    return Trained(registry, images, blind)


def test_a_training_is_not_lost_for_a_page(trained: Trained) -> None:
    assert (trained.first.folder / "metrics.json").exists()
    assert not (trained.first.folder / "report.html").exists()


def test_every_section_is_there(trained: Trained) -> None:
    found = parsed(trained.page)
    assert found.ids >= set(SECTIONS)
    metrics = trained.second.metrics
    group = metrics["metrics"]["test"]["group"]
    assert "project-1-v0002" in found.text
    assert f"{group['macro_recall']:.3f} 95 % interval" in found.text
    for words in (
        "Reliability",
        "Risk and coverage",
        "Learning curve",
        "Who is taken for whom",
        "Label by label",
        "Most confident mistakes",
        "Largest errors",
        "Krippendorff's alpha",
        metrics["promotion"]["reason"],
        metrics["data_fingerprint"],
        "flags: no votes on training images",
        "Suggests labels for plankton images",
        "square-root balanced",
    ):
        assert words in found.text, words
    assert "![" not in found.text
    card = (trained.second.folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# project-1-v0002\n")


def test_nothing_is_fetched(trained: Trained) -> None:
    check_fetches_nothing(trained.page)
    assert "default-src 'none'" in trained.page


def test_the_record_holds_what_the_page_shows(trained: Trained) -> None:
    told = trained.second.metrics
    group = told["metrics"]["test"]["group"]
    assert np.array(group["confusion"]).sum() == group["n_images"]
    mistakes = told["mistakes"]
    n_wrong = round(group["n_images"] * (1 - group["micro_accuracy"]))
    assert len(mistakes["group"]) == min(n_wrong, 24)
    confidences = [mistake["confidence"] for mistake in mistakes["group"]]
    assert confidences == sorted(confidences, reverse=True)
    assert all(mistake["said"] != mistake["truth"] for mistake in mistakes["group"])
    assert all(Path(mistake["path"]).parent == trained.images for mistake in mistakes["group"])
    errors = [abs(mistake["said"] - mistake["truth"]) for mistake in mistakes["diameter"]]
    assert errors == sorted(errors, reverse=True)
    assert told["rejection"]["control"] == "group"
    assert told["rejection"]["confidence"]["curve"]


def test_blind_images_are_not_shown(trained: Trained) -> None:
    blind = trained.blind
    assert len(blind) > 20
    shown = {
        mistake["image_id"]
        for mistakes in trained.second.metrics["mistakes"].values()
        for mistake in mistakes
    }
    assert shown
    assert not shown & blind


def test_an_image_that_is_gone_is_named(trained: Trained, tmp_path: Path) -> None:
    mistake = trained.second.metrics["mistakes"]["group"][0]
    path = Path(mistake["path"])
    kept = path.read_bytes()
    path.unlink()
    try:
        page = write_report(trained.registry, trained.second, tmp_path / "page.html")
    finally:
        path.write_bytes(kept)
    text = parsed(page.read_text()).text
    assert "cannot be shown: the file does not exist" in text
    assert mistake["image_id"] in text


def test_the_command_writes_the_page_anew(trained: Trained, tmp_path: Path) -> None:
    output = tmp_path / "new folder" / "page.html"
    models = str(trained.registry.folder)
    run = CliRunner().invoke(
        planktrait.app,
        ["report", "project-1-v0001", "--models", models, "--output", str(output)],
    )
    assert run.exit_code == 0, run.output
    assert "project-1-v0001" in run.output
    found = parsed(output.read_text(encoding="utf-8"))
    assert "So far there is one version" not in found.text  # the second came later
    live = CliRunner().invoke(planktrait.app, ["report", "--models", models])
    assert live.exit_code == 0
    assert trained.registry.live is not None
    assert trained.registry.live.name in live.output
    unknown = CliRunner().invoke(planktrait.app, ["report", "project-1-v0009", "--models", models])
    assert unknown.exit_code == 1


def test_a_damaged_record_of_another_version_is_left_out(
    trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = tmp_path / "project-1"
    shutil.copytree(trained.registry.folder, models)
    file = models / "project-1-v0001" / "metrics.json"
    file.chmod(0o644)
    file.write_text("{")
    words = ("--models", str(models))
    whole = CliRunner().invoke(planktrait.app, ["report", "project-1-v0002", *words])
    assert whole.exit_code == 0, whole.output
    assert f"project-1-v0001 is left out: {file} cannot be read" in caplog.text
    listed = CliRunner().invoke(planktrait.app, ["models", "list", *words])
    assert listed.exit_code == 0
    assert "project-1-v0001" in listed.output
    damaged = CliRunner().invoke(planktrait.app, ["report", "project-1-v0001", *words])
    assert damaged.exit_code == 1
    assert "take it from a backup" in " ".join(damaged.output.split())


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (".", "is a folder: name a file, such as report.html"),
        ("a folder", "is a folder: name a file"),
        ("a file/page.html", "cannot be written"),
        ("/proc/nowhere/page.html", "cannot be written"),
    ],
)
def test_a_page_that_cannot_be_written_there_says_so(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a folder").mkdir()
    Path("a file").write_text("")
    words = ["report", "--models", str(trained.registry.folder), "--output", output]
    answer = CliRunner().invoke(planktrait.app, words)
    assert answer.exit_code == 1
    assert said in " ".join(answer.output.split())


def test_an_old_version_has_a_page_too(trained: Trained, tmp_path: Path) -> None:
    """Without the keys that came with the page."""
    told = json.loads((trained.second.folder / "metrics.json").read_text())
    for key in ("rejection", "mistakes", "agreement", "self_agreement", "trained", "blind"):
        told.pop(key, None)
    new = ("ece_adaptive", "ece_classwise", "reliability", "risk_coverage", "confusion")
    for controls in told["metrics"].values():
        for metrics in controls.values():
            for key in (*new, "ece_before_correction"):
                metrics.pop(key, None)
    for head in told["heads"]:
        head.pop("tempered", None)
    page = report_html("project-1-v0001", told, "", [])
    check_fetches_nothing(page)
    text = parsed(page).text
    assert "recorded no confusion matrix" in text
    assert "recorded no mistakes" in text
    assert "Label by label" in text
    assert "So far there is one version" in text


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({}, "Nothing was recorded of what this version answers"),
        (
            {"heads": [{"control": "group", "kind": "one of", "labels": ["a", "b"]}]},
            "No held-out image has a vote for group",
        ),
        (
            {"left_out": {"group": "votes for one label only (Rod), needs two"}, "metrics": {}},
            "group: votes for one label only (Rod)",
        ),
    ],
)
def test_what_is_missing_is_said(told: dict[str, Any], words: str) -> None:
    page = report_html("p-v0001", told, "", [])
    check_fetches_nothing(page)
    assert words in parsed(page).text


def many_labels(n_labels: int, n_images: int = 600) -> dict[str, Any]:
    """Metrics of a control with many labels, few of them wrong."""
    generator = np.random.default_rng(0)
    labels = [f"group_{number:03d}_with_a_long_name" for number in range(n_labels)]
    truth = generator.integers(0, n_labels, n_images)
    said = np.where(generator.random(n_images) < 0.3, (truth + 1) % n_labels, truth)
    chosen = np.eye(n_labels, dtype=bool)[said]
    probabilities = np.where(chosen, 0.7, 0.3 / max(n_labels - 1, 1))
    shares = np.eye(n_labels)[truth]
    return evaluate_labels(
        "one of", labels, probabilities, probabilities, chosen, shares, np.arange(n_images)
    )


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize("n_labels", [1, 2, 121])
def test_one_label_or_many(n_labels: int) -> None:
    metrics = many_labels(n_labels, 3 if n_labels == 1 else 600)
    page = report_html("p-v0001", {"metrics": {"test": {"group": metrics}}}, "", [])
    check_fetches_nothing(page)
    assert f"of {n_labels} labels occur" in parsed(page).text
    assert len(page) < 3_000_000


def test_labels_and_cards_bring_no_code() -> None:
    """Labels are typed by people, and stand in the model card."""
    evil = '<img src="http://example.org/x.png" onerror="alert(1)">'
    metrics = many_labels(2)
    metrics["per_label"] = {evil: metrics["per_label"].popitem()[1], "b": {"support": 0}}
    card = f"# Card\n\n{evil}\n\n![seen](http://example.org/y.png) [go](http://example.org)\n"
    page = report_html("p-v0001", {"metrics": {"test": {"group": metrics}}}, card, [])
    check_fetches_nothing(page)
    assert evil in parsed(page).text


def test_numbers_bear_their_unit_and_have_a_blind_error_too() -> None:
    told = {"kind": "number", "unit": "µm", "n_images": 9, "few_images": True, "mae": 2.1}
    mistake = {"image_id": "a", "path": "/nowhere/a.png", "truth": 27.0, "said": 29.125}
    page = report_html(
        "p-v0001",
        {
            "metrics": {"test": {"length": told}, "blind": {"length": told | {"mae": 3.5}}},
            "mistakes": {"length": [{**mistake, "confidence": None}]},
            "images": {"train": 40},
        },
        "",
        [],
    )
    text = parsed(page).text
    assert "said 29.1 µm truth 27 µm" in text
    assert "error, blind length 9 few – – – 2.1 µm 3.5 µm" in text
    assert "recall, blind" not in text
    assert "Mean absolute error (µm) of each version" in text


@pytest.mark.slow
def test_in_a_browser(trained: Trained, browser: Browser) -> None:
    """Nothing is asked of any server, nothing fails, columns sort, a phone need not scroll."""
    page = browser.new_context(viewport=WINDOW).new_page()  # type: ignore[arg-type]
    asked: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto((trained.second.folder / "report.html").as_uri())
    page.wait_for_function("() => [...document.images].every((i) => i.naturalWidth > 0)")
    assert all(url.startswith(("file:", "data:")) for url in asked)
    table = page.locator("table.sortable").first
    table.get_by_role("button", name="recall").click()
    column = table.locator("tbody tr td:nth-child(3)").all_inner_texts()
    recalls = [float(text) for text in column if text != "–"]
    assert recalls == sorted(recalls, reverse=True)
    ARTEFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTEFACTS / "report.png", full_page=True)
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot(path=ARTEFACTS / "report-phone.png")
    assert not faults
    page.context.close()
