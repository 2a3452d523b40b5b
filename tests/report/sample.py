"""A data set of a few images with hostile names, and two runs on it."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from efpn_d2.evaluation.coco_arrays import Detections
from tests.evaluation.random_data import random_data

HOSTILE_CLASS = "</script><script>document.title='broken'</script>&lt;b"
HOSTILE_FILE = 'a"><img src=x onerror="document.title=\'broken\'">.png'


class Sample(NamedTuple):
    annotations: Path
    images: Path
    runs: list[Path]


def write_sample(folder: Path, images: int = 30) -> Sample:
    """Images of 100 x 80 px; the second run is the first with other scores and fewer boxes."""
    truth, found = random_data(3, images=images)
    names = [f"{i:03d}.png" for i in range(images)]
    names[int(truth.image[0])] = HOSTILE_FILE
    root = folder / "images"
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in names:
        pixels = rng.integers(0, 255, (80, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)
    xywh = np.hstack([truth.boxes[:, :2], truth.boxes[:, 2:] - truth.boxes[:, :2]])
    annotations = [
        {"id": m + 1, "image_id": i + 1, "category_id": k + 1, "bbox": box, "iscrowd": int(crowd)}
        | {"area": box[2] * box[3]}
        for m, (i, k, box, crowd) in enumerate(
            zip(*(a.tolist() for a in (truth.image, truth.classes, xywh, truth.crowd)), strict=True)
        )
    ]
    dataset = {
        "images": [
            {"id": i + 1, "file_name": name, "width": 100, "height": 80}
            for i, name in enumerate(names)
        ],
        "categories": [
            {"id": k + 1, "name": n} for k, n in enumerate(["one", HOSTILE_CLASS, "three"])
        ],
        "annotations": annotations,
    }
    (folder / "val.json").write_text(json.dumps(dataset))
    runs = []
    for name, keep in (("first", slice(None)), ("second", slice(None, None, 2))):
        path = folder / name / "results.json"
        path.parent.mkdir()
        path.write_text(json.dumps(results(found)[keep]))
        runs.append(path)
    return Sample(folder / "val.json", root, runs)


def results(found: Detections) -> list[dict]:
    """Detections in COCO's format."""
    xywh = np.hstack([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]])
    columns = (found.image, found.classes, xywh, found.scores)
    return [
        {"image_id": i + 1, "category_id": k + 1, "bbox": box, "score": score}
        for i, k, box, score in zip(*(column.tolist() for column in columns), strict=True)
    ]
