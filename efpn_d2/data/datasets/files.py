"""Reading and writing the files of data sets: clear errors, and no half-written file."""

import json
import os
from pathlib import Path
from typing import Any


def read_json(path: str | os.PathLike[str]) -> tuple[Any, list[str]]:
    """Read a JSON file, with the keys that one of its objects has more than once.

    Python keeps the last of equal keys and says nothing, so that a record would be lost.

    Args:
        path: of the file; may hold NaN and Infinity, which Python writes, too.

    Returns:
        The content, and the repeated keys in their order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no JSON.
    """
    repeated: list[str] = []

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """An object of the JSON; keys that it has twice are noted."""
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            repeated.extend(key for key in content if keys.count(key) > 1)
        return content

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"'{path}' is not there or no file: check the path.")
    try:
        with path.open(encoding="utf-8-sig") as file:
            return json.load(file, object_pairs_hook=build), repeated
    except ValueError as error:  # what is no UTF-8 raises one, too
        raise ValueError(
            f"'{path}' is no JSON ({error}): get the file again, it may be incomplete."
        ) from error


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        ValueError: the file is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"'{path}' is no text in UTF-8 (byte {error.start}): get the file again."
        ) from error


def write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """Write standard JSON, which has no NaN, by :func:`write_atomically`.

    Raises:
        ValueError: ``content`` has a number that is not finite.
    """
    write_atomically(path, json.dumps(content, indent=indent, allow_nan=False).encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is there completely or, whatever happens, not at all.

    Its folder is made if necessary.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
