import math

import pytest

from efpn_d2.utils.size_labels import size_label, size_labels

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("low", "high", "style", "expected"),
    [
        (8, 16.0, "key", "8_16"),
        (32, math.inf, "key", "32_inf"),
        (12.5, 20, "short", "12.5-20"),
        (96, math.inf, "short", "96+"),
        (0, 1024, "range", "0 to 1024"),
        (9216, math.inf, "range", "9216 and more"),
        (32, 2000**0.5, "text", "32 to 44.72 px"),
        (16, math.inf, "text", "16 px and more"),
        (160_000, 250_000, "range", "160000 to 250000"),
    ],
)
def test_one_bin(low, high, style, expected):
    assert size_label(low, high, style) == expected


def test_the_last_bin_has_no_end():
    assert size_labels([0, 8.0, 16], "short") == ["0-8", "8-16", "16+"]
    assert size_labels([4]) == ["4 px and more"]
