"""The names of model versions: `project-7-v0003` is older than `project-7-v0004`."""

from __future__ import annotations

from collections.abc import Iterable


def older_versions(names: Iterable[str], version: str) -> list[str]:
    """Those of the names that are earlier versions of the same model, newest first.

    >>> older_versions(["a-v2", "a-v10", "a-v3", "b-v1", "by hand"], "a-v10")
    ['a-v3', 'a-v2']
    """
    model, number = _parts(version)
    if number is None:
        return []
    earlier = []
    for name in names:
        of, its = _parts(name)
        if of == model and its is not None and its < number:
            earlier.append((its, name))
    return [name for _, name in sorted(earlier, reverse=True)]


def _parts(name: str) -> tuple[str, int | None]:
    model, _, number = name.rpartition("-v")
    return model, int(number) if number.isascii() and number.isdigit() else None
