"""How our plots look: colours, letters, and names that fit where they stand.

Names come from people: they may be long, hold a "$", which is no mathematics here, or be written in
letters that the usual font lacks.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties, fontManager

logger = logging.getLogger(__name__)

INK, ACCENT, SECOND, PALE = "#26323c", "#14647d", "#b5651d", "#a9b5bd"
FONT = "DejaVu Sans"
FURTHER_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Noto Sans JP",
    "Noto Sans KR",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Arial Unicode MS",
)
"""For letters that DejaVu lacks, where one is installed; all others look the same everywhere."""

_MISSING = re.compile(r"Glyph (\d+) .*missing from")


@contextmanager
def our_style(**more: Any) -> Iterator[None]:
    """Plots made within look like ours; letters that no font has are told once, in one line."""
    style: dict[Any, Any] = {
        "font.family": [FONT, *_installed()],
        "text.parse_math": False,
        "text.color": INK,
        "svg.hashsalt": "planktrait",
        **more,
    }
    with warnings.catch_warnings(record=True) as raised, matplotlib.rc_context(style):
        warnings.filterwarnings("always", message=r"Glyph \d+")
        yield
    letters: dict[str, None] = {}
    for warning in raised:
        found = _MISSING.match(str(warning.message))
        if found:
            letters[chr(int(found.group(1)))] = None
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    if letters:
        logger.warning(
            "no font here has %s: the plot shows boxes instead; install one that does, e.g. Noto "
            "Sans CJK (Debian: fonts-noto-cjk)",
            " ".join(letters),
        )


def shortened(text: str, most_pt: float, size: float, weight: str = "normal") -> str:
    """A text that is at most so wide; cut in the middle, since names often differ at their end."""
    if width_pt(text, size, weight) <= most_pt:
        return text
    short, long = 0, len(text)
    while long - short > 1:
        kept = (short + long) // 2
        fits = width_pt(_cut(text, kept), size, weight) <= most_pt
        short, long = (kept, long) if fits else (short, kept)
    return _cut(text, short)


def in_two_lines(text: str, most_pt: float, size: float, weight: str = "normal") -> str:
    """The same in up to two lines, broken between words where that can be."""
    if width_pt(text, size, weight) <= most_pt:
        return text
    breaks = [match.end() for match in re.finditer(r"[\s_/>,;-]+", text)]
    fitting = [at for at in breaks if width_pt(text[:at].rstrip(), size, weight) <= most_pt]
    if not fitting:
        return shortened(text, most_pt, size, weight)
    first, rest = text[: fitting[-1]].rstrip(), text[fitting[-1] :]
    return f"{first}\n{shortened(rest, most_pt, size, weight)}" if rest else first


def wrapped(text: str, most_pt: float, size: float, weight: str = "normal") -> list[str]:
    """A sentence in as many lines as it needs, broken between words."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and width_pt(longer, size, weight) > most_pt:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def width_pt(text: str, size: float, weight: str = "normal") -> float:
    """How wide a text is, in points; within `our_style`."""
    letters = FontProperties(family=matplotlib.rcParams["font.family"], size=size, weight=weight)
    width, _, _ = _ruler().get_text_width_height_descent(text, letters, ismath=False)
    return float(width)


def _cut(text: str, kept: int) -> str:
    start = (kept + 1) // 2
    return f"{text[:start].rstrip()}…{text[len(text) - (kept - start) :].lstrip()}"


@cache
def _ruler() -> RendererAgg:
    return RendererAgg(1, 1, 72)


@cache
def _installed() -> tuple[str, ...]:
    """Which of the further fonts are here; naming others would be warned of at each letter."""
    known = set(fontManager.get_font_names())
    return tuple(name for name in FURTHER_FONTS if name in known)
