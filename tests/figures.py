"""Figures that tests measured, printed at the end of the run: passing tests are silent."""

FIGURES: list[str] = []
