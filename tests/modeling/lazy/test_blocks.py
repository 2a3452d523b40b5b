import random

import pytest

from efpn_d2.modeling.lazy.blocks import Block, join_tiles

pytestmark = pytest.mark.fast


def grid(picture):
    """Tiles of image 0, drawn."""
    rows = picture.split()
    return [(0, i, j) for i, row in enumerate(rows) for j, cell in enumerate(row) if cell == "#"]


def test_neighbours_become_rectangles():
    tiles = grid("""
        ##.#
        ##.#
        ...#
    """)
    assert join_tiles(tiles, 4) == [Block(0, 0, 0, 2, 2), Block(0, 0, 3, 3, 1)]
    assert join_tiles(tiles, 2) == [
        *(Block(0, 0, j, 2, 1) for j in range(2)),
        *(Block(0, i, 3, 1 + (i == 1), 1) for i in range(2)),
    ]


def test_long_runs_are_cut_evenly():
    tiles = grid("#######")
    assert [block.shape for block in join_tiles(tiles, 9)] == [(1, 2), (1, 2), (1, 3)]


def test_corners_are_no_neighbours_and_images_are_apart():
    corners = grid("#. .#")
    assert [block.shape for block in join_tiles(corners, 4)] == [(1, 1), (1, 1)]
    assert len(join_tiles([(0, 0, 0), (1, 0, 1)], 4)) == 2


def test_tiles_of_a_block_go_row_by_row():
    assert Block(2, 1, 5, 2, 2).tiles == [(2, 1, 5), (2, 1, 6), (2, 2, 5), (2, 2, 6)]


@pytest.mark.parametrize("most", [1, 2, 3, 8, 100])
def test_every_tile_is_in_one_block_and_no_block_too_large(most):
    generator = random.Random(most)
    for share in (0.1, 0.4, 0.7, 1.0):
        places = [(n, i, j) for n in range(2) for i in range(9) for j in range(11)]
        tiles = [place for place in places if generator.random() < share]
        blocks = join_tiles(tiles, most)
        covered = [tile for block in blocks for tile in block.tiles]
        assert sorted(covered) == tiles
        assert all(1 <= len(block.tiles) <= most for block in blocks)
        if most == 1:
            assert len(blocks) == len(tiles)
        if share == 1.0 and most == 8:
            assert len(blocks) <= 2 * -(-9 // 2) * -(-11 // 3)


def test_no_tiles_no_blocks():
    assert join_tiles([], 8) == []
