"""Columns of the Data Manager that Label Studio lacks: suggested label, confidence, second choice,
novelty, agreement. They can be sorted and filtered by, from the gallery's index.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.current_request import get_current_request
from data_manager.api import TaskListAPI
from data_manager.functions import get_all_columns as label_studio_columns
from data_manager.managers import update_annotation_map
from data_manager.serializers import DataManagerTaskSerializer
from django.db.models import (
    Case,
    CharField,
    Count,
    Exists,
    F,
    FloatField,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Value,
    When,
)
from django.db.models.functions import Cast, NullIf, Round
from projects.models import Project
from rest_framework import serializers
from tasks.api import TaskAPI

from label_studio_config.plugin.awaited import Awaited
from label_studio_config.plugin.gallery_catch_up import catch_up, shown_version
from label_studio_config.plugin.gallery_rows import questions_of
from label_studio_config.plugin.models import (
    UNKNOWN,
    GivenAnswer,
    SuggestedLabel,
)

CATCH_UP_S = 2.0
_DIGITS = 3

_TEXTS = {
    "suggested_label": ("Suggested", "label", "What the live model suggests"),
    "second_choice": ("Second choice", "second_label", "What the model would say next"),
}
_NUMBERS = {
    "confidence": ("Confidence", "confidence", "Calibrated probability of the suggested label"),
    "novelty": ("Novelty", "novelty", "How unlike the training images it is: 1 is most"),
}
_AGREEMENT = "agreement_of_annotators"
COLUMNS = (*_TEXTS, *_NUMBERS, _AGREEMENT)


def register() -> None:
    """Offer the columns in every project's Data Manager; called once, when all apps are loaded."""
    update_annotation_map({name: _suggested(name) for name in (*_TEXTS, *_NUMBERS)})
    update_annotation_map({_AGREEMENT: _with_agreement})
    TaskListAPI.task_serializer_class = TaskSerializer
    # A single task is given without our columns: it need not wait for them.
    excluded = TaskAPI.get_excluded_fields_for_evaluation
    TaskAPI.get_excluded_fields_for_evaluation = lambda api: [*excluded(api), *COLUMNS]


def get_all_columns(project: Project, *rest: Any) -> dict[str, Any]:
    """Label Studio's columns and ours (its setting DATA_MANAGER_GET_ALL_COLUMNS)."""
    columns = label_studio_columns(project, *rest)
    described = {name: (title, "String", text) for name, (title, _, text) in _TEXTS.items()}
    described |= {name: (title, "Number", text) for name, (title, _, text) in _NUMBERS.items()}
    agreed = (
        "Share of the most frequent answer, where two persons or more have answered; where several "
        "votes are wanted, once you have answered yourself"
    )
    described[_AGREEMENT] = ("Agreement", "Number", agreed)
    order = ("suggested_label", "confidence", "second_choice", "novelty", _AGREEMENT)
    columns["columns"] += [_column(name, *described[name]) for name in order]
    return columns


class TaskSerializer(DataManagerTaskSerializer):
    """Label Studio's, with our columns."""

    suggested_label = serializers.CharField(required=False, read_only=True)
    second_choice = serializers.CharField(required=False, read_only=True)
    confidence = serializers.FloatField(required=False, read_only=True)
    novelty = serializers.FloatField(required=False, read_only=True)
    agreement_of_annotators = serializers.FloatField(required=False, read_only=True)

    class Meta(DataManagerTaskSerializer.Meta):
        ref_name = "planktrait_data_manager_task"


def _column(name: str, title: str, kind: str, text: str) -> dict[str, Any]:
    return {
        "id": name,
        "title": title,
        "type": kind,
        "target": "tasks",
        "help": text,
        "visibility_defaults": {"explore": name in ("suggested_label", "confidence")}
        | {"labeling": False},
        "project_defined": False,
    }


def _suggested(name: str) -> Callable[[QuerySet], QuerySet]:
    def annotate(tasks: QuerySet) -> QuerySet:
        control = _control(tasks)
        rows = SuggestedLabel.objects.none()
        if control is not None:
            rows = SuggestedLabel.objects.filter(
                task_id=OuterRef("id"),
                model_version=shown_version(tasks.project),
                control=control,
            )
        if name in _TEXTS:
            said = NullIf(F(_TEXTS[name][1]), Value(""), output_field=CharField())
            return tasks.annotate(**{name: Subquery(rows.values(value=said)[:1])})
        column = _NUMBERS[name][1]
        known = rows.exclude(**{column: UNKNOWN}).values(value=Round(F(column), _DIGITS))
        return tasks.annotate(**{name: Subquery(known[:1], output_field=FloatField())})

    return annotate


def _with_agreement(tasks: QuerySet) -> QuerySet:
    answers = GivenAnswer.objects.filter(
        task_id=OuterRef("id"), control=_control(tasks) or ""
    ).order_by()
    by_label = answers.values("label").annotate(n=Count("id")).order_by("-n")
    all_of_them = answers.values("task_id").annotate(n=Count("id")).filter(n__gt=1)
    share = Cast(Subquery(by_label.values("n")[:1]), FloatField()) / Cast(
        Subquery(all_of_them.values("n")[:1]), FloatField()
    )
    told = Case(When(_hidden(tasks), then=None), default=Round(share, _DIGITS))
    return tasks.annotate(**{_AGREEMENT: told})


def _hidden(tasks: QuerySet) -> Q:
    """Of which tasks the person who asks may not see others' answers: as in the gallery."""
    project, control = getattr(tasks, "project", None), _control(tasks)
    if project is None or control is None:
        return Q(pk__in=[])
    user = getattr(get_current_request(), "user", None)
    mine = GivenAnswer.objects.filter(
        task_id=OuterRef("id"), control=control, user_id=getattr(user, "id", None) or 0
    )
    if project.maximum_annotations > 1:
        return ~Q(Exists(mine))
    return Awaited.of(project.id).condition("id") & ~Q(Exists(mine))


def _control(tasks: QuerySet) -> str | None:
    """The primary control, once its index is up to date or nearly so; None without one."""
    if getattr(tasks, "project", None) is None:
        return None
    questions = questions_of(tasks.project.label_config)
    if questions is None or questions.primary is None:
        return None
    _catch_up_once(tasks.project)
    return questions.primary.name


def _catch_up_once(project: Project) -> None:
    """Each column asks for it, and filters before the page: once a request is enough."""
    request = get_current_request()
    done = vars(request).setdefault("planktrait_caught_up", set()) if request else set()
    if project.id not in done:
        done.add(project.id)
        catch_up(project, CATCH_UP_S)
