"""Read and write dataset files, with clear errors and atomic writes."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


def read_json(path: str | os.PathLike[str]) -> tuple[Any, list[str]]:
    """Read a JSON file, and find keys that occur more than once in an object.

    Python silently keeps the last of equal keys, so a record would be lost.

    Args:
        path: path of the file; it may contain NaN and Infinity, which Python also writes.

    Returns:
        The content, and the repeated keys in order.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not JSON.
    """
    repeated: list[str] = []

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Build an object and record its repeated keys."""
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            repeated.extend(key for key in content if keys.count(key) > 1)
        return content

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"'{path}' does not exist or is not a file: check the path.")
    try:
        with path.open(encoding="utf-8-sig") as file:
            return json.load(file, object_pairs_hook=build), repeated
    except ValueError as error:  # also raised if the file is not UTF-8
        raise ValueError(
            f"'{path}' is not JSON ({error}): get the file again, it may be incomplete."
        ) from error


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        ValueError: if the file is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"'{path}' is not text in UTF-8 (byte {error.start}): get the file again."
        ) from error


def write_json(path: str | os.PathLike[str], content: Any, indent: int | None = None) -> None:
    """Write standard JSON, which has no NaN, with :func:`write_atomically`.

    Raises:
        ValueError: if ``content`` has a number that is not finite.
    """
    write_atomically(path, json.dumps(content, indent=indent, allow_nan=False).encode())


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file by :func:`open_atomically`."""
    with open_atomically(path) as file:
        file.write(content)


@contextlib.contextmanager
def open_atomically(
    path: str | os.PathLike[str], mode: str = "wb", *, sync: bool = False
) -> Iterator[IO[Any]]:
    """Open a file that appears when the block ends, or not at all if the block raises.

    Until then it is written beside its path as ``.<name>.partial``, so an existing file is kept; a
    partial file of an interrupted process is overwritten. Its folder is created.

    Args:
        path: path of a local file.
        mode: "wb" or "w".
        sync: wait until the file is on the disk, to survive a crash of the machine.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
