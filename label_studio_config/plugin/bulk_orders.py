"""Work on many selected tasks: at once where they are few, else a job that comes back with some
hundred at a time.

What was asked for, and by whom, is signed: the job brings it with every step, and each step checks
again what that person may do. A step that comes twice does nothing twice.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from django.core import signing
from projects.models import Project
from users.models import User

from label_studio_config.batches import batches
from label_studio_config.plugin import backend
from label_studio_config.plugin.access import in_organisation
from label_studio_config.plugin.models import JudgementBatch
from label_studio_config.words import counted

AT_ONCE = 1000
"""Done while the browser waits; more of them are a job."""

A_STEP = 250
"""Tasks of one transaction: about half a second, in which others wait on SQLite."""

LASTS = timedelta(days=7)
_SALT = "planktrait.bulk-orders"

Answer = dict[str, Any]


class OrderError(ValueError):
    """The order is no order of ours, is too old, or the person may not do it any more."""


@dataclass(frozen=True)
class Order:
    """What somebody asked to be done with tasks of a project.

    Attributes
    ----------
    kind : one of `KINDS`
    value : what the kind needs: the least confidence, the label
    id : chosen by chance; the batches of judgements that it makes bear it
    """

    kind: str
    project_id: int
    user_id: int
    value: Any
    id: str

    @classmethod
    def new(cls, kind: str, project: Project, user: User, value: Any = None) -> Order:
        """One that nobody has had before."""
        return cls(kind, project.id, user.id, value, secrets.token_hex(12))

    def signed(self) -> str:
        """As text that nobody else can make or change."""
        return signing.dumps(asdict(self), salt=_SALT)

    @classmethod
    def read(cls, text: str) -> Order:
        """From such a text; raises OrderError."""
        try:
            return cls(**signing.loads(text, salt=_SALT, max_age=LASTS))
        except (signing.BadSignature, TypeError) as error:
            raise OrderError("this order is not ours, or older than a week: ask anew") from error

    @property
    def withdrawn(self) -> bool:
        """Whether it was undone: what of it is still to come is not done any more."""
        return JudgementBatch.objects.filter(
            project_id=self.project_id, user_id=self.user_id, key=self.id
        ).exists()


@dataclass
class Tally:
    """What was done so far.

    Attributes
    ----------
    counts : by name; those that the kind's words are about
    why : the first reason for which something was left alone
    batches : ids of the batches of judgements, each of which can be undone
    """

    counts: Counter[str] = field(default_factory=Counter)
    why: str = ""
    batches: list[int] = field(default_factory=list)

    def add(self, more: Tally) -> None:
        """What a further step did."""
        self.counts.update(more.counts)
        self.why = self.why or more.why
        self.batches += more.batches

    @classmethod
    def read(cls, said: Any) -> Tally:
        """From `told`'s answer, which a job brings back."""
        said = said if isinstance(said, dict) else {}
        counts = {str(name): float(n) for name, n in dict(said.get("counts") or {}).items()}
        return cls(Counter(counts), str(said.get("why") or ""), list(said.get("batches") or []))


@dataclass(frozen=True)
class Kind:
    """A kind of work.

    Attributes
    ----------
    permission : needed in the project
    step : does it to some tasks, in one transaction
    words : tells people what was done
    counted : the count of `Tally` that says how many images were changed
    verb : as a job is called, before "3,000 images of project 5"
    undoable : whether what it saves are judgements
    """

    permission: str
    step: Callable[[Project, User, Order, list[int]], Tally]
    words: Callable[[Order, Tally], str]
    verb: str
    counted: str = "saved"
    undoable: bool = False


KINDS: dict[str, Kind] = {}


def carry_out(
    project: Project, user: User, order: Order, ids: Sequence[int], note: str = ""
) -> Answer:
    """Do it now, or start a job; the answer to the action of the Data Manager.

    Without the backend, which runs jobs, the first of many tasks are done now.

    Parameters
    ----------
    note : said after what was done
    """
    kind = KINDS[order.kind]
    left = 0
    if len(ids) > AT_ONCE:
        try:
            return _started(order, ids, note)
        except backend.BackendError as error:
            if error.status != 503:
                return {"processed_items": 0, "detail": str(error), "response_code": error.status}
        left = len(ids) - AT_ONCE
        ids = ids[:AT_ONCE]
    tally = Tally()
    for some in batches(ids, A_STEP):
        tally.add(kind.step(project, user, order, some))
    detail = kind.words(order, tally)
    if left:
        detail += f" {counted(left, 'image')} left: call it again (the ML backend, which does many "
        detail += "as a job, does not answer)."
    done = int(tally.counts[kind.counted])
    answer: Answer = {"processed_items": done, "detail": f"{detail}{note}", "reload": done > 0}
    if kind.undoable:
        answer |= {"batches": tally.batches, "left": left}
        if tally.batches:
            answer["order"] = order.id
    return answer


def step(order: Order, ids: list[int], so_far: Any) -> Answer:
    """Some further tasks of a job: `{"counts", "why", "batches", "words", "withdrawn"}` so far.

    Raises
    ------
    OrderError
        The person may not do it any more, or the project is gone.
    """
    kind = KINDS.get(order.kind)
    project = Project.objects.filter(id=order.project_id).first()
    user = User.objects.filter(id=order.user_id, is_active=True).first()
    if kind is None or project is None or user is None:
        raise OrderError("the project, or who asked for this, is not there any more")
    if not in_organisation(user, project) or not user.has_perm(kind.permission, project):
        raise OrderError(f"{user.email} may not do this any more")
    tally = Tally.read(so_far)
    withdrawn = order.withdrawn
    if not withdrawn:
        tally.add(kind.step(project, user, order, ids))
    told: Answer = {"counts": dict(tally.counts), "why": tally.why, "batches": tally.batches}
    told |= {"words": kind.words(order, tally), "withdrawn": withdrawn, "order": None}
    if kind.undoable and tally.batches:
        told["order"] = order.id
    return told


def _started(order: Order, ids: Sequence[int], note: str) -> Answer:
    verb = KINDS[order.kind].verb
    body = {
        "project": order.project_id,
        "order": order.signed(),
        "tasks": list(ids),
        "verb": verb,
    }
    job = backend.ask("POST", "act", json=body)["job"]
    detail = (
        f"To {verb} {counted(len(ids), 'image')} has started (job {job}); its progress is shown at "
        f"the top of this page and on the page Model.{note}"
    )
    return {"processed_items": len(ids), "detail": detail, "reload": False, "job": job}
