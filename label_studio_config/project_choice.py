"""Which project people mean by a title or a number: one rule for every command.

>>> choose_project("2024", [(7, "2024"), (8, "Cruise 8")])
7
"""

from __future__ import annotations

from collections.abc import Iterable


class ProjectError(ValueError):
    """A project that cannot be made or found; the message names it and the remedy."""


def choose_project(wanted: str | int, known: Iterable[tuple[int, str]]) -> int:
    """The number of the project that is meant.

    Parameters
    ----------
    wanted : its title or its number; an int is a number, never a title
    known : number and title of each project

    Raises
    ------
    ProjectError
        There is none, naming those there are; or more than one is meant.
    """
    titles = dict(known)
    is_title = isinstance(wanted, str)
    called = [number for number, title in titles.items() if is_title and title == wanted]
    numbered = [number for number in titles if str(number) == str(wanted)]
    if len({*called, *numbered}) == 1:
        return (called or numbered)[0]
    if len(called) > 1:
        numbers = ", ".join(map(str, called))
        raise ProjectError(f"projects {numbers} are all called {wanted!r}: give a number")
    if called:
        other = titles[numbered[0]]
        raise ProjectError(
            f"{wanted!r} is the title of project {called[0]} and the number of {other!r}: give "
            f"{called[0]} for the first, {other!r} for the second"
        )
    known_ones = ", ".join(f"{number} {title!r}" for number, title in titles.items())
    raise ProjectError(
        f"no project {wanted!r} (there are: {known_ones or 'none yet'}): run "
        "`planktrait project create`"
    )
