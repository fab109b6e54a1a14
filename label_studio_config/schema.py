"""What a labeling config asks, read from its XML: the one place a label list comes from."""

from __future__ import annotations

import hashlib
from functools import cached_property

from label_studio_config.config_xml import PATH_SEPARATOR, read_controls
from label_studio_config.controls import Condition, Control, Kind, SchemaError

__all__ = ["PATH_SEPARATOR", "Condition", "Control", "Kind", "LabelSchema", "SchemaError"]


class LabelSchema:
    """The controls of a labeling config.

    Examples
    --------
    >>> schema = LabelSchema.from_xml('''<View><Image name="image" value="$image"/>
    ...   <Choices name="group" toName="image"><Choice value="Copepod" aphia="1080"/>
    ...   <Choice value="Noctiluca scintillans" aphia="109921"/></Choices></View>''')
    >>> schema.control("group").labels
    ('Copepod', 'Noctiluca scintillans')
    """

    def __init__(self, xml: str, controls: tuple[Control, ...], image_tag: str, image_key: str):
        self.xml = xml
        self.controls = controls
        self.image_tag = image_tag
        self.image_key = image_key
        self._by_name = {control.name: control for control in controls}

    @classmethod
    def from_xml(cls, xml: str) -> LabelSchema:
        """Read a labeling config.

        Raises
        ------
        SchemaError
            Not XML, no image, a name or label used twice, or labels that stand in the task data.
        """
        return cls(xml, *read_controls(xml))

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def control(self, name: str) -> Control:
        """The control of that name.

        Raises
        ------
        SchemaError
            There is none.
        """
        if name not in self._by_name:
            raise SchemaError(f"no control {name!r} in the config; it has {sorted(self._by_name)}")
        return self._by_name[name]

    @cached_property
    def trainable(self) -> tuple[Control, ...]:
        """The controls that a model has heads for."""
        return tuple(control for control in self.controls if control.trained)

    @property
    def primary(self) -> Control | None:
        """The first one-of control that is trained and always asked, or the first trained one."""
        for control in self.trainable:
            if control.kind == "one of" and not control.conditions:
                return control
        return self.trainable[0] if self.trainable else None

    def require_trainable(self) -> None:
        """Raise SchemaError if there is nothing to learn, with each control's reason."""
        if not self.trainable:
            reasons = "; ".join(
                f"<{control.tag} name={control.name!r}>: {control.why_not_trained}"
                for control in self.controls
            )
            raise SchemaError(
                "nothing in this config can be learned: add Choices or a Number for the whole "
                f"image ({reasons or 'it has no controls'})"
            )

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, kinds, labels, units and conditions, not over looks."""
        digest = hashlib.sha256()
        for control in self.controls:
            conditions = sorted(
                (c.control, c.unselected, *sorted(c.labels)) for c in control.conditions
            )
            asked = (control.name, control.kind, control.labels, control.unit, conditions)
            digest.update(repr((asked, sorted(control.not_assessable))).encode())
        return digest.hexdigest()
