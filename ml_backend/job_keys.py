"""The keys under which jobs of a project run one at a time, and which go on when cut off."""

from __future__ import annotations


def train_key(project_id: int) -> str:
    """The job key under which a project trains one at a time."""
    return f"train project {project_id}"


def pretrain_key(project_id: int) -> str:
    """The job key under which a project learns features one at a time."""
    return f"pretrain project {project_id}"


def suggest_key(project_id: int) -> str:
    """The job key under which a project is given its suggestions one at a time."""
    return f"suggest project {project_id}"


def goes_on(key: str) -> bool:
    """Whether a job of this key, begun again, goes on where it was and does nothing twice.

    >>> goes_on("train project 3"), goes_on("import into project 3")
    (True, False)
    """
    number = key.rpartition(" ")[2]
    kinds = (train_key, pretrain_key, suggest_key)
    return number.isdigit() and key in {of_kind(int(number)) for of_kind in kinds}
