"""Explain in one sentence why a file cannot be read as a checkpoint."""

import re
from pathlib import Path

_REFUSED = re.compile(r"Unsupported (?:global: GLOBAL|class) ([\w.]+)")
_HEAD_BYTES = 512


def explain_unreadable(path: str, error: Exception) -> str:
    """Explain why loading a checkpoint failed, and what to do.

    Args:
        path: the local file.
        error: the error of ``torch.load`` or ``pickle.load``.
    """
    head = _head(path)
    if head.startswith((b"<!doctype html", b"<html")):
        return (
            f"'{path}' is an HTML page, not a checkpoint: the download gave one that perhaps "
            "asks to sign in. Download the file itself."
        )
    if head.startswith(b"version https://git-lfs"):
        return (
            f"'{path}' is a Git LFS pointer, not a checkpoint: fetch the file itself with "
            "`git lfs pull`."
        )
    refused = _REFUSED.search(str(error))
    if refused:
        return (
            f"'{path}' holds an object of {refused[1]}, and only tensors and plain values are "
            "loaded, as other objects can execute code. Where you trust the file, save its weights "
            "alone: `c = torch.load(path, weights_only=False); "
            "torch.save({'model': c['model']}, path)`."
        )
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return (
        f"'{path}' cannot be read as a checkpoint: {reason}. If it was being copied or downloaded, "
        "do that again."
    )


def _head(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_HEAD_BYTES).lstrip().lower()
    except OSError:  # not a local file
        return b""
