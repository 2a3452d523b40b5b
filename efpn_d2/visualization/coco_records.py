"""Image records for a sheet from a registered data set and a file of COCO results."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from efpn_d2.data.datasets.record_checks import RESULT, check_records
from efpn_d2.visualization.sheet import ImageRecord


def load_image_records(dataset_name: str, results_file: str | Path) -> list[ImageRecord]:
    """Join a data set's ground truth with the detections that a COCO evaluator has written.

    Args:
        dataset_name: a registered data set with COCO metadata.
        results_file: ``coco_instances_results.json`` of an evaluation on that data set.

    Returns:
        One record per image of the data set, in its order.

    Raises:
        OSError: the file of results is missing.
        ValueError: a result lacks what is read, or holds something else.
    """
    images = DatasetCatalog.get(dataset_name)  # before the metadata: loading completes them
    to_class = MetadataCatalog.get(dataset_name).thing_dataset_id_to_contiguous_id
    by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    results = json.loads(Path(results_file).read_text())
    check_records(results, f"results[{{}}] of {results_file}", RESULT)
    for detection in results:
        by_image[detection["image_id"]].append(detection)
    return [_record(image, by_image[image["image_id"]], to_class) for image in images]


def _record(
    image: dict[str, Any], detections: list[dict[str, Any]], to_class: dict[int, int]
) -> ImageRecord:
    truth = image["annotations"]
    return ImageRecord(
        image["file_name"],
        gt_boxes=np.array(
            [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in truth]
        ),
        gt_classes=np.array([a["category_id"] for a in truth], dtype=int),
        gt_crowd=np.array([a.get("iscrowd", 0) for a in truth], dtype=bool),
        boxes=np.array(
            [BoxMode.convert(d["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) for d in detections]
        ),
        scores=np.array([d["score"] for d in detections]),
        classes=np.array([to_class[d["category_id"]] for d in detections], dtype=int),
    )
