"""Checks of module interfaces, ending in one sentence that says what to do."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from detectron2.layers import ShapeSpec

_PYRAMID_LEVELS = ("p2_prime", *(f"p{level}" for level in range(2, 8)))


def check_features(
    key: str, wanted: Iterable[str], available: Collection[str], hint: str = ""
) -> None:
    """Check that every feature map that ``key`` names is one that the backbone returns.

    Args:
        key: the config key that lists ``wanted``, for the message.
        wanted: names of feature maps.
        available: names of the maps there are.
        hint: what to do; empty: to correct ``key``.

    Raises:
        ValueError: some are not; the message names them, the key and what there is.
    """
    unknown = [name for name in wanted if name not in available]
    if unknown:
        raise ValueError(
            f"{key} reads {', '.join(unknown)}, but the backbone returns only "
            f"{', '.join(available)}: {hint or f'correct {key}'}."
        )


def pick_levels(
    key: str, wanted: Iterable[str], levels: Mapping[str, ShapeSpec]
) -> dict[str, ShapeSpec]:
    """Those of the levels that ``key`` names that this pyramid has.

    Args:
        key: the config key that lists ``wanted``, for the message.
        wanted: names of levels that some pyramid has; RetinaNet's, for one, has no P2.
        levels: the pyramid's ``output_shape()``.

    Raises:
        ValueError: a name is of no level of any pyramid, or this one has none of them.
    """
    wanted = list(wanted)
    found = {name: levels[name] for name in wanted if name in levels}
    strange = [name for name in wanted if name not in (*_PYRAMID_LEVELS, *levels)]
    check_features(key, strange or ([] if found else wanted), levels)
    if not found:
        raise ValueError(f"{key} is empty: name one or more of {', '.join(levels)}.")
    return found


def check_objectness(key: str, value: float) -> None:
    """Check that a threshold is an objectness.

    Raises:
        ValueError: it is not from 0 to 1; the message names ``key``.
    """
    if not 0 <= value <= 1:  # nor nan
        raise ValueError(
            f"{key} is {value}, but it is an objectness: use a number from 0.0 to 1.0."
        )


def check_positive(section: str, **values: int) -> None:
    """Check numbers of channels, kernels and the like.

    Args:
        section: of the config that the values come from, e.g. ``MODEL.SGDM``.
        values: each under its key there.

    Raises:
        ValueError: one is below 1; the message names its key.
    """
    for key, value in values.items():
        if value < 1:
            raise ValueError(f"{section}.{key} is {value}: use 1 or more.")


def differs_in_width(levels: Sequence[ShapeSpec]) -> bool:
    """Whether the first of some levels, P'2, has another number of channels than the second."""
    return len(levels) > 1 and levels[0].channels != levels[1].channels
