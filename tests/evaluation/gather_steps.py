"""Evaluate in two processes, each with half of the images; ``python -m ... <folder>``."""

import json
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.engine import launch
from detectron2.utils import comm

from efpn_d2.engine import run_and_leave
from efpn_d2.evaluation import PRESETS, SizeBinnedCOCOEvaluator, TT100KEvaluator, VisDroneEvaluator
from tests.evaluation.coco_files import instances, random_dataset, write

NAME = "gather_test"


def evaluate(folder: Path, images: range, distributed: bool) -> dict[str, dict]:
    """Results of each evaluator by name, of the detections on these images."""
    coco, results = random_dataset(np.random.default_rng(0))
    # The last two images are without any detection.
    rows = {i: [] for i in images}
    for r in (r for r in results if r["image_id"] in images and r["image_id"] < 7):
        rows[r["image_id"]].append([r["category_id"] - 1, r["score"], *r["bbox"]])
    predictions = {i: instances(row) for i, row in rows.items()}
    metadata = MetadataCatalog.get(NAME)
    metadata.json_file = write(folder / f"{images.start}_{images.stop}.json", coco)
    metadata.thing_dataset_id_to_contiguous_id = {1: 0, 2: 1, 3: 2}
    options = {"distributed": distributed}
    evaluators = {
        "aitod": SizeBinnedCOCOEvaluator(NAME, protocol=PRESETS["aitod"], **options),
        "tt100k": TT100KEvaluator(NAME, classes=["a", "b"], **options),
        "visdrone": VisDroneEvaluator(NAME, **options),
    }
    found = {}
    for name, evaluator in evaluators.items():
        evaluator.reset()
        for image_id, prediction in predictions.items():
            evaluator.process([{"image_id": image_id}], [{"instances": prediction}])
        found[name] = evaluator.evaluate()
    return found


def main(folder: str) -> None:
    torch.set_num_threads(1)
    rank = comm.get_rank()
    found = evaluate(Path(folder), range(1 + 4 * rank, 5 + 4 * rank), distributed=True)
    (Path(folder) / f"rank{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    # A collective that one of the processes never reaches ends the run after this time.
    launch(
        run_and_leave, 2, dist_url="auto", args=(main, sys.argv[1]), timeout=timedelta(seconds=60)
    )
