"""Checks of module interfaces; each raises one sentence that says what to do."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from detectron2.layers import ShapeSpec

_PYRAMID_LEVELS = ("p2_prime", *(f"p{level}" for level in range(2, 8)))


def check_features(
    key: str, wanted: Iterable[str], available: Collection[str], hint: str = ""
) -> None:
    """Check that the backbone returns all features that ``key`` names.

    Args:
        key: the config key that lists ``wanted``, for the message.
        wanted: names of features.
        available: names of the features that the backbone returns.
        hint: what to do; empty: correct ``key``.

    Raises:
        ValueError: if some are missing; the message lists them, the key and the available features.
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
    """Return the levels of this pyramid that ``key`` names.

    Args:
        key: the config key that lists ``wanted``, for the message.
        wanted: names of levels of some pyramid; for example, RetinaNet's pyramid has no P2.
        levels: the pyramid's ``output_shape()``.

    Raises:
        ValueError: if a name is not a level of any pyramid, or this pyramid has none of them.
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
        ValueError: if it is not between 0 and 1; the message contains ``key``.
    """
    if not 0 <= value <= 1:  # nor nan
        raise ValueError(
            f"{key} is {value}, but it is an objectness: use a number from 0.0 to 1.0."
        )


def check_positive(section: str, **values: int) -> None:
    """Check numbers of channels, kernels and the like.

    Args:
        section: config section of the values, e.g. ``MODEL.SGDM``.
        values: the values by key.

    Raises:
        ValueError: if one is below 1; the message contains its key.
    """
    for key, value in values.items():
        if value < 1:
            raise ValueError(f"{section}.{key} is {value}: use 1 or more.")


def differs_in_width(levels: Sequence[ShapeSpec]) -> bool:
    """Check whether the first level, P'2, has a different number of channels than the second."""
    return len(levels) > 1 and levels[0].channels != levels[1].channels
