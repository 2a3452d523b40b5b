"""Rectangles of tiles that are computed together, with one halo around each."""

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
        """Rows and columns."""
        return self.height, self.width

    @property
    def tiles(self) -> list[Tile]:
        """Row by row."""
        return [
            (self.image, self.row + i, self.column + j)
            for i in range(self.height)
            for j in range(self.width)
        ]


def join_tiles(tiles: Collection[Tile], most: int) -> list[Block]:
    """Rectangles of at most ``most`` tiles that cover exactly ``tiles``, none of them twice.

    Runs along rows, and then runs that begin and end alike in rows one below the other. There are
    better coverings, but halos shrink most with the first neighbour.
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
    """Image, row, first column and width of neighbouring tiles of a row."""
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
    """First number and length of each run of consecutive ones."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and number == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((number, 1))
    return runs


def _cut(length: int, most: int) -> list[tuple[int, int]]:
    """Start and length of the fewest pieces of at most ``most``, as equal as can be."""
    pieces = -(-length // most)
    starts = [length * k // pieces for k in range(pieces + 1)]
    return [(a, b - a) for a, b in zip(starts, starts[1:], strict=False)]
