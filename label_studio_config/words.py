"""Numbers in sentences."""

from __future__ import annotations


def counted(number: float, noun: str) -> str:
    """`1 image`, `1100 images`: a whole number and what it counts."""
    return f"{number:.0f} {noun}{'' if number == 1 else 's'}"


def have(number: float) -> str:
    """`has` of one, `have` of others."""
    return "has" if number == 1 else "have"
