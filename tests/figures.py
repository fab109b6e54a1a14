"""Figures that tests measured, printed at the end of the run: passing tests are silent."""

FIGURES: list[str] = []


def tell_images(of: str, real: bool) -> None:
    """Say at the end of the run whether tests had real images, which they do without in silence."""
    told = "real crops of ndsb" if real else "phantoms, since shared/data/ndsb is not here"
    if (line := f"images of {of}: {told}") not in FIGURES:
        FIGURES.append(line)
