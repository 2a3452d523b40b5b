"""Small data sets in the formats that they are distributed in."""

import json
from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, width: int = 64, height: int = 48, seed: int = 0, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def truncate(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def sign(category: str, xmin, ymin, xmax, ymax, **more) -> dict:
    """An object as TT100K has it."""
    box = {"xmin": xmin, "ymin": ymin, "xmax": xmax, "ymax": ymax}
    return {"category": category, "bbox": box, **more}


def write_tt100k(root: Path, file: str, types, splits: dict[str, dict[str, list]]) -> Path:
    """TT100K with the images and objects ``splits[split][image id]``."""
    entries = {}
    for split, images in splits.items():
        for image_id, objects in images.items():
            write_image(root / split / f"{image_id}.jpg")
            path = f"{split}/{image_id}.jpg"
            entries[image_id] = {"id": int(image_id), "path": path, "objects": objects}
        (root / split).mkdir(parents=True, exist_ok=True)
        (root / split / "ids.txt").write_text("".join(f"{i}\n" for i in images))
    (root / file).write_text(json.dumps({"types": list(types), "imgs": entries}))
    return root


def kinds(report) -> list[str]:
    return sorted(finding.kind for finding in report.problems)
