"""The signs: outlines shared by several classes, told apart by the fine mark inside.

Unit coordinates: the outline fills [-0.5, 0.5], x to the right and y downwards. Every glyph is its
own mirror image, because horizontal flips are Detectron2's default augmentation: a left and a right
arrow would become the same class.
"""

from dataclasses import dataclass

import numpy as np

# Colours are BGR, as OpenCV has them.
RED = (35, 25, 205)
YELLOW = (30, 205, 245)
BLUE = (190, 85, 20)
WHITE = (240, 240, 240)
BLACK = (25, 25, 25)


@dataclass(frozen=True, eq=False)
class Layer:
    """A filled polygon: points (P, 2) and a BGR colour."""

    points: np.ndarray
    color: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Glyph:
    """A class of signs: its layers are painted in order, the first one being the outline."""

    name: str
    layers: tuple[Layer, ...]

    @property
    def outline(self) -> np.ndarray:
        """The polygon (P, 2) that bounds the sign."""
        return self.layers[0].points


def disc(radius: float, x: float = 0.0, y: float = 0.0, corners: int = 32) -> np.ndarray:
    """A regular polygon (corners, 2) with one corner straight up."""
    angles = np.arange(corners) * (2 * np.pi / corners) - np.pi / 2
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)


def box(width: float, height: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """An upright rectangle (4, 2) around (x, y)."""
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return np.array([x, y]) + signs * np.array([width, height]) / 2


def _arrow(direction: int) -> np.ndarray:
    """An arrow (7, 2) along the y axis; direction -1 points up, 1 down."""
    right = np.array([[0.09, -0.3], [0.09, 0.0], [0.25, 0.0], [0.0, 0.3]])
    left = right[2::-1] * [-1, 1]
    return np.concatenate([right, left]) * [1, direction]


def _circle(name: str, *marks: Layer) -> Glyph:
    return Glyph(name, (Layer(disc(0.5), RED), Layer(disc(0.39), WHITE), *marks))


def _triangle(name: str, *marks: Layer) -> Glyph:
    outline = np.array([[0.0, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    centre = outline.mean(axis=0)
    face = centre + 0.66 * (outline - centre)
    return Glyph(name, (Layer(outline, RED), Layer(face, YELLOW), *marks))


def _square(name: str, *marks: Layer) -> Glyph:
    return Glyph(name, (Layer(box(1.0, 1.0), WHITE), Layer(box(0.86, 0.86), BLUE), *marks))


GLYPHS: tuple[Glyph, ...] = (
    _circle("circle_one_bar", Layer(box(0.5, 0.14), BLACK)),
    _circle(
        "circle_two_bars",
        Layer(box(0.46, 0.12, y=-0.13), BLACK),
        Layer(box(0.46, 0.12, y=0.13), BLACK),
    ),
    _circle("circle_ring", Layer(disc(0.24), BLACK), Layer(disc(0.12), WHITE)),
    _triangle("triangle_one_dot", Layer(disc(0.12, y=0.2), BLACK)),
    _triangle(
        "triangle_two_dots",
        Layer(disc(0.09, x=-0.14, y=0.23), BLACK),
        Layer(disc(0.09, x=0.14, y=0.23), BLACK),
    ),
    _triangle("triangle_bar", Layer(box(0.1, 0.42, y=0.12), BLACK)),
    _square("square_arrow_up", Layer(_arrow(-1), WHITE)),
    _square("square_arrow_down", Layer(_arrow(1), WHITE)),
)
CLASS_NAMES: tuple[str, ...] = tuple(glyph.name for glyph in GLYPHS)


def paint(canvas: np.ndarray, layers: tuple[Layer, ...] | list[Layer]) -> None:
    """Paint filled polygons anti-aliased over a canvas, in place.

    The part of the canvas below them is enlarged, painted over and averaged back, so every
    pixel gets the exact mixture of what covers it.

    Args:
        canvas: (H, W, 3) uint8, BGR.
        layers: polygons in pixels of the canvas; pixel i covers [i, i + 1). They may stick out.
    """
    import cv2

    points = np.concatenate([layer.points for layer in layers])
    size = canvas.shape[1::-1]
    x0, y0 = np.clip(np.floor(points.min(axis=0)), 0, size).astype(int)
    x1, y1 = np.clip(np.ceil(points.max(axis=0)), 0, size).astype(int)
    if x0 >= x1 or y0 >= y1:
        return
    patch = canvas[y0:y1, x0:x1]
    factor = 8 if max(x1 - x0, y1 - y0) <= 48 else 4
    fine = np.repeat(np.repeat(patch, factor, axis=0), factor, axis=1)
    for layer in layers:
        _fill(fine, (layer.points - [x0, y0]) * factor, layer.color)
    patch[:] = cv2.resize(fine, patch.shape[1::-1], interpolation=cv2.INTER_AREA)


def fill_mask(points: np.ndarray, size: int) -> np.ndarray:
    """The pixels of a polygon (P, 2), as (size, size) uint8 of 0 and 1."""
    mask = np.zeros((size, size), np.uint8)
    _fill(mask, points, 1)
    return mask


def _fill(canvas: np.ndarray, points: np.ndarray, color: tuple[float, ...] | int) -> None:
    import cv2

    # OpenCV puts a pixel's centre, not its corner, at whole numbers; `shift` is its fraction bits.
    shift = 4
    fixed = np.rint((points - 0.5) * (1 << shift)).astype(np.int32)
    cv2.fillPoly(canvas, [fixed], color, shift=shift)
