#!/usr/bin/env python
"""How many anchors are positive for objects of each size, and how well the best one fits.

Counts the RPN's positives before it samples among them, over the training set of a protocol, with
the anchors and constants of rows of the ablation. Nothing is trained. An anchor counts for the size
of the object that it is matched to; the best one is that of the highest IoU. Needs the set that
benchmarks/ablation.py generates:

    DETECTRON2_DATASETS=output/ablation/tiny/datasets benchmarks/assignment.py

Writes benchmarks/results/assignment.json.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from ablation_rows import ROWS, base_config, row_config
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, Instances
from records import RESULTS
from row_spec import PROTOCOLS, VARIANTS
from torch import Tensor, nn

from efpn_d2.data.image_annotations import load_records
from efpn_d2.dataset_advice.analyze import measure_anchors
from efpn_d2.dataset_advice.detector import describe_detector
from efpn_d2.dataset_advice.objects import ObjectTable, read_objects
from efpn_d2.engine.stages import stage_configs
from efpn_d2.utils.run_record import collect_run_record, timed, write_record
from efpn_d2.utils.tool_support import not_negative

DETECTORS = {
    "FPN": {"iou": "fpn_1x", "nwd": "fpn_nwd", "simd": "fpn_simd"},
    "FPN, anchors by the analysis": {"iou": "fpn_sgdm_anchors"},
    "EFPN slim": {"iou": "slim", "nwd": "slim_nwd", "simd": "slim_simd"},
    "EFPN slim, anchors by the analysis": {"iou": "slim_anchors"},
}


def count_positives(
    model: nn.Module, objects: ObjectTable, edges: Sequence[float]
) -> list[dict[str, Any]]:
    """Positive anchors by size of their objects.

    Args:
        model: a two-stage detector.
        objects: of a data set, at the scale of its input.
        edges: of the bins of sqrt(w h), in pixels of the input; the last is open.

    Returns:
        Of each bin "size", "objects", "positives", "positives_per_object" and
        "objects_without", those that no anchor is positive for.
    """
    bounds = torch.tensor(edges[1:])
    counts = {key: torch.zeros(len(edges), dtype=torch.long) for key in ("objects", "positives")}
    without = torch.zeros(len(edges), dtype=torch.long)
    for image, size in enumerate(objects.image_sizes.tolist()):
        boxes = torch.as_tensor(objects.boxes[objects.images == image], dtype=torch.float32)
        matched = positive_boxes(model, boxes, tuple(size))
        for key, found in (("objects", boxes), ("positives", matched)):
            counts[key] += bin_counts(found, bounds)
        missed = ~(boxes[:, None] == matched.unique(dim=0)[None]).all(dim=2).any(dim=1)
        without += bin_counts(boxes[missed], bounds)
    rows = []
    for i, low in enumerate(edges):
        number, positives = (counts[key][i].item() for key in ("objects", "positives"))
        rows.append(
            {
                "size": [low, edges[i + 1] if i + 1 < len(edges) else None],
                "objects": number,
                "positives": positives,
                "positives_per_object": round(positives / number, 3) if number else None,
                "objects_without": without[i].item(),
            }
        )
    return rows


def best_fits(
    cfg: CfgNode, objects: ObjectTable, edges: Sequence[float]
) -> list[dict[str, float | None]]:
    """How well the best anchor of each object fits it, by size of the objects.

    Args:
        cfg: of a detector.
        objects, edges: see :func:`count_positives`.

    Returns:
        Of each bin "mean_best_iou", and "objects_reached", the share of the objects with an anchor
        of the upper of ``MODEL.RPN.IOU_THRESHOLDS``.
    """
    geometry = describe_detector(cfg)
    best = measure_anchors(objects, geometry).best
    bins = np.digitize(objects.sizes, edges[1:])
    rows = []
    for i in range(len(edges)):
        own = best[bins == i]
        reached = own >= geometry.thresholds[1]
        values = {"mean_best_iou": own, "objects_reached": reached}
        rows.append({k: round(float(v.mean()), 3) if len(v) else None for k, v in values.items()})
    return rows


def positive_boxes(model: nn.Module, boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Of one image, the objects (P, 4) that the P positive anchors are matched to."""
    rpn, divisor = model.proposal_generator, max(model.backbone.size_divisibility, 1)
    padded = [-(-side // divisor) * divisor for side in image_size]
    shapes = model.backbone.output_shape()
    maps = [
        torch.empty(1, 1, *(-(-side // shapes[name].stride) for side in padded))
        for name in rpn.in_features
    ]
    image = Instances(image_size)
    image.gt_boxes = Boxes(boxes)
    with mock.patch.object(RPN, "_subsample_labels", lambda self, label: label):
        (labels,), (matched,) = rpn.label_and_sample_anchors(rpn.anchor_generator(maps), [image])
    return matched[labels == 1]


def bin_counts(boxes: Tensor, bounds: Tensor) -> Tensor:
    """Boxes per bin of sqrt(w h) between ``bounds``."""
    bins = torch.bucketize(Boxes(boxes).area().sqrt(), bounds, right=True)
    return torch.bincount(bins, minlength=len(bounds) + 1)


def measured_config(args: argparse.Namespace, row: str) -> CfgNode:
    """Of what a row trains first."""
    row_cfg = row_config(ROWS[row], PROTOCOLS[args.protocol], args.variant, args.seed, {})
    cfg = stage_configs(row_cfg)[0]
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protocol", default="tiny", choices=PROTOCOLS)
    parser.add_argument("--variant", default="native1x", choices=VARIANTS)
    parser.add_argument("--dataset", default="", help='a COCO JSON or a name; "": the protocol\'s')
    parser.add_argument("--images", type=not_negative, default=0, help="the first ones; 0: all")
    parser.add_argument(
        "--edges", type=float, nargs="+", default=[0.0, 8.0, 16.0], help="of sizes, input pixels"
    )
    parser.add_argument("--seed", type=not_negative, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    common = base_config(PROTOCOLS[args.protocol], args.variant, args.seed)
    dataset = args.dataset or common.DATASETS.TRAIN[0]
    records = load_records(dataset, common.COCO_DATA.REGISTER)[: args.images or None]
    objects = read_objects(records, common.INPUT.MIN_SIZE_TRAIN[0], common.INPUT.MAX_SIZE_TRAIN)
    rows, seconds = [], {}
    with timed(seconds, "count"):
        for detector, names in DETECTORS.items():
            for similarity, row in names.items():
                cfg = measured_config(args, row)
                fits = best_fits(cfg, objects, args.edges)
                counts = count_positives(build_model(cfg), objects, args.edges)
                bins = [{**count, **fit} for count, fit in zip(counts, fits, strict=True)]
                constants = cfg.MODEL.EFPN.SIMILARITY_CONSTANTS
                rows.append(
                    {
                        "detector": detector,
                        "similarity": similarity,
                        "constants": list(constants),
                        "bins": bins,
                    }
                )
                print(detector, similarity, [x["positives_per_object"] for x in bins])
    record = {
        "protocol": args.protocol,
        "variant": args.variant,
        "dataset": dataset,
        "images": len(records),
        "seconds": seconds,
        "rows": rows,
    }
    write_record(args.results / "assignment.json", {**collect_run_record(args.seed), **record})


if __name__ == "__main__":
    main()
