"""A labeling config becomes a schema; one that cannot be learned from is refused by name."""

import pytest

from label_studio_config.schema import LabelSchema, SchemaError

TRAITS = """<View>
  <Image name="image" value="$image"/>
  <Choices name="group" toName="image" choice="single" required="true">
    <Choice value="Copepod" aphia="1080" hotkey="c"/>
    <Choice value="Diatom chain"/>
    <Choice value="Not assessable" role="not_assessable"/>
  </Choices>
  <View visibleWhen="choice-selected" whenTagName="group" whenChoiceValue="Copepod">
    <Choices name="egg_sac" toName="image" choice="single">
      <Choice value="Absent" role="absent"/><Choice value="Present"/>
      <Choice value="Not assessable" role="not_assessable"/>
    </Choices>
    <View visibleWhen="choice-selected" whenTagName="egg_sac" whenChoiceValue="Present">
      <Number name="egg_sacs" toName="image" unit="count" min="1" max="4"/>
      <Choices name="egg_sacs_assessable" toName="image" notAssessableFor="egg_sacs">
        <Choice value="Counted"/><Choice value="Not assessable" role="not_assessable"/>
      </Choices>
    </View>
  </View>
  <Choices name="quality" toName="image" choice="multiple">
    <Choice value="Sharp"/><Choice value="Cropped"/>
  </Choices>
  <Taxonomy name="taxon" toName="image">
    <Choice value="Crustacea" aphia="1066"><Choice value="Copepoda" aphia="1080"/></Choice>
  </Taxonomy>
  <KeyPointLabels name="tips" toName="image"><Label value="Anterior end"/></KeyPointLabels>
  <TextArea name="comment" toName="image"/>
</View>"""


def schema() -> LabelSchema:
    return LabelSchema.from_xml(TRAITS)


def test_kinds_labels_and_order():
    kinds = {control.name: control.kind for control in schema().controls}
    assert kinds == {
        "group": "one of",
        "egg_sac": "one of",
        "egg_sacs": "number",
        "egg_sacs_assessable": "one of",
        "quality": "any of",
        "taxon": "one of",
        "tips": "key points",
        "comment": "other",
    }
    assert schema().control("group").labels == ("Copepod", "Diatom chain")
    assert schema().control("taxon").labels == ("Crustacea", "Crustacea / Copepoda")


def test_vocabulary_and_roles_come_from_the_config():
    group, egg_sac = schema().control("group"), schema().control("egg_sac")
    assert group.vocabulary["Copepod"] == {"aphia": "1080"}
    assert group.not_assessable == {"Not assessable"}
    assert egg_sac.absent == {"Absent"}
    assert egg_sac.labels == ("Absent", "Present")


def test_conditions_of_all_enclosing_views():
    conditions = schema().control("egg_sacs").conditions
    assert [(c.control, set(c.labels)) for c in conditions] == [
        ("group", {"Copepod"}),
        ("egg_sac", {"Present"}),
    ]


def test_what_is_trained_and_why_the_rest_is_not():
    trained = {control.name for control in schema().trainable}
    assert trained == {"group", "egg_sac", "egg_sacs", "quality", "taxon"}
    assert "egg_sacs" in (schema().control("egg_sacs_assessable").why_not_trained or "")
    assert schema().primary.name == "group"


def test_fingerprint_ignores_looks_and_sees_labels():
    looks = TRAITS.replace('hotkey="c"', 'hotkey="k"')
    labels = TRAITS.replace('<Choice value="Diatom chain"/>', '<Choice value="Diatom"/>')
    assert LabelSchema.from_xml(looks).fingerprint == schema().fingerprint
    units = TRAITS.replace('unit="count"', 'unit="mm"')
    assert LabelSchema.from_xml(labels).fingerprint != schema().fingerprint
    assert LabelSchema.from_xml(units).fingerprint != schema().fingerprint


@pytest.mark.parametrize(
    ("xml", "named"),
    [
        ("<View><Image", "not valid XML"),
        ("<View><Text name='t' value='$t'/></View>", "0 <Image> tags"),
        (TRAITS.replace('name="tips"', 'name="group"'), "two controls are named 'group'"),
        (TRAITS.replace('"Diatom chain"', '"Copepod"'), "'Copepod' stands twice"),
        (TRAITS.replace('name="quality"', 'name="quality" value="$options"'), "task data"),
        (TRAITS.replace('notAssessableFor="egg_sacs"', 'notAssessableFor="eggs"'), "'eggs'"),
    ],
)
def test_refused_with_the_tag_and_the_reason(xml, named):
    with pytest.raises(SchemaError, match=named):
        LabelSchema.from_xml(xml)


def test_nothing_to_learn_is_refused_only_when_learning():
    boxes = LabelSchema.from_xml(
        '<View><Image name="image" value="$image"/><RectangleLabels name="boxes" toName="image">'
        '<Label value="Copepod"/></RectangleLabels></View>'
    )
    assert boxes.control("boxes").kind == "boxes"
    with pytest.raises(SchemaError, match="<RectangleLabels name='boxes'>: boxes are kept"):
        boxes.require_trainable()


def test_a_panel_can_be_shown_while_a_label_is_not_chosen():
    xml = TRAITS.replace(
        'visibleWhen="choice-selected" whenTagName="group"',
        'visibleWhen="choice-unselected" whenTagName="group"',
    )
    condition = LabelSchema.from_xml(xml).control("egg_sac").conditions[0]
    assert not condition.holds({"group": ("Copepod",)})
    assert condition.holds({"group": ("Diatom chain",)})
    assert condition.holds({})


@pytest.mark.parametrize("name", ["confidence", "path", "egg__sac"])
def test_a_control_named_like_a_column_is_refused(name):
    with pytest.raises(SchemaError, match=f"name='{name}'.*another one"):
        LabelSchema.from_xml(TRAITS.replace('name="quality"', f'name="{name}"'))
