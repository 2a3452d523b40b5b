"""What of a library's log is not for the reader of ours."""

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def without_messages(logger_name: str) -> Iterator[None]:
    """Let a logger pass nothing below warnings.

    Args:
        logger_name: as in ``logging.getLogger``.
    """
    muted = logging.getLogger(logger_name)
    level = muted.level
    muted.setLevel(logging.WARNING)
    try:
        yield
    finally:
        muted.setLevel(level)
