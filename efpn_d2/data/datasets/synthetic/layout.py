"""Which signs a scene shows, where, how large, and what stands in front of them.

Everything here follows from (seed, split, index) and costs little, so annotations are computed anew
when a set is resumed instead of being stored beside the images. Coordinates are scene pixels,
i.e. half a student pixel.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from efpn_d2.data.datasets.synthetic.config import SyntheticConfig
from efpn_d2.data.datasets.synthetic.glyphs import GLYPHS, Layer, box, disc, fill_mask

# Corners lie on a grid of 1/16 scene pixel: written out and halved without rounding.
GRID = 16
# Free pixels between two signs, and between a sign and the edge of the scene.
GAP = 3.0
PLACEMENT_TRIALS = 60


@dataclass(frozen=True, eq=False)
class Sign:
    """A placed sign.

    Attributes:
        category: index into ``GLYPHS``.
        layers: its polygons in scene pixels; the first is the outline.
        visible: share of the outline's area that no occluder covers.
    """

    category: int
    layers: tuple[Layer, ...]
    visible: float = 1.0

    @property
    def outline(self) -> np.ndarray:
        """The whole sign's polygon (P, 2), hidden parts included."""
        return self.layers[0].points

    @property
    def bounds(self) -> np.ndarray:
        """(4,) x0, y0, x1, y1 of the outline."""
        return np.concatenate([self.outline.min(axis=0), self.outline.max(axis=0)])


@dataclass(frozen=True, eq=False)
class Layout:
    """The signs of a scene, the largest first, and the polygons in front of them."""

    signs: tuple[Sign, ...]
    occluders: tuple[Layer, ...]


def image_rng(config: SyntheticConfig, index: int, purpose: str) -> np.random.Generator:
    """The random stream of one image for one purpose, independent of all others."""
    words = [config.seed, index, *(zlib.crc32(text.encode()) for text in (config.split, purpose))]
    return np.random.default_rng(words)


def plan_layout(config: SyntheticConfig, index: int) -> Layout:
    """Decide on the signs of image ``index`` and their occluders."""
    rng = image_rng(config, index, "layout")
    count = _num_signs(rng, config)
    # Student pixels to scene pixels.
    low, high = np.log(2 * np.array([config.min_size, config.max_size]))
    sizes = np.sort(np.exp(rng.uniform(low, high, size=count)))[::-1]
    placed: list[Sign] = []
    for size in sizes:
        sign = _place_sign(rng, float(size), config.scene_size, [other.bounds for other in placed])
        if sign is not None:
            placed.append(sign)
    occluders: list[Layer] = []
    for sign in placed:
        if rng.random() < config.occluded_fraction:
            occluders.extend(_occluder(rng, sign.bounds))
    signs = visible_signs(placed, occluders, config.scene_size, config.min_visible)
    return Layout(signs, tuple(occluders))


def _num_signs(rng: np.random.Generator, config: SyntheticConfig) -> int:
    kind = rng.random()
    if kind < config.empty_fraction:
        return 0
    if kind < config.empty_fraction + config.crowded_fraction:
        return int(rng.integers(*config.crowded_objects, endpoint=True))
    return int(rng.integers(1, config.max_objects, endpoint=True))


def _place_sign(
    rng: np.random.Generator, size: float, scene_size: int, taken: list[np.ndarray]
) -> Sign | None:
    """A random sign with sqrt(w * h) = size at a free place; None where there is none."""
    category = int(rng.integers(len(GLYPHS)))
    glyph = GLYPHS[category]
    # A slight turn, and the narrowing of a sign that is seen from the side.
    angle, squeeze = rng.uniform(-0.14, 0.14), rng.uniform(0.85, 1.0)
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, sin], [-sin, cos]]) * [squeeze, 1.0]
    extent = np.ptp(glyph.outline @ turn, axis=0)
    turn *= size / np.sqrt(extent.prod())
    shade = rng.uniform(0.75, 1.0)

    corner = free_corner(rng, np.ptp(glyph.outline @ turn, axis=0), scene_size, taken)
    if corner is None:
        return None
    shift = corner - (glyph.outline @ turn).min(axis=0)
    layers = []
    for layer in glyph.layers:
        points = np.round((layer.points @ turn + shift) * GRID) / GRID
        layers.append(Layer(points, tuple(shade * value for value in layer.color)))
    return Sign(category, tuple(layers))


def free_corner(
    rng: np.random.Generator, extent: np.ndarray, scene_size: int, taken: list[np.ndarray]
) -> np.ndarray | None:
    """A place (x0, y0) for a box of ``extent`` (w, h) that keeps off the boxes ``taken``."""
    corners = rng.uniform(GAP, scene_size - GAP - extent, size=(PLACEMENT_TRIALS, 2))
    if not taken:
        return corners[0]
    low, high = np.stack(taken)[None, :, :2], np.stack(taken)[None, :, 2:]
    start = corners[:, None]
    apart = ((start + extent + GAP < low) | (start > high + GAP)).any(axis=2)
    free = np.flatnonzero(apart.all(axis=1))
    return corners[free[0]] if free.size else None


def _occluder(rng: np.random.Generator, bounds: np.ndarray) -> list[Layer]:
    """A pole, a slab or some leaves in front of a part of the box ``bounds``."""
    centre, extent = (bounds[:2] + bounds[2:]) / 2, bounds[2:] - bounds[:2]
    kind = rng.integers(3)
    if kind == 0:
        width = rng.uniform(0.15, 0.35)
        points = box(width, rng.uniform(2.0, 4.0), x=rng.uniform(-0.4, 0.4))
        return [Layer(centre + points * extent, _grey(rng))]
    # From one side, over this share of the sign.
    cover = rng.uniform(0.15, 0.65)
    side = np.array([(1, 0), (-1, 0), (0, 1)][rng.integers(3)])
    if kind == 1:
        points = box(1.3, 1.3) + side * (1.15 - cover)
        return [Layer(centre + points * extent, _grey(rng))]
    spots = side * (0.75 - cover) + rng.uniform(-0.5, 0.5, size=(14, 2)) * (1 - 0.5 * np.abs(side))
    radii = rng.uniform(0.12, 0.22, size=14)
    return [
        Layer(centre + disc(r, x, y, corners=10) * extent, _leaf(rng))
        for r, (x, y) in zip(radii, spots, strict=True)
    ]


def _grey(rng: np.random.Generator) -> tuple[float, ...]:
    return tuple(rng.uniform(50, 150) + rng.uniform(-12, 12, size=3))


def _leaf(rng: np.random.Generator) -> tuple[float, ...]:
    return tuple(rng.uniform(0.5, 1.1) * np.array([45, 110, 65]))


def visible_signs(
    signs: Sequence[Sign], occluders: Sequence[Layer], scene_size: int, min_visible: float
) -> tuple[Sign, ...]:
    """Measure what is visible of each sign, and leave out those that are mostly hidden.

    Args:
        signs: in scene pixels; their ``visible`` is ignored.
        occluders: polygons in front of them.
        scene_size: side of the scene.
        min_visible: smallest visible share that keeps a sign in the scene.
    """
    if not occluders:
        return tuple(signs)
    hidden = np.zeros((scene_size, scene_size), np.uint8)
    for layer in occluders:
        hidden |= fill_mask(layer.points, scene_size)
    kept = []
    for sign in signs:
        own = fill_mask(sign.outline, scene_size).astype(bool)
        visible = 1.0 - float(hidden[own].mean())
        if visible >= min_visible:
            kept.append(replace(sign, visible=visible))
    return tuple(kept)
