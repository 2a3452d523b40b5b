"""P'2 that is computed when boxes are pooled from it, and only where they are."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch import Tensor

from efpn_d2.modeling.lazy.blocks import Tile
from efpn_d2.modeling.lazy.profile import ExtensionProfile
from efpn_d2.modeling.lazy.tiles import PyramidMaps, Reader, compute_tiles, dense_cost, tiles_cost

STRIDE = 2


class LazyP2Prime:
    """Takes the place of the map ``p2_prime`` among a pyramid's outputs, at inference.

    What heads pool from it equals what they would pool from the dense map, to float rounding. Tiles
    once computed are kept, for boxes of later heads and stages. [ours]
    """

    def __init__(
        self,
        maps: PyramidMaps,
        get_profile: Callable[[], ExtensionProfile | None],
        *,
        tile_sides: Sequence[int] = (32, 64, 128),
        dense_above: float = 1.0,
    ) -> None:
        """
        Args:
            maps: what P'2 is made of.
            get_profile: returns that of the modules in ``maps``; None: there can be no tiles.
            tile_sides: sides of tiles to choose from, in cells of P'2; multiples of 8.
            dense_above: compute the whole map where tiles would cost more than this share of it, in
                multiply-accumulates.
        """
        self._maps = maps
        self._get_profile = get_profile
        self._tile_sides = tuple(tile_sides)
        self._dense_above = dense_above
        self._dense: Tensor | None = None
        self._side = 0
        self._rows: dict[Tile, int] = {}  # in ``_tiles``
        self._tiles: Tensor | None = None  # (M, C, T, T)

    @property
    def shape(self) -> torch.Size:
        """Of the dense map, (N, C, H, W)."""
        n, c = self._maps.merged3.shape[:2]
        return torch.Size((n, c, *self._maps.size))

    @property
    def dtype(self) -> torch.dtype:
        """Of what was computed; before, of the maps that it is made of."""
        made = next((x for x in (self._dense, self._tiles) if x is not None), self._maps.merged3)
        return made.dtype

    @property
    def device(self) -> torch.device:
        """Of the dense map."""
        return self._maps.merged3.device

    @property
    def active_share(self) -> float:
        """Share of the cells of P'2 that were computed so far; 1.0 once it is dense."""
        if self._dense is not None:
            return 1.0
        n, _, height, width = self.shape
        cells = sum(
            min(self._side, height - i * self._side) * min(self._side, width - j * self._side)
            for _, i, j in self._rows
        )
        return cells / (n * height * width)

    def dense(self) -> Tensor:
        """The whole map, (N, C, H, W)."""
        if self._dense is None:
            self._dense = self._maps.p2_prime()
            self._rows, self._tiles = {}, None
        return self._dense

    def pool(self, pooler: ROIPooler, boxes: list[Boxes]) -> Tensor:
        """What ``pooler([p2_prime], boxes)`` returns: (R, C, S, S), in fp32.

        Args:
            pooler: of one level.
            boxes: of each image, in pixels of the network's input.
        """
        spans = self._spans(boxes)
        profile = self._choose(spans)
        if profile is None:
            features = self.dense() if len(spans) else self._maps.merged3[:, :, :1, :1]
            return pooler([features.float()], boxes)
        spanned = _tile_spans(spans, self._side)
        tiles = self._compute(spanned, profile)
        return self._pool_from_tiles(pooler, Boxes.cat(boxes).tensor, spanned, tiles)

    def read(self, reader: Reader, halo: int, cells: Tensor, fill: Sequence[float]) -> list[Tensor]:
        """Maps that ``reader`` makes of P'2, where they are wanted, and its tiles.

        Args:
            reader: maps of P'2 (N, C, H, W) with the same cells, (N, C_k, H, W).
            halo: the cells around a cell that it reads.
            cells: (R, 3), image, row and column of the wanted cells.
            fill: what the maps have elsewhere, one value per map.

        Returns:
            (N, C_k, H, W) each.
        """
        spans = cells[:, [0, 1, 2, 1, 2]].cpu()
        profile = self._choose(spans)
        if self._dense is not None:
            return reader(self._dense)
        n, c, height, width = self.shape
        if profile is None:
            shapes = [x.shape[1] for x in reader(self._maps.merged3.new_zeros(1, c, 8, 8))]
            return [
                self._maps.merged3.new_full((n, own, height, width), value)
                for own, value in zip(shapes, fill, strict=True)
            ]
        side = self._side
        tiles = sorted(_covered(_tile_spans(spans, side)))
        own, *made = compute_tiles(self._maps, profile, side, tiles, reader, halo)
        new = [k for k, tile in enumerate(tiles) if tile not in self._rows]
        if new:
            self._keep([tiles[k] for k in new], own[new])
        maps = [
            x.new_full((n, x.shape[1], height, width), value)
            for x, value in zip(made, fill, strict=True)
        ]
        for k, (image, i, j) in enumerate(tiles):
            rows = slice(i * side, min((i + 1) * side, height))
            columns = slice(j * side, min((j + 1) * side, width))
            for whole, x in zip(maps, made, strict=True):
                part = x[k, :, : rows.stop - rows.start, : columns.stop - columns.start]
                whole[image, :, rows, columns] = part
        return maps

    def _spans(self, boxes: list[Boxes]) -> Tensor:
        """Cells that a pooler reads: (R, 5), image, first row and column, last row and column."""
        height, width = self._maps.size
        spans = []
        for n, own in enumerate(boxes):
            corners = own.tensor.float() / STRIDE
            # One cell more than needed on each side covers both of RoIAlign's conventions.
            first = (corners[:, :2] - 1).floor()
            last = torch.maximum(corners[:, 2:], corners[:, :2] + 1).floor() + 1
            limit = corners.new_tensor([width - 1, height - 1])
            first, last = (x.clamp(min=0).minimum(limit) for x in (first, last))
            image = corners.new_full((len(corners), 1), n)
            spans.append(torch.cat([image, first.flip(1), last.flip(1)], dim=1))
        return torch.cat(spans).long().cpu()

    def _choose(self, spans: Tensor) -> ExtensionProfile | None:
        """The cheapest way to have the cells of ``spans``: tiles of some side, or the whole map.

        Returns:
            With what tiles are computed; None: with the whole map there, or no cell to have, there
            are none to compute.
        """
        if self._dense is not None or not len(spans):
            return None
        n, size, profile = len(self._maps.merged3), self._maps.size, self._get_profile()
        if profile is None:
            self.dense()
            return None
        whole = -(-max(size) // 8) * 8  # a larger tile would be filled up for nothing
        sides = {min(side, whole) for side in self._tile_sides} if not self._side else {self._side}
        costs = {}
        for side in sides:
            needed = _covered(_tile_spans(spans, side)) | self._rows.keys()
            costs[side] = tiles_cost(profile, side, needed, size, self.device.type == "cuda")
        best = min(costs, key=costs.__getitem__)
        if costs[best] > self._dense_above * n * dense_cost(profile, size):
            self.dense()
            return None
        self._side = best
        return profile

    def _compute(self, spanned: Tensor, profile: ExtensionProfile) -> Tensor:
        """All tiles, with those of ``spanned`` (R, 5), at least one, among them."""
        new = sorted(_covered(spanned) - self._rows.keys())
        if new or self._tiles is None:
            (computed,) = compute_tiles(self._maps, profile, self._side, new)
            return self._keep(new, computed)
        return self._tiles

    def _keep(self, new: list[Tile], computed: Tensor) -> Tensor:
        """Add tiles to those that are there; returns all."""
        self._rows.update({tile: len(self._rows) + m for m, tile in enumerate(new)})
        known = [] if self._tiles is None else [self._tiles]
        self._tiles = torch.cat([*known, computed])
        return self._tiles

    def _pool_from_tiles(
        self, pooler: ROIPooler, boxes: Tensor, spanned: Tensor, tiles: Tensor
    ) -> Tensor:
        """Pool each box from the block of tiles that it spans, blocks of one shape together."""
        by_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
        for r, (_, top, left, bottom, right) in enumerate(spanned.tolist()):
            by_shape[bottom - top + 1, right - left + 1].append(r)
        order, pooled = [], []
        for shape, rows in by_shape.items():
            origins = [tuple(x) for x in spanned[rows, :3].tolist()]
            blocks = sorted(set(origins))
            # By block, as the pooler wants them.
            by_block: dict[Tile, list[int]] = {block: [] for block in blocks}
            for r, origin in zip(rows, origins, strict=True):
                by_block[origin].append(r)
            features = self._blocks(tiles, blocks, shape).float()
            moved = [self._move(boxes[own], block) for block, own in by_block.items()]
            pooled.append(pooler([features], moved))
            order += [r for own in by_block.values() for r in own]
        inverse = torch.empty(len(order), dtype=torch.long)
        inverse[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(pooled)[inverse.to(boxes.device)]

    def _blocks(self, tiles: Tensor, origins: list[Tile], shape: tuple[int, int]) -> Tensor:
        """Blocks of ``shape`` tiles that begin at tiles ``origins``: (B, C, h * T, w * T)."""
        rows = [
            self._rows[n, i + a, j + b]
            for n, i, j in origins
            for a in range(shape[0])
            for b in range(shape[1])
        ]
        if shape == (1, 1):
            return tiles[rows]
        channels, side = tiles.shape[1:3]
        blocks = tiles[rows].view(len(origins), *shape, channels, side, side)
        return blocks.permute(0, 3, 1, 4, 2, 5).reshape(
            len(origins), channels, shape[0] * side, shape[1] * side
        )

    def _move(self, boxes: Tensor, block: Tile) -> Boxes:
        """Boxes in pixels from the block's corner on."""
        _, i, j = block
        corner = boxes.new_tensor([j, i, j, i]) * (self._side * STRIDE)
        return Boxes(boxes - corner)


def _tile_spans(spans: Tensor, side: int) -> Tensor:
    """Spans of cells (R, 5) as spans of tiles."""
    return torch.cat([spans[:, :1], spans[:, 1:] // side], dim=1)


def _covered(tiles: Tensor) -> set[Tile]:
    """All tiles of some spans (R, 5)."""
    return {
        (n, i, j)
        for n, top, left, bottom, right in set(map(tuple, tiles.tolist()))
        for i in range(top, bottom + 1)
        for j in range(left, right + 1)
    }
