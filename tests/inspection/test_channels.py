import numpy as np
import pytest

from efpn_d2.inspection.channels import REDUCTIONS, reduce_channels

pytestmark = pytest.mark.fast

RNG = np.random.default_rng(0)


def cells(*vectors: list[float]) -> np.ndarray:
    """A map (C, 1, w) from its cells."""
    return np.array(vectors, dtype=np.float32).T[:, None]


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("norm", [[5.0, 13.0, 0.0]]),
        ("deviation", [[np.hypot(2, 2), np.hypot(4, 10), np.hypot(1, 2)]]),  # mean cell (1, 2)
    ],
)
def test_values_by_hand(reduction, expected):
    (values,) = reduce_channels(
        [cells([3, 4], [5, 12], [0, 0])], reduction, reference=cells([0, 4], [2, 0])
    )
    np.testing.assert_allclose(values, expected)


def test_principal_component_is_the_direction_in_which_the_target_varies():
    # Cells on a line through (1, 1) in the direction (3, 4) / 5, one of them far out.
    target = cells([1, 1], [1, 1], [1, 1], [1 + 6, 1 + 8])
    other = cells([1 + 3 + 4, 1 + 4 - 3])  # 5 along the line and 5 across it
    mean = 10 / 4
    for sign in (1, -1):  # the far cell is the bright one, in whichever direction it lies
        both = [sign * target, sign * other]
        first, second = reduce_channels(both, "pca", sign * target)
        np.testing.assert_allclose(first, [[-mean] * 3 + [10 - mean]], atol=1e-6)
        np.testing.assert_allclose(second, [[5 - mean]], atol=1e-6)


@pytest.mark.parametrize("reduction", ["deviation", "pca"])
def test_what_all_cells_have_in_common_does_not_count(reduction):
    maps = [RNG.normal(size=(8, 5, 6)) for _ in range(2)]
    shift = 100 * RNG.normal(size=(8, 1, 1))
    plain = reduce_channels(maps, reduction, maps[0])
    shifted = reduce_channels([x + shift for x in maps], reduction, maps[0] + shift)
    np.testing.assert_allclose(plain, shifted, atol=1e-9)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_equal_maps_have_equal_values_whatever_stands_beside_them(reduction):
    target, other = RNG.normal(size=(2, 4, 5, 6))
    alone = reduce_channels([target], reduction, target)
    beside = reduce_channels([other * 9, target], reduction, target)
    np.testing.assert_array_equal(alone[0], beside[1])
    assert alone[0].shape == (5, 6)


def test_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="'mean': use one of deviation, norm, pca"):
        reduce_channels([cells([1])], "mean", cells([1]))
