"""Blocks: rectangles of tiles that are computed together, with a single halo."""

from collections import defaultdict
from collections.abc import Collection
from typing import NamedTuple

Tile = tuple[int, int, int]
"""Image, row and column, counted in tiles."""


class Block(NamedTuple):
    """A rectangle of tiles of one image."""

    image: int
    row: int
    column: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return self.height, self.width

    @property
    def tiles(self) -> list[Tile]:
        """Return the tiles in row-major order."""
        return [
            (self.image, self.row + i, self.column + j)
            for i in range(self.height)
            for j in range(self.width)
        ]


def join_tiles(tiles: Collection[Tile], most: int) -> list[Block]:
    """Join tiles to rectangles of at most ``most`` tiles that cover each tile exactly once.

    Neighboring tiles are joined along rows first, then equal runs of consecutive rows. Better
    coverings exist, but the first neighbor saves most of the halo.
    """
    widest = max(int(most**0.5 + 0.5), 1)
    by_span: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for image, row, column, width in _runs(tiles, widest):
        by_span[image, column, width].append(row)
    blocks = []
    for (image, column, width), rows in by_span.items():
        tallest = max(most // width, 1)
        for row, height in _consecutive(rows):
            blocks += [
                Block(image, row + top, column, own, width) for top, own in _cut(height, tallest)
            ]
    return sorted(blocks)


def _runs(tiles: Collection[Tile], widest: int) -> list[tuple[int, int, int, int]]:
    """Return image, row, first column and width of each run of neighboring tiles in a row."""
    rows: dict[tuple[int, int], list[int]] = defaultdict(list)
    for image, row, column in tiles:
        rows[image, row].append(column)
    return [
        (image, row, column + left, own)
        for (image, row), columns in rows.items()
        for column, width in _consecutive(columns)
        for left, own in _cut(width, widest)
    ]


def _consecutive(numbers: Collection[int]) -> list[tuple[int, int]]:
    """Return the first number and the length of each run of consecutive numbers."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and number == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((number, 1))
    return runs


def _cut(length: int, most: int) -> list[tuple[int, int]]:
    """Return start and length of the fewest, nearly equal pieces of at most ``most``."""
    pieces = -(-length // most)
    starts = [length * k // pieces for k in range(pieces + 1)]
    return [(a, b - a) for a, b in zip(starts, starts[1:], strict=False)]
