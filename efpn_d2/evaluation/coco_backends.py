"""COCO's matching and accumulation with one of several libraries that return the same numbers."""

import contextlib
import importlib.metadata
import importlib.util
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# Fastest first; the last one is always installed.
BACKENDS = {
    "hotcoco": "hotcoco",
    "faster-coco-eval": "faster_coco_eval",
    "pycocotools": "pycocotools",
}


@dataclass(frozen=True)
class CocoSettings:
    """Parameters of COCO's evaluation."""

    iou_type: str
    iou_thresholds: tuple[float, ...]
    max_dets: tuple[int, ...]
    area_ranges: tuple[tuple[float, float], ...]


def choose_backend(name: str = "auto") -> str:
    """Return the fastest installed backend for "auto", else the named one.

    Raises:
        ValueError: if there is no backend of that name.
        ModuleNotFoundError: if the backend is not installed.
    """
    installed = [x for x, module in BACKENDS.items() if importlib.util.find_spec(module)]
    if name == "auto":
        return installed[0]
    if name not in BACKENDS:
        raise ValueError(
            f"EVALUATION.BACKEND '{name}' is unknown: use auto or one of {', '.join(BACKENDS)}."
        )
    if name not in installed:
        raise ModuleNotFoundError(
            f"EVALUATION.BACKEND is {name}, which is not installed: pip install {name}, or set "
            "EVALUATION.BACKEND auto."
        )
    return name


def backend_version(name: str) -> str:
    """Return the backend with its version, e.g. "pycocotools 2.0.8"."""
    return f"{name} {importlib.metadata.version(name)}"


def accumulate(
    dataset: dict[str, Any],
    results: Sequence[dict[str, Any]],
    settings: CocoSettings,
    backend: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Match and accumulate for T IoU thresholds, K categories, A areas and M limits.

    Args:
        dataset: content of a COCO JSON; neither it nor the results are changed.
        results: detections in COCO format.
        settings: the parameters.
        backend: an installed backend of :data:`BACKENDS`.

    Returns:
        Precision (T, 101, K, A, M), interpolated at recall 0, 0.01, ... 1, and recall (T, K, A, M).
        Categories are ordered by id; those without objects have NaN.
    """
    shape = "segmentation" if settings.iou_type == "segm" else "bbox"
    evaluated, of_image = _slim_dataset(dataset, shape)
    found = [
        {
            "image_id": of_image[result["image_id"]],
            "category_id": result["category_id"],
            shape: result[shape],
            "score": result["score"],
        }
        for result in results
        if result["image_id"] in of_image
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        precision, recall = _RUN[backend](evaluated, found, settings)
    precision, recall = np.array(precision), np.array(recall)
    # All backends use -1 where there is no object.
    return np.where(precision < 0, np.nan, precision), np.where(recall < 0, np.nan, recall)


def _slim_dataset(dataset: dict[str, Any], shape: str) -> tuple[dict[str, Any], dict[Any, int]]:
    """Return the evaluated part of a dataset, and the new number of each image.

    Numbers replace the ids, since only pycocotools supports ids that are not integers.
    """
    images = sorted(dataset["images"], key=lambda image: image["id"])
    of_image = {image["id"]: number for number, image in enumerate(images, start=1)}
    sizes = [(image.get("height", 0), image.get("width", 0)) for image in images]
    keys = {"category_id", "area", "iscrowd", "bbox", shape}
    annotations = [
        {
            **{key: annotation[key] for key in keys if key in annotation},
            # An id of 0 would mean "not matched".
            "id": number,
            "image_id": of_image[annotation["image_id"]],
            # Optional in COCO's format, but not in its code.
            "iscrowd": annotation.get("iscrowd", 0),
        }
        for number, annotation in enumerate(dataset["annotations"], start=1)
        if annotation["image_id"] in of_image
    ]
    slim = {
        # pycocotools 2.0.9 and 2.0.10 copy it into the results and fail without it.
        "info": {},
        "images": [
            {"id": number, "height": height, "width": width, "file_name": ""}
            for number, (height, width) in enumerate(sizes, start=1)
        ],
        "annotations": annotations,
        "categories": [{"id": c["id"], "name": c["name"]} for c in dataset["categories"]],
    }
    return slim, of_image


def _run_pycocotools(
    dataset: dict[str, Any], results: list[dict[str, Any]], settings: CocoSettings
) -> tuple[np.ndarray, np.ndarray]:
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    if results:
        found = coco.loadRes(results)
    else:
        # loadRes does not accept an empty list.
        found = COCO()
        found.dataset = {**dataset, "annotations": []}
        found.createIndex()
    return _evaluate(COCOeval(coco, found, settings.iou_type), settings)


def _run_faster_coco_eval(
    dataset: dict[str, Any], results: list[dict[str, Any]], settings: CocoSettings
) -> tuple[np.ndarray, np.ndarray]:
    from faster_coco_eval import COCO as FasterCOCO
    from faster_coco_eval import COCOeval_faster

    coco = FasterCOCO(dataset)
    evaluation = COCOeval_faster(coco, coco.loadRes(results), settings.iou_type)
    return _evaluate(evaluation, settings)


def _evaluate(evaluation: COCOeval, settings: CocoSettings) -> tuple[np.ndarray, np.ndarray]:
    params = evaluation.params
    params.iouThrs = np.array(settings.iou_thresholds)
    params.maxDets = list(settings.max_dets)
    params.areaRng = [list(area) for area in settings.area_ranges]
    params.areaRngLbl = [str(area) for area in settings.area_ranges]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def _run_hotcoco(
    dataset: dict[str, Any], results: list[dict[str, Any]], settings: CocoSettings
) -> tuple[np.ndarray, np.ndarray]:
    import hotcoco

    coco = hotcoco.COCO(dataset)
    evaluation = hotcoco.COCOeval(coco, coco.load_res(results), settings.iou_type)
    # Reading a parameter returns a copy, so whole values must be set.
    params = evaluation.params
    params.iou_thrs = list(settings.iou_thresholds)
    params.max_dets = list(settings.max_dets)
    params.area_rng = [list(area) for area in settings.area_ranges]
    params.area_rng_lbl = [str(area) for area in settings.area_ranges]
    evaluation.evaluate()
    evaluation.accumulate()
    found = evaluation.eval
    assert found is not None, "accumulate() sets it."
    return found["precision"], found["recall"]


_Runner = Callable[
    [dict[str, Any], list[dict[str, Any]], CocoSettings], tuple[np.ndarray, np.ndarray]
]
_RUN: dict[str, _Runner] = {
    "hotcoco": _run_hotcoco,
    "faster-coco-eval": _run_faster_coco_eval,
    "pycocotools": _run_pycocotools,
}
