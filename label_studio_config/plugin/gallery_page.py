"""One page of the gallery: places from the index, what is shown from Label Studio's own tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from label_studio_config.plugin.gallery_filters import PageAsked, write_cursor
from label_studio_config.plugin.gallery_parts import View
from label_studio_config.plugin.gallery_query import Place, places
from label_studio_config.plugin.gallery_states import Seen, as_json, look

_MOST_ROUNDS = 5


def page(view: View, asked: PageAsked) -> dict[str, Any]:
    """The crops of a page and the place of the next one.

    Tasks that are gone, or that turn out to be in another state than the index says, are left
    out and the page is filled from the next places.
    """
    shown: list[Seen] = []
    following: Place | None = None
    for _ in range(_MOST_ROUNDS):
        wanted = asked.limit - len(shown)
        found = places(view, replace(asked, limit=wanted))
        on_page, more = found[:wanted], len(found) > wanted
        seen = look(view, [place.task_id for place in on_page])
        shown += [
            seen[place.task_id]
            for place in on_page
            if place.task_id in seen and _belongs(seen[place.task_id], asked)
        ]
        following = on_page[-1] if more else None
        if following is None or len(shown) == asked.limit:
            break
        asked = replace(asked, after=following.key)
    cursor = write_cursor(asked.order, following.key) if following else None
    return {"crops": as_json(shown), "next": cursor}


def _belongs(seen: Seen, asked: PageAsked) -> bool:
    filters = asked.filters
    if filters.suggested is not None and filters.suggested != (seen.suggestion is not None):
        return False
    if filters.label is not None and seen.suggestion and seen.suggestion.label != filters.label:
        return False
    if filters.on_answers and not any(
        filters.annotator in (None, one.user_id) and filters.answered in (None, one.label)
        for one in (seen.answer, *(seen.others or ()))
        if one is not None
    ):
        return False
    states = filters.states
    if not states:
        return True
    # "Nobody answered" has two names, with and without a suggestion.
    return seen.state in states
