"""Reduce the channels of feature maps to one value per cell."""

from collections.abc import Callable, Sequence

import numpy as np

# Description of each reduction for the label of a color bar.
REDUCTIONS = {
    "deviation": "L2 distance to target's mean cell",
    "norm": "L2 norm over the channels",
    "pca": "target's first principal component",
}

_Reduce = Callable[[np.ndarray], np.ndarray]


def reduce_channels(
    maps: Sequence[np.ndarray], reduction: str, reference: np.ndarray
) -> list[np.ndarray]:
    """Reduce feature maps with the same channels in the same way, so that they can be compared.

    Args:
        maps: feature maps (C, h, w).
        reduction: ``deviation``: norm of the difference between a cell and the mean cell of
            ``reference``, which removes what all cells have in common; ``norm``: norm of a cell;
            ``pca``: signed coordinate of a cell on the first principal component of ``reference``,
            0 at its mean.
        reference: (C, h, w), usually the target.

    Returns:
        Arrays (h, w) of float64.

    Raises:
        ValueError: if the reduction is unknown.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"The reduction is '{reduction}': use one of {', '.join(REDUCTIONS)}.")
    reduce = _BUILDERS[reduction](np.asarray(reference, dtype=np.float64))
    return [reduce(np.asarray(x, dtype=np.float64)) for x in maps]


def _norm(_: np.ndarray) -> _Reduce:
    return lambda x: np.linalg.norm(x, axis=0)


def _deviation(reference: np.ndarray) -> _Reduce:
    mean = reference.mean(axis=(1, 2), keepdims=True)
    return lambda x: np.linalg.norm(x - mean, axis=0)


def _pca(reference: np.ndarray) -> _Reduce:
    mean = reference.mean(axis=(1, 2), keepdims=True)
    cells = (reference - mean).reshape(len(reference), -1)
    component = np.linalg.eigh(cells @ cells.T)[1][:, -1]
    # The sign is arbitrary: choose it so that the rarer, larger coordinates are bright.
    if ((component @ cells) ** 3).sum() < 0:
        component = -component
    return lambda x: np.tensordot(component, x - mean, axes=1)


_BUILDERS = {"deviation": _deviation, "norm": _norm, "pca": _pca}
