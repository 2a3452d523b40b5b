#!/usr/bin/env python3
"""Print the installed versions, and check that they work together."""

import importlib
import platform
import sys

MIN_PYTHON = (3, 10)
MODULES = ("torch", "torchvision", "cv2", "detectron2", "efpn_d2")


def import_modules() -> dict[str, str]:
    """Return the versions of all required modules; exit with a message if one is missing."""
    versions = {}
    for name in MODULES:
        try:
            versions[name] = getattr(importlib.import_module(name), "__version__", "?")
        except ImportError as error:
            sys.exit(f"check_environment: `import {name}` fails ({error}); run `make setup`.")
    return versions


def check_operators() -> None:
    """Check that an operator of torch, torchvision and Detectron2 works."""
    import torch
    from detectron2.layers import batched_nms

    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 20.0, 30.0, 30.0]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    keep = batched_nms(boxes, scores, torch.zeros(3, dtype=torch.int64), 0.5)
    if keep.tolist() != [0, 2]:
        sys.exit(
            "check_environment: torch and torchvision do not match (non-maximum suppression "
            "gives a wrong result); install the versions in constraints.txt."
        )


def main() -> None:
    """Check the environment and print the versions."""
    if sys.version_info < MIN_PYTHON:
        sys.exit(
            f"check_environment: Python >= 3.10 is required, this is {platform.python_version()}."
        )
    versions = import_modules()
    check_operators()
    import torch

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    found = ", ".join(f"{name} {version}" for name, version in versions.items())
    print(f"ready: Python {platform.python_version()}, {found}, on {device}")


if __name__ == "__main__":
    main()
