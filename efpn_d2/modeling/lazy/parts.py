"""The whole of P'2 on a CPU, part by part.

C'2 and the maps on the way from it to P'2 are the largest of the detector, and each is read once.
Made in parts they stay in the caches, and no time goes into getting memory for them; only P'2
itself exists as a whole. [ours]
"""

from collections.abc import Callable

from torch import Tensor

from .profile import ExtensionProfile
from .tiles import PyramidMaps

__all__ = ["is_large", "p2_prime_by_parts"]

# Of the largest map of a part. glibc gives memory of more than 32 MiB back at once, and takes as
# long to get it again as a convolution takes.
PART_BYTES = 24 * 2**20
_Span = tuple[int, int]


def is_large(like: Tensor, size: tuple[int, int], channels: int) -> bool:
    """Whether a map of that height and width, as ``like`` otherwise, is worth dividing."""
    height, width = size
    return like.is_cpu and height * width * channels * like.element_size() > 2 * PART_BYTES


def p2_prime_by_parts(
    maps: PyramidMaps, get_profile: Callable[[], ExtensionProfile | None]
) -> Tensor:
    """``maps.p2_prime()``, to float rounding; that itself where parts would gain nothing.

    Args:
        maps: what P'2 is made of.
        get_profile: returns that of the modules in ``maps``; None: there can be no parts. Called
            only if the map is large.
    """
    height, width = maps.size
    n, channels = maps.merged3.shape[:2]
    # Stage 2 has as many channels at its end as the lateral convolution reads.
    most = max(channels, maps.extension.lateral.in_channels)
    profile = get_profile() if is_large(maps.merged3, maps.size, most) else None
    if profile is None:
        return maps.p2_prime()
    stage2, output = profile.last_halos()
    cells = PART_BYTES / (most * maps.merged3.element_size())
    side = max(int(cells**0.5) - 2 * stage2, 16)
    p3_prime = maps.extension.p3_prime(maps.merged2, maps.merged3)
    p2_prime: Tensor | None = None
    for image in range(n):
        for rows in _spans(height, side):
            for columns in _spans(width, side):
                stem = _cut(maps.stem_map[image : image + 1], rows, columns, stage2)
                c2_prime = maps.stage2(stem)
                c2_prime = _shrink(c2_prime, rows, columns, stage2, output, maps.size)
                p3_part = _cut(p3_prime[image : image + 1], rows, columns, output, scale=2)
                part = maps.extension.p2_prime(c2_prime, p3_part)
                part = _shrink(part, rows, columns, output, 0, maps.size)
                if p2_prime is None:  # only now its type is known: autocast may choose another
                    p2_prime = part.new_empty(n, channels, height, width)
                p2_prime[image, :, slice(*rows), slice(*columns)] = part[0]
    return p2_prime


def _spans(length: int, most: int) -> list[_Span]:
    """Begin (even) and end of the fewest nearly equal parts of about ``most`` cells at most."""
    count = -(-length // most)
    edges = [length * k // count // 2 * 2 for k in range(count)] + [length]
    return list(zip(edges, edges[1:], strict=False))


def _grow(span: _Span, halo: int, length: int) -> _Span:
    """The span with its halo, where the map has it: at its border convolutions pad with zeros."""
    return max(span[0] - halo, 0), min(span[1] + halo, length)


def _cut(features: Tensor, rows: _Span, columns: _Span, halo: int, scale: int = 1) -> Tensor:
    """That part of a map with cells ``scale`` times as large, and its halo."""
    height, width = (scale * length for length in features.shape[-2:])
    top, bottom = _grow(rows, halo, height)
    left, right = _grow(columns, halo, width)
    return features[..., top // scale : bottom // scale, left // scale : right // scale]


def _shrink(
    part: Tensor, rows: _Span, columns: _Span, halo: int, smaller: int, size: tuple[int, int]
) -> Tensor:
    """A part with a halo, with a smaller one."""
    slices = []
    for span, length in zip((rows, columns), size, strict=True):
        outer, inner = _grow(span, halo, length), _grow(span, smaller, length)
        slices.append(slice(inner[0] - outer[0], inner[1] - outer[0]))
    return part[..., slices[0], slices[1]]
