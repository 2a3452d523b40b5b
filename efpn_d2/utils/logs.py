"""Filter the logs of libraries."""

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def without_messages(logger_name: str) -> Iterator[None]:
    """Suppress the messages of a logger below warnings.

    Args:
        logger_name: name as in ``logging.getLogger``.
    """
    muted = logging.getLogger(logger_name)
    level = muted.level
    muted.setLevel(logging.WARNING)
    try:
        yield
    finally:
        muted.setLevel(level)
