"""Checks of module interfaces, ending in one sentence that says what to do."""

from collections.abc import Collection, Iterable

__all__ = ["check_features"]


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
