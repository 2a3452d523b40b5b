"""Tiles of P'2, each computed from windows of the maps below it.

All positions are cells, of P'2 (stride 2) unless said otherwise. Tile (n, i, j) of side T is the
part of image n that begins at row i * T and column j * T. Neighbouring tiles are computed as one
block, where that saves halos. A window is as large as its block and the halo on both sides, and it
is moved, not cut, where it would reach beyond the map: so all windows of a batch have one size, and
the zeros that convolutions pad with are at the map's border exactly where they are in the dense
computation, or too far from the block to matter.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from efpn_d2.modeling.lazy.blocks import Block, Tile, join_tiles
from efpn_d2.modeling.lazy.profile import ExtensionProfile

if TYPE_CHECKING:  # the pyramid imports this
    from efpn_d2.modeling.backbone.extension import PyramidExtension


# Cells of P'2 that are computed at once on a CPU: beyond this, its caches no longer hold the maps
# in between, and to get fresh memory for them takes as long as to compute them.
CPU_CELLS = 8192

Reader = Callable[[Tensor], list[Tensor]]


class PyramidMaps(NamedTuple):
    """All that P'2 is made of."""

    stem_map: Tensor  # (N, C_stem, H, W)
    merged2: Tensor  # (N, C, H/2, W/2)
    merged3: Tensor  # (N, C, H/4, W/4)
    stage2: Callable[[Tensor], Tensor]  # the stem's map to C'2
    extension: "PyramidExtension"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of P'2."""
        height, width = self.stem_map.shape[-2:]
        return height, width

    def p2_prime(self) -> Tensor:
        """The whole map."""
        return self.extension(self.stage2(self.stem_map), self.merged2, self.merged3)[1]


class _Windows(NamedTuple):
    """Along one axis: where the windows of some blocks begin, and their common length."""

    starts: list[int]
    length: int


class _AxisWindows(NamedTuple):
    """Of each step, along one axis."""

    content: _Windows  # in cells of stride 8
    transfer: _Windows  # of stride 4
    stage2: _Windows
    output: _Windows


def _axis_windows(
    starts: Sequence[int], extent: int, length: int, profile: ExtensionProfile, reader_halo: int = 0
) -> _AxisWindows:
    """
    Args:
        starts: of the blocks along the axis, multiples of 4.
        extent: of each block along it, a multiple of 4.
        length: of P'2 along it, a multiple of 4.
        profile: the halos.
        reader_halo: of what reads P'2 around the blocks.
    """
    stage2, output = profile.last_halos(reader_halo)
    transfer = output // 2 + profile.transfer.halo
    transfer += transfer % 2  # for windows to begin with a whole cell of stride 8
    content = transfer // 2 + profile.content.halo

    def place(stride: int, halo: int) -> _Windows:
        """Windows on a map with cells of ``stride`` cells of P'2."""
        own = min(extent // stride + 2 * halo, length // stride)
        wanted = [start // stride - halo for start in starts]
        return _Windows([min(max(x, 0), length // stride - own) for x in wanted], own)

    return _AxisWindows(place(4, content), place(2, transfer), place(1, stage2), place(1, output))


def compute_tiles(
    maps: PyramidMaps,
    profile: ExtensionProfile,
    side: int,
    tiles: Sequence[Tile],
    reader: Reader | None = None,
    reader_halo: int = 0,
) -> list[Tensor]:
    """P'2 on some tiles; on a GPU, one convolution call per layer for all of them.

    Cells beyond the map, of tiles at its right and lower border, repeat its last ones.

    Args:
        maps: what to make it of.
        profile: of ``maps.stage2`` and ``maps.extension``.
        side: T, a multiple of 8.
        tiles: M different tiles, at least one.
        reader: makes other maps of P'2, with the same cells.
        reader_halo: the cells around a tile that it reads.

    Returns:
        P'2 (M, C, T, T) and the tiles of the maps that the reader makes.
    """
    order: list[Tile] = []
    parts = []
    for blocks in _batches(tiles, side, maps.stem_map.is_cuda):
        parts.append(_compute_blocks(maps, profile, side, blocks, reader, reader_halo))
        order += [tile for block in blocks for tile in block.tiles]
    joined = parts[0] if len(parts) == 1 else [torch.cat(x) for x in zip(*parts, strict=True)]
    if order == list(tiles):
        return joined
    rows = {tile: k for k, tile in enumerate(order)}
    wanted = torch.tensor([rows[tile] for tile in tiles], device=joined[0].device)
    return [x[wanted] for x in joined]


def _blocks(tiles: Collection[Tile], side: int, cuda: bool) -> list[Block]:
    """What is computed with one halo: on a GPU single tiles, so that all go through one call."""
    return join_tiles(tiles, 1 if cuda else max(CPU_CELLS // side**2, 1))


def _batches(tiles: Collection[Tile], side: int, cuda: bool) -> list[list[Block]]:
    """Blocks of one shape that are computed at once."""
    by_shape: dict[tuple[int, int], list[Block]] = defaultdict(list)
    for block in _blocks(tiles, side, cuda):
        by_shape[block.shape].append(block)
    batches = []
    for (height, width), blocks in by_shape.items():
        at_once = len(blocks) if cuda else max(CPU_CELLS // (height * width * side**2), 1)
        batches += [blocks[k : k + at_once] for k in range(0, len(blocks), at_once)]
    return batches


def _compute_blocks(
    maps: PyramidMaps,
    profile: ExtensionProfile,
    side: int,
    blocks: Sequence[Block],
    reader: Reader | None,
    reader_halo: int,
) -> list[Tensor]:
    """The tiles of blocks of one shape, block by block; the rest as :func:`compute_tiles`."""
    images = [block.image for block in blocks]
    rows, columns = [b.row * side for b in blocks], [b.column * side for b in blocks]
    height, width = blocks[0].shape
    y = _axis_windows(rows, height * side, maps.size[0], profile, reader_halo)
    x = _axis_windows(columns, width * side, maps.size[1], profile, reader_halo)
    p2_prime = _compute_windows(maps, images, y, x)
    windows = [p2_prime, *(reader(p2_prime) if reader else [])]
    starts = [
        (i - a, j - b)
        for i, j, a, b in zip(rows, columns, y.output.starts, x.output.starts, strict=True)
    ]
    return [
        torch.stack(
            [
                _tile(own, (top + i * side, left + j * side), side)
                for own, (top, left) in zip(each, starts, strict=True)
                for i in range(height)
                for j in range(width)
            ]
        )
        for each in windows
    ]


def _compute_windows(
    maps: PyramidMaps, images: list[int], y: _AxisWindows, x: _AxisWindows
) -> Tensor:
    """P'2 over the windows of step output."""
    # P'3 over the windows of step transfer.
    merged3 = _crop(maps.merged3, images, y.content, x.content)
    up = maps.extension.upsampler.upsample(merged3)
    up = _cut(up, (y.content, x.content), (y.transfer, x.transfer), scale=2)
    halves = [_halve(w) for w in (y.transfer, x.transfer)]
    merged3 = _cut(merged3, (y.content, x.content), (halves[0], halves[1]))
    merged2 = _crop(maps.merged2, images, y.transfer, x.transfer)
    p3_prime = maps.extension.upsampler.transfer(up, merged2, merged3)
    # C'2, and with it P'2.
    halves = [_halve(w) for w in (y.output, x.output)]
    p3_prime = _cut(p3_prime, (y.transfer, x.transfer), (halves[0], halves[1]))
    c2_prime = maps.stage2(_crop(maps.stem_map, images, y.stage2, x.stage2))
    c2_prime = _cut(c2_prime, (y.stage2, x.stage2), (y.output, x.output))
    return maps.extension.p2_prime(c2_prime, p3_prime)


def _halve(windows: _Windows) -> _Windows:
    """The same windows in cells twice as large."""
    return _Windows([start // 2 for start in windows.starts], windows.length // 2)


def _crop(features: Tensor, images: list[int], y: _Windows, x: _Windows) -> Tensor:
    """Windows (M, C, h, w) of maps (N, C, H, W)."""
    places = zip(images, y.starts, x.starts, strict=True)
    return torch.stack([features[n, :, i : i + y.length, j : j + x.length] for n, i, j in places])


def _cut(
    windows: Tensor,
    outer: tuple[_Windows, _Windows],
    inner: tuple[_Windows, _Windows],
    scale: int = 1,
) -> Tensor:
    """Smaller windows out of larger ones, (M, C, H, W) -> (M, C, h, w).

    Args:
        windows: the larger ones.
        outer: where they are.
        inner: where the smaller ones are, in cells of ``windows``.
        scale: cells of ``windows`` per cell of ``outer``.
    """
    rows, columns = (
        [b - scale * a for a, b in zip(o.starts, i.starts, strict=True)]
        for o, i in zip(outer, inner, strict=True)
    )
    return _crop(
        windows,
        list(range(len(windows))),
        _Windows(rows, inner[0].length),
        _Windows(columns, inner[1].length),
    )


def _tile(window: Tensor, start: tuple[int, int], side: int) -> Tensor:
    """The tile of a window (C, h, w) that begins at ``start``."""
    tile = window[:, start[0] : start[0] + side, start[1] : start[1] + side]
    missing = [side - length for length in tile.shape[1:]]
    if any(missing):
        tile = F.pad(tile[None], (0, missing[1], 0, missing[0]), mode="replicate")[0]
    return tile


def tiles_cost(
    profile: ExtensionProfile,
    side: int,
    tiles: Collection[Tile],
    size: tuple[int, int],
    cuda: bool = False,
) -> int:
    """Multiply-accumulates of tiles of side ``side`` of maps of ``size``, halos included."""
    shapes = Counter(block.shape for block in _blocks(tiles, side, cuda))
    total = 0
    for shape, count in shapes.items():
        y, x = (
            _axis_windows([0], own * side, length, profile)
            for own, length in zip(shape, size, strict=True)
        )
        areas = [a.length * b.length for a, b in zip(y, x, strict=True)]
        total += count * sum(area * step.macs for area, step in zip(areas, profile, strict=True))
    return total


def dense_cost(profile: ExtensionProfile, size: tuple[int, int]) -> int:
    """Multiply-accumulates of the whole map of one image."""
    strides = (4, 2, 1, 1)
    height, width = size
    return sum(
        height * width // stride**2 * step.macs
        for stride, step in zip(strides, profile, strict=True)
    )
