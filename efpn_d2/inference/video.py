"""Read and write videos frame by frame with OpenCV."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
_DEFAULT_FPS = 25.0


class VideoReader:
    """Frames of a video file or a camera.

    Attributes:
        fps: frames per second, 25 if unknown.
        num_frames: number of frames as stated by the file; None for a camera or if unknown.
    """

    def __init__(self, source: str | int) -> None:
        """
        Args:
            source: path of a file, or number of a camera.

        Raises:
            OSError: if the source cannot be opened.
        """
        import cv2

        self._source = source
        self._capture = cv2.VideoCapture(source)
        if not self._capture.isOpened():
            what = f"camera {source}" if isinstance(source, int) else f"the video '{source}'"
            raise OSError(
                f"Cannot open {what}: it does not exist, or its format is not supported by OpenCV."
            )
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else _DEFAULT_FPS  # NaN and 0 mean unknown
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.num_frames = int(count) if count >= 1 and isinstance(source, str) else None

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield (H, W, 3) uint8 BGR frames; the source is closed at the end."""
        try:
            while True:
                ok, frame = self._capture.read()
                if not ok:
                    return
                yield frame
        finally:
            self._capture.release()


class VideoWriter:
    """Write frames to a video file with the size of the first frame.

    The file is created with the first frame, so an unused writer leaves no file.

    Attributes:
        path: path of the file.
    """

    def __init__(self, path: Path, fps: float) -> None:
        """
        Args:
            path: path of the file; its suffix determines the format.
            fps: frames per second.

        Raises:
            ValueError: if the suffix is unknown.
        """
        if path.suffix.lower() not in _CODECS:
            raise ValueError(
                f"Cannot write a video as '{path.name}'; use one of {', '.join(_CODECS)}."
            )
        self.path = path
        self._fps = fps
        self._writer: Any = None

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.release()

    def write(self, frame: np.ndarray) -> None:
        """Append an (H, W, 3) uint8 BGR frame.

        Raises:
            OSError: if the file cannot be written.
        """
        import cv2

        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            codec = cv2.VideoWriter.fourcc(*_CODECS[self.path.suffix.lower()])
            size = (frame.shape[1], frame.shape[0])
            self._writer = cv2.VideoWriter(str(self.path), codec, self._fps, size)
            if not self._writer.isOpened():
                with contextlib.suppress(OSError):
                    self.path.unlink()
                raise OSError(f"OpenCV cannot write the video '{self.path}'.")
        self._writer.write(frame)
