#!/usr/bin/env python3
"""Say which versions the environment has, and check that they work together."""

import importlib
import platform
import sys

MIN_PYTHON = (3, 10)
MODULES = ("torch", "torchvision", "cv2", "detectron2", "efpn_d2")


def import_modules() -> dict[str, str]:
    """Version by name of every module that is needed; exits with a sentence if one is missing."""
    versions = {}
    for name in MODULES:
        try:
            versions[name] = getattr(importlib.import_module(name), "__version__", "?")
        except ImportError as error:
            sys.exit(f"check_environment: `import {name}` fails ({error}); run `make setup`.")
    return versions


def check_operators() -> None:
    """torch, torchvision and Detectron2 agree on an operator that all three take part in."""
    import torch
    from detectron2.layers import batched_nms

    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 20.0, 30.0, 30.0]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    keep = batched_nms(boxes, scores, torch.zeros(3, dtype=torch.int64), 0.5)
    if keep.tolist() != [0, 2]:
        sys.exit(
            "check_environment: torch and torchvision do not fit together (non-maximum suppression"
            " gives a wrong result); install the pair that constraints.txt names."
        )


def main() -> None:
    if sys.version_info < MIN_PYTHON:
        sys.exit(
            f"check_environment: Python >= 3.10 is needed, this is {platform.python_version()}."
        )
    versions = import_modules()
    check_operators()
    import torch

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    found = ", ".join(f"{name} {version}" for name, version in versions.items())
    print(f"ready: Python {platform.python_version()}, {found}, on {device}")


if __name__ == "__main__":
    main()
