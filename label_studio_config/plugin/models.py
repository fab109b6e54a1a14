"""The gallery's index, and what was judged in it.

Label Studio keeps suggestions and annotations as JSON; these tables say what the gallery sorts,
filters and counts by. They are filled from Label Studio's own tables, can be rebuilt from them at
any time (`planktrait reindex`), and are never asked what is true.

No column is a foreign key into Label Studio's tables: it deletes with SQL of its own.
"""

from __future__ import annotations

from enum import IntEnum

from django.db import models

from label_studio_config.plugin import gallery_lookup  # noqa: F401  (registers `among`)

UNKNOWN = -1.0
"""A confidence or novelty that is not known: NULL does not sort alike in every database."""


class Answered(IntEnum):
    """What was answered about one control of one task, by anybody."""

    NO = 0
    YES = 1
    CONFLICTING = 2


class IndexState(models.Model):
    """How far a project is indexed.

    Attributes
    ----------
    last_task, last_prediction, last_annotation : the largest ids indexed
    model_version : the version that `Crop.suggested` is about; empty where none is shown
    questions : what the rows were read with; another config of the project makes them new
    """

    project_id = models.BigIntegerField(primary_key=True)
    last_task = models.BigIntegerField(default=0)
    last_prediction = models.BigIntegerField(default=0)
    last_annotation = models.BigIntegerField(default=0)
    model_version = models.TextField(default="")
    questions = models.TextField(default="")


class Crop(models.Model):
    """A task: one image.

    Attributes
    ----------
    width_px, height_px : 0 until the file's header was read
    suggested : 1 if it has a suggestion of `IndexState.model_version` for the primary control;
        a number, since SQLite finds no boolean in an index
    answered : what was answered about the primary control
    """

    # "Auto" though it is always given: SQLite finds such rows without another index.
    task_id = models.BigAutoField(primary_key=True)
    project_id = models.BigIntegerField()
    image = models.TextField(default="")
    image_id = models.TextField(default="")
    sample_id = models.TextField(default="")
    captured_at = models.DateTimeField(null=True)
    depth_m = models.FloatField(null=True)
    pixel_size_um = models.FloatField(null=True)
    width_px = models.IntegerField(default=0)
    height_px = models.IntegerField(default=0)
    blind = models.BooleanField(default=False)
    suggested = models.SmallIntegerField(default=0)
    answered = models.SmallIntegerField(default=0)

    class Meta:
        indexes = (
            models.Index(fields=["project_id", "task_id"], name="planktrait_crop_task"),
            models.Index(
                fields=["project_id", "suggested", "answered", "task_id"],
                name="planktrait_crop_open",
            ),
            models.Index(fields=["project_id", "sample_id"], name="planktrait_crop_sample"),
            models.Index(fields=["project_id", "captured_at"], name="planktrait_crop_captured"),
            models.Index(fields=["project_id", "depth_m"], name="planktrait_crop_depth"),
        )


class CropText(models.Model):
    """The searchable text of a task, in lower case: a table that is small to read through.

    It has no index by project: the tasks of a project lie between its first and its last one.
    """

    task_id = models.BigAutoField(primary_key=True)
    project_id = models.BigIntegerField()
    text = models.TextField()


class SuggestionList(models.Model):
    """The suggestions of one model version for one control: a short number for long texts."""

    id = models.AutoField(primary_key=True)
    project_id = models.BigIntegerField()
    model_version = models.TextField()
    control = models.TextField()

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["project_id", "model_version", "control"], name="planktrait_list_once"
            ),
        )

    @classmethod
    def id_of(cls, project_id: int, model_version: str, control: str) -> int:
        """The number of a list; -1, which no row has, where there is none."""
        found = cls.objects.filter(
            project_id=project_id, model_version=model_version, control=control
        )
        return found.values_list("id", flat=True).first() or -1


class SuggestedLabel(models.Model):
    """What one prediction suggests for one one-of control; blind tasks have none.

    Attributes
    ----------
    list_id : the `SuggestionList` of project, version and control
    confidence, novelty, second_confidence : `UNKNOWN` where the prediction does not say
    answered : what was answered about this control of this task
    """

    id = models.BigAutoField(primary_key=True)
    list_id = models.IntegerField()
    project_id = models.BigIntegerField()
    model_version = models.TextField()
    control = models.TextField()
    label = models.TextField()
    confidence = models.FloatField(default=UNKNOWN)
    novelty = models.FloatField(default=UNKNOWN)
    second_label = models.TextField(default="")
    second_confidence = models.FloatField(default=UNKNOWN)
    task_id = models.BigIntegerField()
    prediction_id = models.BigIntegerField()
    answered = models.SmallIntegerField(default=0)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["prediction_id", "control"], name="planktrait_suggestion_once"
            ),
        )
        indexes = (
            models.Index(fields=["task_id", "list_id"], name="planktrait_s_of_task"),
            models.Index(
                fields=["list_id", "label", "answered", "confidence", "task_id"],
                name="planktrait_s_label_confidence",
            ),
            models.Index(
                fields=["list_id", "answered", "confidence", "task_id"],
                name="planktrait_s_confidence",
            ),
            models.Index(
                fields=["list_id", "label", "answered", "novelty", "task_id"],
                name="planktrait_s_label_novelty",
            ),
            models.Index(
                fields=["list_id", "answered", "novelty", "task_id"], name="planktrait_s_novelty"
            ),
            models.Index(
                fields=["list_id", "label", "answered", "task_id"], name="planktrait_s_label_task"
            ),
            models.Index(fields=["list_id", "answered", "task_id"], name="planktrait_s_task"),
        )


class GivenAnswer(models.Model):
    """One person's answer about one one-of control of one task: that of the newest annotation.

    Attributes
    ----------
    label : several labels, which the config may allow after all, joined as `gallery_rows` joins
    as_suggested : whether it is the label of the suggestion that the annotation came from
    """

    id = models.BigAutoField(primary_key=True)
    project_id = models.BigIntegerField()
    task_id = models.BigIntegerField()
    control = models.TextField()
    user_id = models.BigIntegerField()
    label = models.TextField()
    as_suggested = models.BooleanField(default=False)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["task_id", "control", "user_id"], name="planktrait_answer_once"
            ),
        )
        indexes = (
            models.Index(
                fields=["project_id", "control", "user_id", "as_suggested", "task_id"],
                name="planktrait_answer_of",
            ),
            models.Index(
                fields=["project_id", "control", "label", "task_id"],
                name="planktrait_answer_label",
            ),
        )


class JudgementBatch(models.Model):
    """What one person judged in one go, and can undo in one go.

    Attributes
    ----------
    key : the sender's own name for the batch, so that it is saved once however often it is sent;
        one that was taken back before it came is here too, as undone
    judged_at : when it was judged, by the sender's clock; None where that was not said
    conflicts : what was not saved and why, to be told again
    """

    id = models.BigAutoField(primary_key=True)
    project_id = models.BigIntegerField()
    user_id = models.BigIntegerField()
    control = models.TextField()
    key = models.CharField(max_length=64, null=True)
    judged_at = models.DateTimeField(null=True)
    made_at = models.DateTimeField()
    undone_at = models.DateTimeField(null=True)
    conflicts = models.JSONField(default=list)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["project_id", "user_id", "key"], name="planktrait_batch_once"
            ),
        )


class Judgement(models.Model):
    """One annotation that a batch made or changed.

    Attributes
    ----------
    before : the annotation's fields before it was changed; null where the batch created it
    changed_at : the annotation's `updated_at` as the batch left it: another one says that somebody
        has changed it since
    """

    id = models.BigAutoField(primary_key=True)
    batch = models.ForeignKey(JudgementBatch, on_delete=models.CASCADE, related_name="judgements")
    task_id = models.BigIntegerField()
    annotation_id = models.BigIntegerField()
    before = models.JSONField(null=True)
    changed_at = models.DateTimeField()


class LabelOrder(models.Model):
    """What a project labels next: how it is chosen, and the tasks that were chosen last.

    Attributes
    ----------
    strategy : empty for the usual one
    in_label_stream : whether Label Studio's label stream follows it
    begun : tasks that were chosen before, which somebody had and which wait for others
    tasks : ids, the most useful first
    model_version : the version whose confidence they were chosen by
    choosing_since : when somebody began to choose anew; None while nobody does
    """

    project_id = models.BigIntegerField(primary_key=True)
    strategy = models.TextField(default="")
    in_label_stream = models.BooleanField(default=False)
    begun = models.JSONField(default=list)
    tasks = models.JSONField(default=list)
    model_version = models.TextField(default="")
    chosen_at = models.DateTimeField(null=True)
    choosing_since = models.DateTimeField(null=True)


class AskedAgain(models.Model):
    """A task for which somebody asked for one more opinion.

    Attributes
    ----------
    opinions : how many people's answers are wanted; the task's own `overlap` says the same
    """

    task_id = models.BigAutoField(primary_key=True)
    project_id = models.BigIntegerField(db_index=True)
    opinions = models.IntegerField()
    asked_by_id = models.BigIntegerField()
    asked_at = models.DateTimeField()
