"""Images as arrays, brought to the one form that a detector takes."""

from typing import Any

import numpy as np

_TAKEN = "give it as a NumPy array of uint8, (height, width, 3) in BGR as cv2.imread returns it"
_CHANNELS = (1, 3, 4)


def to_bgr(image: Any) -> np.ndarray:
    """An image as ``cv2.imread`` gives it by default, of what it gives by any of its flags.

    Args:
        image: uint8; (H, W, 3) BGR, (H, W, 4) BGRA, whose alpha is dropped, or grey as (H, W) or
            (H, W, 1), which is repeated.

    Returns:
        (H, W, 3) uint8 BGR; ``image`` itself if it is that.

    Raises:
        ValueError: it is anything else; the message says what to make of it.
    """
    problem = _problem(image)
    if problem:
        raise ValueError(problem)
    if image.ndim == 2:
        image = image[:, :, None]
    if image.shape[2] == 1:
        return image.repeat(3, axis=2)
    return image if image.shape[2] == 3 else image[:, :, :3]


def _problem(image: Any) -> str:
    """What is wrong with an image, and what to do; empty if nothing is."""
    if image is None:
        return "The image is None: cv2.imread could not read its file."
    if not isinstance(image, np.ndarray):
        return f"The image is a {_type_name(image)}: {_TAKEN}."
    shape = tuple(image.shape)
    if 0 in shape:
        return f"The image has the shape {shape}, so it has no pixels: {_TAKEN}."
    first_is_channel = image.ndim == 3 and shape[0] in _CHANNELS
    if image.ndim not in (2, 3) or (image.ndim == 3 and shape[2] not in _CHANNELS):
        hint = " channels come last, as image.transpose(1, 2, 0) has them;" * first_is_channel
        return f"The image has the shape {shape}:{hint} {_TAKEN}."
    if image.dtype != np.uint8:
        return f"The image has values of {image.dtype}: {_remedy(image)}{_TAKEN}."
    return ""


def _type_name(image: Any) -> str:
    return f"{type(image).__module__}.{type(image).__qualname__}".removeprefix("builtins.")


def _remedy(image: np.ndarray) -> str:
    if image.dtype.kind == "f" and np.nanmax(image) <= 1:
        return "from 0.0 to 1.0 they are to be multiplied by 255; "
    if image.dtype.kind == "b":
        return "they are to be multiplied by 255; "
    return "they are to be brought to 0 to 255; "
