"""Pictures in a window, where there is a screen."""

import numpy as np

_TITLE = "detections (Esc closes)"
_ESCAPE = 27


def check_display() -> None:
    """Open the window.

    Raises:
        OSError: OpenCV can open none here (no screen, or OpenCV's headless edition).
    """
    import cv2

    try:
        cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL)
    except cv2.error:
        raise OSError("OpenCV can open no window on this machine; give --output.") from None


def show(picture: np.ndarray, wait: int) -> bool:
    """Show an (H, W, 3) uint8 BGR picture.

    Args:
        picture: what to show.
        wait: milliseconds to wait for a key; 0: until one is pressed.

    Returns:
        Whether Esc was pressed.
    """
    import cv2

    cv2.imshow(_TITLE, picture)
    return cv2.waitKey(wait) == _ESCAPE
