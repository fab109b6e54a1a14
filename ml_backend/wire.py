"""What Label Studio and we send to the backend, checked at the door.

The protocol is Label Studio's (`label_studio/ml/api_connector.py`, `webhooks/utils.py` of 1.23.2);
fields that we do not use are let through unread.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

# Label Studio writes "<project id>.<unix time of its creation>".
PROJECT_UID = re.compile(r"(\d{1,18})(?:\.\d+)?")
FIRST_PROBLEMS = 20


class RequestError(ValueError):
    """A request that cannot be used; `problems` names each item and what is wrong with it."""

    def __init__(self, problems: list[dict[str, str]]) -> None:
        self.problems = problems
        first = problems[0]
        super().__init__(f"{first['item']}: {first['problem']}")


def _project_id(value: Any) -> Any:
    if isinstance(value, str):
        match = PROJECT_UID.fullmatch(value.strip())
        if match is None:
            raise ValueError("expected a project id, or '<project id>.<time>' as Label Studio says")
        return int(match[1])
    return value


ProjectId = Annotated[int, BeforeValidator(_project_id), Field(ge=1, strict=True)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Task(_Message):
    """A task to predict for."""

    id: int | None = None
    data: dict[str, Any]

    def as_task(self) -> dict[str, Any]:
        """As in a Label Studio export."""
        return {"id": self.id, "data": self.data}


class PredictParams(_Message):
    """`context` is set while an annotator works (interactive mode)."""

    context: dict[str, Any] | None = None


class PredictRequest(_Message):
    """POST /predict."""

    tasks: list[Task]
    project: ProjectId
    label_config: str = ""
    params: PredictParams | None = None


class SetupRequest(_Message):
    """POST /setup. The access token that Label Studio sends along is not even read."""

    project: ProjectId


class Project(_Message):
    """The project in a webhook."""

    id: ProjectId


class WebhookRequest(_Message):
    """POST /webhook: START_TRAINING, or something that happened in Label Studio."""

    action: str
    project: Project
    annotation: dict[str, Any] | list[dict[str, Any]] | None = None

    @property
    def annotations(self) -> list[dict[str, Any]]:
        """The annotations that the event is about, if any."""
        if isinstance(self.annotation, dict):
            return [self.annotation]
        return self.annotation or []


class TrainRequest(_Message):
    """POST /train."""

    model_config = ConfigDict(extra="forbid")
    project: ProjectId


class ClustersRequest(_Message):
    """POST /clusters. `done_too` as `cluster_project` takes it."""

    model_config = ConfigDict(extra="forbid")
    project: ProjectId
    done_too: bool = False


class SuggestRequest(_Message):
    """POST /suggest. Only for `tasks`, where they are given."""

    model_config = ConfigDict(extra="forbid")
    project: ProjectId
    tasks: Annotated[list[int], Field(min_length=1)] | None = None


class ActRequest(_Message):
    """POST /act. `order` is signed by Label Studio, which reads it; `verb` names the job."""

    model_config = ConfigDict(extra="forbid")
    project: ProjectId
    order: Annotated[str, Field(min_length=1, max_length=4000)]
    tasks: Annotated[list[int], Field(min_length=1)]
    verb: Annotated[str, Field(min_length=1, max_length=60)]


class PretrainRequest(_Message):
    """POST /pretrain. `epochs` by default as `feature_learning.DEFAULT_EPOCHS`."""

    model_config = ConfigDict(extra="forbid")
    project: ProjectId
    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None


class NeighboursRequest(_Message):
    """POST /neighbours.

    `tasks`, or `image`: a file in base64. `new_tasks` came after the last one that is known;
    `label_config` says which key of their data is the image. `newer`: how many came, where they are
    too many to be sent along. `without`: tasks that are not to be found.
    """

    model_config = ConfigDict(extra="forbid")
    project: ProjectId
    tasks: Annotated[list[int], Field(max_length=1000)] = []
    image: str | None = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 200
    without: list[int] = []
    new_tasks: Annotated[list[Task], Field(max_length=200)] = []
    newer: Annotated[int, Field(ge=0)] = 0
    label_config: str = ""


class NextRequest(_Message):
    """POST /next: of the open tasks, which to label next.

    `confidence` is that of the suggested label of each open task; empty without a model.
    """

    model_config = ConfigDict(extra="forbid")
    project: ProjectId
    strategy: Literal["uncertainty", "diversity", "mixture"] = "mixture"
    open: Annotated[list[int], Field(max_length=100_000)]
    confidence: Annotated[list[float], Field(max_length=100_000)] = []
    labelled: Annotated[list[int], Field(max_length=100_000)] = []
    limit: Annotated[int, Field(ge=1, le=1000)] = 200


class JobStatusRequest(_Message):
    """POST /job_status."""

    job: str


JobStatus = Literal["queued", "started", "finished", "failed", "removed"]
Message = TypeVar("Message", bound=_Message)


def read_message(kind: type[Message], content: Any) -> Message:
    """`content`, from JSON, as a checked message.

    Raises
    ------
    RequestError
        Names the items that are wrong, e.g. `tasks.3.data: Field required`.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestError(
            [
                {
                    "item": ".".join(map(str, d["loc"])) or "request",
                    "problem": d["msg"].removeprefix("Value error, "),
                }
                for d in details[:FIRST_PROBLEMS]
            ]
        ) from error
