"""What was marked on an image, in pixels: corners, lengths, areas, masks.

Label Studio stores percent of the image's width and height; here everything is in pixels of the
original image, x to the right and y down.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from label_studio_config.results import Region

FORMULAS = {
    "length": "sum of the straight distances between consecutive points",
    "area": "shoelace formula for polygons, number of pixels for masks",
    "esd": "diameter of the circle of the same area: 2 * sqrt(area / pi)",
    "biovolume": "volume of the sphere of that diameter: pi / 6 * esd^3",
    "angle": "from the x axis of the image to the direction end -> start, "
    "counter-clockwise, in (-180, 180]",
}
"""How each quantity is computed; written into every data dictionary."""

_ELLIPSE_POINTS = 36


class GeometryError(ValueError):
    """A region that cannot be placed on its image; names what is missing."""


def points_px(region: Region) -> np.ndarray:
    """The points of a region as stored, float (n, 2): vertices, or a box's opposite corners.

    Raises
    ------
    GeometryError
        The region does not say how large its image is.
    """
    if region.original_width <= 0 or region.original_height <= 0:
        raise GeometryError(f"region {region.id!r} does not state the size of its image")
    scale = np.array([region.original_width, region.original_height]) / 100
    return np.asarray(region.points, float).reshape(-1, 2) * scale


def outline_px(region: Region) -> np.ndarray:
    """The closed outline of a box, an ellipse or a polygon, rotation included: float (n, 2)."""
    corners = points_px(region)
    if "radiusX" in region.value:
        return _ellipse(corners, _rotation(region))
    if "width" in region.value and "height" in region.value:
        (left, top), (right, bottom) = corners
        box = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        # Label Studio turns a box about its upper left corner, clockwise.
        return (box - box[0]) @ _turn(_rotation(region)) + box[0]
    return corners


def box_px(outline: np.ndarray) -> list[float]:
    """The upright box around points: [x, y, width, height]."""
    low, high = outline.min(axis=0), outline.max(axis=0)
    return [round(float(v), 2) for v in (*low, *(high - low))]


def path_length(points: np.ndarray) -> float:
    """Length of a polyline."""
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())


def polygon_area(outline: np.ndarray) -> float:
    """Area inside a closed outline (shoelace formula)."""
    x, y = outline.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def angle_deg(start: np.ndarray, end: np.ndarray) -> float:
    """Where a body points: angle of end → start to the x axis, counter-clockwise on the screen."""
    x, y = np.asarray(start, float) - np.asarray(end, float)
    return float(np.degrees(np.arctan2(-y, x)))


def equivalent_diameter(area: float) -> float:
    """Diameter of the circle of the same area (equivalent spherical diameter, ESD)."""
    return 2 * float(np.sqrt(area / np.pi))


def sphere_volume(diameter: float) -> float:
    """Volume of a sphere."""
    return float(np.pi / 6 * diameter**3)


def mask_px(region: Region) -> np.ndarray:
    """A brush or bitmask region as bool (height, width).

    Raises
    ------
    GeometryError
        The region holds no readable mask of its image's size.
    """
    # The converter pulls in a language toolkit: only masks pay for it.
    from label_studio_sdk.converter.brush import decode_rle

    width, height = region.original_width, region.original_height
    try:
        if region.value.get("imageDataURL"):
            encoded = region.value["imageDataURL"].split(",", 1)[-1]
            with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
                alpha = np.asarray(image.convert("RGBA"))[:, :, 3]
        else:
            alpha = decode_rle(region.value["rle"]).reshape(height, width, 4)[:, :, 3]
    except Exception as error:  # the decoder raises anything on damaged run lengths
        raise GeometryError(f"the mask of region {region.id!r} cannot be read: {error}") from error
    if alpha.shape != (height, width):
        raise GeometryError(f"the mask of region {region.id!r} is not {width} × {height} px")
    return alpha > 127


def area_px(region: Region) -> float:
    """Area of a box, ellipse, polygon or mask in square pixels."""
    if region.type in ("brushlabels", "brush", "bitmasklabels", "bitmask"):
        return float(mask_px(region).sum())
    if "radiusX" in region.value:
        width, height = np.ptp(points_px(region), axis=0)
        return float(np.pi * width * height / 4)
    return polygon_area(outline_px(region))


def _rotation(region: Region) -> float:
    return float(np.radians(float(region.value.get("rotation") or 0)))


def _turn(angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


def _ellipse(corners: np.ndarray, rotation: float) -> np.ndarray:
    centre, radii = corners.mean(axis=0), np.ptp(corners, axis=0) / 2
    t = np.linspace(0, 2 * np.pi, _ELLIPSE_POINTS, endpoint=False)
    return (np.stack([np.cos(t), np.sin(t)], axis=1) * radii) @ _turn(rotation) + centre
