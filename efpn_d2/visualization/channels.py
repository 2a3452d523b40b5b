"""One number per cell out of the many channels of a feature map."""

from collections.abc import Callable, Sequence

import numpy as np

# What the values of each reduction are, for the label of a scale.
REDUCTIONS = {
    "deviation": "L2 distance to target's mean cell",
    "norm": "L2 norm over the channels",
    "pca": "target's first principal component",
}

_Reduce = Callable[[np.ndarray], np.ndarray]


def reduce_channels(
    maps: Sequence[np.ndarray], reduction: str, reference: np.ndarray
) -> list[np.ndarray]:
    """Reduce maps of the same channels alike, so that their values can be compared.

    Args:
        maps: each (C, h, w).
        reduction: ``deviation``: length of a cell's difference from the mean cell of ``reference``,
            which takes away what all cells have in common; ``norm``: length of a cell; ``pca``: a
            cell's coordinate on the first principal component of the cells of ``reference``,
            signed, 0 at their mean.
        reference: (C, h, w), usually the target.

    Returns:
        Arrays (h, w) of float64.

    Raises:
        ValueError: unknown reduction.
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
    # Its sign is arbitrary: the rarer, larger coordinates are to be the bright ones.
    if ((component @ cells) ** 3).sum() < 0:
        component = -component
    return lambda x: np.tensordot(component, x - mean, axes=1)


_BUILDERS = {"deviation": _deviation, "norm": _norm, "pca": _pca}
