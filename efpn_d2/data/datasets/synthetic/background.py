"""What a scene shows besides its signs: sky, walls, leaves, wires, and shapes that resemble signs.

Everything paints into a (H, W, 3) uint8 BGR canvas in place, in scene pixels.
"""

import numpy as np

from efpn_d2.data.datasets.synthetic.glyphs import BLUE, RED, WHITE, YELLOW, Layer, box, disc, paint
from efpn_d2.data.datasets.synthetic.layout import Sign, free_corner

# Strong colours that the signs use too, so that colour alone tells nothing.
STRONG_COLORS = (RED, YELLOW, BLUE, WHITE, (60, 150, 40), (20, 120, 230), (140, 40, 120))


def paint_background(rng: np.random.Generator, side: int, clutter: float) -> np.ndarray:
    """A scene without signs: (side, side, 3) uint8, BGR.

    Args:
        rng: the image's random stream for this purpose.
        side: in scene pixels.
        clutter: multiplies the expected number of items.
    """
    canvas = _textured_gradient(rng, side)
    for painter, mean in ((_building, 2.5), (_foliage, 3.0), (_panel, 1.5), (_wire, 3.0)):
        for _ in range(rng.poisson(mean * clutter)):
            painter(rng, canvas)
    return canvas


def paint_posts(rng: np.random.Generator, canvas: np.ndarray, signs: tuple[Sign, ...]) -> None:
    """Give half of the signs a post to stand on. To be painted before the signs."""
    for sign in signs:
        x0, y0, x1, y1 = sign.bounds
        standing, length, grey = rng.random() < 0.5, rng.uniform(1.0, 3.0), rng.uniform(60, 170)
        if standing:
            width = max(0.08 * (x1 - x0), 1.0)
            height = length * (y1 - y0)
            middle = (y0 + y1) / 2 + height / 2
            paint(canvas, [Layer(box(width, height, (x0 + x1) / 2, middle), (grey,) * 3)])


def paint_distractors(
    rng: np.random.Generator, canvas: np.ndarray, signs: tuple[Sign, ...], clutter: float
) -> None:
    """Paint shapes that resemble signs but belong to no class, at free places."""
    side = canvas.shape[0]
    taken = [sign.bounds for sign in signs]
    for _ in range(rng.poisson(3.0 * clutter)):
        size = np.exp(rng.uniform(np.log(8.0), np.log(max(side / 8, 8.0))))
        corner = free_corner(rng, np.array([size, size]), side, taken)
        if corner is None:
            continue
        taken.append(np.concatenate([corner, corner + size]))
        rim, face = rng.choice(len(STRONG_COLORS), size=2, replace=False)
        outline = _distractor_outline(rng)
        shade = rng.uniform(0.7, 1.0)
        layers = [
            Layer(corner + (0.5 + scale * outline) * size, _shaded(STRONG_COLORS[color], shade))
            for scale, color in ((1.0, rim), (0.75, face))
        ]
        paint(canvas, layers)


def _distractor_outline(rng: np.random.Generator) -> np.ndarray:
    """An outline that no class has: 4 to 8 corners standing on one, or a triangle on its tip."""
    corners = int(rng.choice([3, 4, 5, 6, 8]))
    return disc(0.5, corners=corners) * [1, -1]


def _shaded(color: tuple[float, ...], shade: float) -> tuple[float, ...]:
    return tuple(shade * value for value in color)


def _muted(rng: np.random.Generator) -> tuple[float, ...]:
    return tuple(rng.uniform(50, 200) + rng.uniform(-20, 20, size=3))


def _textured_gradient(rng: np.random.Generator, side: int) -> np.ndarray:
    import cv2

    corners = np.array([_muted(rng) for _ in range(4)], np.float32).reshape(2, 2, 3)
    canvas = cv2.resize(corners, (side, side), interpolation=cv2.INTER_LINEAR)
    texture = np.zeros((side, side), np.float32)
    for cells in (6, 24, 96):
        coarse = rng.uniform(2, 10) * rng.standard_normal((cells, cells), dtype=np.float32)
        texture += cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(canvas + texture[..., None], 0, 255).astype(np.uint8)


def _building(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """A wall with a grid of windows, standing on the lower edge."""
    side = canvas.shape[0]
    left, width = int(rng.uniform(-0.1, 0.9) * side), int(rng.uniform(0.15, 0.4) * side)
    top = int(rng.uniform(0.3, 0.85) * side)
    wall = canvas[top:, max(left, 0) : left + width]
    wall[:] = np.array(_muted(rng)).clip(0, 255)
    pane = np.array(_muted(rng)).clip(0, 255)
    pitch = max(int(rng.uniform(0.04, 0.09) * side), 2)
    gap = max(pitch // 3, 1)
    for y in range(gap, wall.shape[0] - pitch, pitch):
        for x in range(gap, wall.shape[1] - pitch, pitch):
            wall[y : y + pitch - gap, x : x + pitch - gap] = pane


def _foliage(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """A clump of round leaves."""
    import cv2

    side = canvas.shape[0]
    centre, spread = rng.uniform(0, side, size=2), rng.uniform(0.03, 0.1) * side
    spots = np.rint(rng.normal(centre, spread, size=(60, 2))).astype(int).tolist()
    radii = np.rint(rng.uniform(0.004, 0.018, size=60) * side).astype(int).tolist()
    colors = (rng.uniform(0.4, 1.2, size=(60, 1)) * np.array([45, 110, 65])).tolist()
    for spot, radius, color in zip(spots, radii, colors, strict=True):
        cv2.circle(canvas, spot, radius + 1, color, -1, cv2.LINE_AA)


def _panel(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """A plain slab in a strong colour, longish: an advertisement, a car, an awning."""
    side = canvas.shape[0]
    width, height = rng.uniform(0.04, 0.2) * side, rng.uniform(0.015, 0.05) * side
    x, y = rng.uniform(0, side, size=2)
    color = _shaded(STRONG_COLORS[rng.integers(len(STRONG_COLORS))], rng.uniform(0.6, 1.0))
    paint(canvas, [Layer(box(width, height, x, y), color)])


def _wire(rng: np.random.Generator, canvas: np.ndarray) -> None:
    import cv2

    start, end = np.rint(rng.uniform(0, canvas.shape[0], size=(2, 2))).astype(int).tolist()
    thickness = int(rng.integers(1, 4))
    cv2.line(canvas, start, end, _muted(rng), thickness, cv2.LINE_AA)
