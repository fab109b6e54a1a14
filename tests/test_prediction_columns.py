"""The prediction table is made column by column; it says what each image's answers say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from label_studio_config.results import is_asked
from label_studio_config.schema import LabelSchema
from ml_backend.head import Head
from ml_backend.predictions import Predictions
from ml_backend.schema_change import serve

XML = """
<View>
  <Image name="image" value="$image"/>
  <Choices name="group" toName="image" choice="single">
    <Choice value="Disc"/><Choice value="Rod"/><Choice value="Ring"/>
  </Choices>
  <Choices name="flags" toName="image" choice="multiple">
    <Choice value="dark"/><Choice value="noisy"/>
  </Choices>
  <View visibleWhen="choice-selected" whenTagName="group" whenChoiceValue="Disc,Ring">
    <Choices name="spot" toName="image" choice="single">
      <Choice value="with spot"/><Choice value="no spot"/>
    </Choices>
    <View visibleWhen="choice-selected" whenTagName="spot" whenChoiceValue="with spot">
      <Number name="spots" toName="image" unit="count"/>
    </View>
  </View>
  <View visibleWhen="choice-unselected" whenTagName="flags" whenChoiceValue="dark">
    <Choices name="parts" toName="image" choice="multiple">
      <Choice value="tail"/><Choice value="antenna"/><Choice value="egg"/>
    </Choices>
  </View>
  <View visibleWhen="choice-selected" whenTagName="absent" whenChoiceValue="yes">
    <Number name="length" toName="image" unit="px"/>
  </View>
  <Choices name="absent" toName="image" choice="single">
    <Choice value="yes"/><Choice value="no"/>
  </Choices>
  <Number name="diameter" toName="image" unit="px"/>
</View>
"""
SCHEMA = LabelSchema.from_xml(XML)
HALF = (0.5, 0.5)
HEADS = (
    Head("group", "one of", ("Disc", "Rod", "Ring"), deployed_prior=(0.6, 0.1, 0.3)),
    Head("flags", "any of", ("dark", "noisy"), deployed_prior=HALF),
    Head("spot", "one of", ("with spot", "no spot"), deployed_prior=HALF),
    Head("spots", "number", unit="count", sd=1.5, half_width_95=3.0),
    Head("parts", "any of", ("tail", "antenna", "egg"), deployed_prior=(0.5, 0.5, 0.5)),
    Head("length", "number", unit="px"),
    Head("diameter", "number", unit="px", sd=2.5),
)


def random_predictions(n: int) -> Predictions:
    """The head of `absent` is missing, on which `length` depends."""
    rng = np.random.default_rng(0)
    served, unfit = serve(HEADS, SCHEMA)
    assert set(unfit) == {"absent"}
    values = {}
    for head in HEADS:
        if head.kind == "one of":
            values[head.control] = rng.dirichlet(np.ones(len(head.labels)), n)
        elif head.kind == "any of":
            values[head.control] = rng.random((n, len(head.labels)))
        else:
            values[head.control] = rng.normal(20, 5, (n, 1))
    values["diameter"][:2] = np.nan
    ids = [f"image-{row}" for row in range(n)]
    samples = [None if row % 3 else "haul" for row in range(n)]
    return Predictions(
        images=pd.DataFrame({"image_id": ids, "sample_id": samples, "path": ids}),
        schema=SCHEMA,
        served=served,
        unfit=unfit,
        values=values,
        embedding=rng.normal(size=(n, 8)).astype(np.float32),
        novelty=np.where(rng.random(n) < 0.5, np.nan, 0.25).astype(np.float32),
        model_version="p-v0001",
        skipped=[],
    )


def value_of(predictions: Predictions, control: str, row: int) -> Any:
    """What is suggested, whether it is asked or not."""
    (served,) = (s for s in predictions.served if s.head.control == control)
    values = predictions.values[control][row : row + 1]
    if served.head.kind == "number":
        return float(np.float32(values[0, 0]))
    labels = [label for label, c in zip(served.labels, served.choose(values)[0], strict=True) if c]
    return labels[0] if served.head.kind == "one of" else labels


@pytest.mark.parametrize("n", [0, 1, 200])
def test_the_columns_say_what_each_row_says(n: int) -> None:
    predictions = random_predictions(n)
    rows = predictions.table().to_pylist()
    assert len(rows) == n
    kinds = set()
    for number, row in enumerate(rows):
        said = {head.control: value_of(predictions, head.control, number) for head in HEADS}
        chosen = {
            name: (value,) if isinstance(value, str) else tuple(value)
            for name, value in said.items()
            if not isinstance(value, float)
        }
        asked = {name for name in said if is_asked(SCHEMA, SCHEMA.control(name), chosen)}
        kinds.add(frozenset(asked))
        assert predictions.answers(number).keys() == asked
        for name, value in said.items():
            np.testing.assert_equal(row[name], value if name in asked else None)
        for name in ("group", "flags", "spot", "parts"):
            confidence = predictions.confidences[name][number] if name in asked else None
            assert row[f"{name}__confidence"] == (confidence and pytest.approx(confidence))
            np.testing.assert_allclose(
                row[f"{name}__probabilities"], predictions.values[name][number], rtol=1e-6
            )
        assert row["spots__sd"] == (1.5 if "spots" in asked else None)
        assert (row["spots__low95"] is None) == ("spots" not in asked)
        assert row["diameter__sd"] == 2.5
        assert row["length__sd"] is row["length__low95"] is None
        assert row["sample_id"] == (None if number % 3 else "haul")
        assert row["model_version"] == "p-v0001"
        np.testing.assert_array_equal(
            row["embedding"], predictions.embedding[number].astype(np.float16)
        )
        known = not np.isnan(predictions.novelty[number])
        assert row["novelty"] == (0.25 if known else None)
    assert not any("length" in asked for asked in kinds)
    if n > 100:
        assert len(kinds) == 6  # group and spot: 3; flags: 2
