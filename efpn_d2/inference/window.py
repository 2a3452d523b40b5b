"""Show images in a window."""

import numpy as np

_TITLE = "detections (Esc closes)"
_ESCAPE = 27


def check_display() -> None:
    """Open the window.

    Raises:
        OSError: if OpenCV cannot open a window (no screen, or a headless build of OpenCV).
    """
    import cv2

    try:
        cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL)
    except cv2.error:
        raise OSError("OpenCV cannot open a window on this machine; use --output.") from None


def show(picture: np.ndarray, wait: int) -> bool:
    """Show an (H, W, 3) uint8 BGR image.

    Args:
        picture: the image.
        wait: milliseconds to wait for a key; 0: wait until one is pressed.

    Returns:
        Whether Esc was pressed.
    """
    import cv2

    cv2.imshow(_TITLE, picture)
    return cv2.waitKey(wait) == _ESCAPE
