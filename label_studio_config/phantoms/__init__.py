"""Phantom plankton: images drawn by our own code, with known truth, as a shadowgraph sees it."""

from label_studio_config.phantoms.draw import PhantomFolder, draw_phantoms
from label_studio_config.phantoms.sheet import contact_sheet

__all__ = ["PhantomFolder", "contact_sheet", "draw_phantoms"]
