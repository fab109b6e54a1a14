"""Which project people mean by a title or a number: one rule for every command.

>>> choose_project("2024", [(7, "2024"), (8, "Cruise 8")])
7
>>> choose_project("#7", [(7, "Cruise 7"), (8, "7")])
7
"""

from __future__ import annotations

from collections.abc import Iterable

MOST_TOLD = 20


class ProjectError(ValueError):
    """A project that cannot be made or found; the message names it and the remedy."""


def choose_project(wanted: str | int, known: Iterable[tuple[int, str]]) -> int:
    """The number of the project that is meant.

    Parameters
    ----------
    wanted : its title or its number; an int, or a text such as "#7", is a number, never a title
    known : number and title of each project

    Raises
    ------
    ProjectError
        There is none, naming those there are; or more than one is meant.
    """
    titles = dict(known)
    text = f"#{wanted}" if isinstance(wanted, int) else wanted
    is_number = text[:1] == "#" and text[1:].isdecimal()
    found = {
        number
        for number, title in titles.items()
        if f"#{number}" == text or (not is_number and (title == text or str(number) == text))
    }
    if len(found) == 1:
        return found.pop()
    if found:
        meant = ", ".join(f"#{number} {titles[number]!r}" for number in sorted(found))
        raise ProjectError(
            f"{wanted!r} means more than one project ({meant}): give '#NUMBER' of one, in quotes"
        )
    some = [f"{number} {title!r}" for number, title in titles.items()]
    more = [f"{len(some) - MOST_TOLD} more"] * (len(some) > MOST_TOLD)
    raise ProjectError(
        f"no project {wanted!r} (there are: {', '.join(some[:MOST_TOLD] + more) or 'none yet'}): "
        "create it, or give one of those"
    )
