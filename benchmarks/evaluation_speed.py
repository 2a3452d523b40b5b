#!/usr/bin/env python
"""Processor time of COCO's evaluation with each backend that is installed, and how they differ.

Writes benchmarks/results/evaluation_speed.json, from which a table in docs/evaluation.md is made.
"""

import argparse
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from records import RESULTS

from efpn_d2.evaluation import COCO_PROTOCOLS, CocoProtocol, CocoResult, evaluate_coco
from efpn_d2.evaluation.coco_backends import BACKENDS, backend_version, choose_backend
from efpn_d2.utils.run_record import collect_run_record, write_record
from efpn_d2.utils.tool_support import not_negative, positive

SLOWEST = "pycocotools"


@dataclass(frozen=True)
class Case:
    """A data set to generate: its protocol, and how much of what it has."""

    protocol: str
    images: int
    objects_per_image: int
    detections_per_image: int
    classes: int
    image_size: int


CASES = {
    "dense": Case("aitod", 60, 300, 1500, 8, 800),
    "large": Case("coco", 5000, 7, 100, 80, 640),
}


def generate(case: Case, seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A data set of random boxes, and results of which half are objects moved by some pixels."""
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image_id in range(1, case.images + 1):
        boxes, labels = random_boxes(rng, case, case.objects_per_image)
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            fields = {"bbox": box, "area": box[2] * box[3], "category_id": label, "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **fields})
        near = case.detections_per_image // 2
        picked = rng.integers(0, len(boxes), near)
        moved = boxes[picked] + rng.normal(0, 2, (near, 4))
        moved[:, 2:] = np.maximum(moved[:, 2:], 1)
        others, other_labels = random_boxes(rng, case, case.detections_per_image - near)
        found = np.vstack([moved, others]).tolist()
        found_labels = [*labels[picked].tolist(), *other_labels.tolist()]
        scores = rng.random(len(found)).tolist()
        for box, label, score in zip(found, found_labels, scores, strict=True):
            row = {"image_id": image_id, "category_id": label, "bbox": box, "score": score}
            results.append(row)
    side = case.image_size
    images = [
        {"id": i, "file_name": "", "width": side, "height": side} for i in range(1, case.images + 1)
    ]
    categories = [{"id": i, "name": str(i)} for i in range(1, case.classes + 1)]
    return {"images": images, "annotations": annotations, "categories": categories}, results


def random_boxes(rng: np.random.Generator, case: Case, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, 4) boxes with sides of 4 to 64 px, and (count,) ids of categories."""
    sides = np.exp(rng.uniform(np.log(4), np.log(64), (count, 2)))
    corners = rng.uniform(0, case.image_size - 64, (count, 2))
    return np.hstack([corners, sides]), rng.integers(1, case.classes + 1, count)


def measure(
    protocol: CocoProtocol,
    backend: str,
    data: tuple[dict[str, Any], list[dict[str, Any]]],
    repeats: int,
) -> tuple[float, CocoResult]:
    """The least processor seconds of some evaluations, from Python's dicts to the metrics."""
    seconds = []
    for _ in range(repeats):
        # Of all threads, so that neither other processes nor more cores change the comparison.
        start = time.process_time()
        result = evaluate_coco(*data, protocol, backend=backend)
        result.metrics()
        seconds.append(time.process_time() - start)
    return min(seconds), result


def compare(case: Case, backends: list[str], seed: int, repeats: int) -> dict[str, Any]:
    """Times of each backend, how many times faster than the slowest it is, and how far off."""
    data = generate(case, seed)
    protocol = COCO_PROTOCOLS[case.protocol]
    # What no backend computes takes the same time with each.
    without_olrp = replace(protocol, olrp=False)
    rows: dict[str, Any] = {}
    reference = None
    for backend in backends:
        count = 1 if backend == SLOWEST else repeats
        seconds, result = measure(without_olrp, backend, data, count)
        reference = result if reference is None else reference
        difference = np.abs(result.precision - reference.precision)
        rows[backend] = {
            "seconds": round(seconds, 2),
            "times_faster": round(rows[SLOWEST]["seconds"] / seconds, 1) if rows else 1.0,
            "largest_difference": float(np.nan_to_num(difference).max()),
            "AP": result.metrics()["AP"],
        }
        print(f"{backend:>20}: {rows[backend]}", flush=True)
    seconds, _ = measure(protocol, backends[-1], data, repeats)
    return {**vars(case), "rows": rows, "whole_protocol_seconds": round(seconds, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=not_negative, default=0)
    parser.add_argument(
        "--repeats", type=positive, default=3, help="of all backends but the slowest"
    )
    args = parser.parse_args()
    backends = [SLOWEST]
    for name in reversed(BACKENDS):
        try:
            backends += [choose_backend(name)] if name != SLOWEST else []
        except ModuleNotFoundError as error:
            print(error)
    cases = {}
    for name, case in CASES.items():
        print(f"{name}: {case}", flush=True)
        cases[name] = compare(case, backends, args.seed, args.repeats)
    record = {
        "repeats": args.repeats,
        "backends": [backend_version(name) for name in backends],
        "cases": cases,
    }
    write_record(RESULTS / "evaluation_speed.json", {**collect_run_record(args.seed), **record})


if __name__ == "__main__":
    main()
