"""Detectron2's evaluator of COCO files, with the numbers left to a protocol."""

import logging
import math
import os
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from tabulate import tabulate

from efpn_d2.data.datasets.files import read_json
from efpn_d2.data.datasets.names import unique_names
from efpn_d2.data.datasets.record_checks import (
    ANNOTATION,
    CATEGORY,
    FLAG,
    IMAGE,
    INTEGER,
    NUMBER,
    RESULT,
    SIZE,
    Field,
    check_content,
    check_records,
)
from efpn_d2.run_record import write_json

logger = logging.getLogger(__name__)

_ANNOTATION = (
    Field("id", INTEGER),  # the base class indexes by it
    *ANNOTATION,
    Field("area", NUMBER, required=False),
    Field("iscrowd", FLAG, required=False),
    # What prepared sets of VisDrone-DET have.
    Field("visdrone_category", INTEGER, required=False),
    Field("visdrone_score", NUMBER, required=False),
)


class ProtocolEvaluator(COCOEvaluator):
    """Collects and writes predictions as :class:`COCOEvaluator` does, and evaluates them otherwise.

    With ``output_dir``, ``evaluation_<data set>.json`` in it has the results with the rules they
    were made by.
    """

    def __init__(self, dataset_name: str, *args: Any, **kwargs: Any) -> None:
        """
        Args:
            dataset_name: a registered data set.
            args, kwargs: see :class:`COCOEvaluator`.

        Raises:
            ValueError: a record in the data set's file lacks what is read, or holds something else;
                the message names the first such record.
        """
        has_file = "json_file" in MetadataCatalog.get(dataset_name).as_dict()
        try:
            super().__init__(dataset_name, *args, **kwargs)
        except (AssertionError, AttributeError, KeyError, TypeError, ValueError):
            # The base class indexes the file without a look at it.
            json_file = MetadataCatalog.get(dataset_name).get("json_file")
            if json_file is not None and os.path.isfile(json_file):
                _check_file(read_json(json_file)[0], json_file)
            raise
        _check_file(self._coco_api.dataset, self._metadata.json_file)
        # For keypoints, which the base class evaluates: see _slim_dataset.
        self._coco_api.dataset.setdefault("info", {})
        if has_file:
            self._map_categories()
        self._dataset_name = dataset_name
        # The base class evaluates those of _tasks_from_predictions alone.
        self._own_tasks: Sequence[str] | None = self._tasks
        self._tasks: Sequence[str] | None = None

    def _map_categories(self) -> None:
        """Say which of the file's categories the detector's classes are, if nobody has.

        Detectron2's loader says it, but the base class takes the classes for the file's own ids
        where the data set has not been loaded.
        """
        if "thing_dataset_id_to_contiguous_id" not in self._metadata.as_dict():
            ids = sorted(self._coco_api.getCatIds())
            self._metadata.thing_dataset_id_to_contiguous_id = {k: i for i, k in enumerate(ids)}

    def _class_names(self) -> dict[int, str]:
        """Names of the file's categories by their ids, each another."""
        categories = sorted(self._coco_api.cats.values(), key=lambda category: category["id"])
        names = unique_names(categories)
        return {c["id"]: name for c, name in zip(categories, names, strict=True)}

    @abstractmethod
    def evaluate_results(
        self, results: list[dict[str, Any]], img_ids: Iterable[Any] | None
    ) -> dict[str, dict[str, float]]:
        """Metrics by task.

        Args:
            results: detections of all processes in COCO's format, with the file's category ids.
            img_ids: images to evaluate; None: all.
        """

    @abstractmethod
    def rules(self) -> dict[str, Any]:
        """What the numbers were made by, for people, of JSON types."""

    def _tasks_of(self, results: list[dict[str, Any]]) -> list[str]:
        """The tasks that were asked for, or those that the results are of."""
        return sorted(self._own_tasks or super()._tasks_from_predictions(results))

    def _tasks_from_predictions(self, predictions: list[dict[str, Any]]) -> list[str]:
        return []

    def _eval_predictions(
        self, predictions: list[dict[str, Any]], img_ids: list[Any] | None = None
    ) -> None:
        super()._eval_predictions(predictions, img_ids=img_ids)
        if not self._do_evaluation:
            return
        # The base class has put the file's category ids into them.
        results = [result for image in predictions for result in image["instances"]]
        self._results.update(self.evaluate_results(results, img_ids))
        if self._output_dir:
            name = f"evaluation_{self._dataset_name.replace('/', '_')}.json"
            write_json(
                os.path.join(self._output_dir, name),
                {"data set": self._dataset_name, "rules": self.rules(), "results": self._results},
            )

    def _records_by_image(
        self, results: list[dict[str, Any]], img_ids: Iterable[Any] | None
    ) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]]:
        """Every image's entry, annotations and results, also of those without detections."""
        check_records(results, "results[{}]", RESULT)
        found = defaultdict(list)
        for result in results:
            found[result["image_id"]].append(result)
        chosen = None if img_ids is None else set(img_ids)
        for image_id, image in sorted(self._coco_api.imgs.items()):
            if chosen is None or image_id in chosen:
                yield image, self._coco_api.imgToAnns.get(image_id, []), found[image_id]


def _check_file(content: Any, json_file: str) -> None:
    """Check what all protocols read; a file for a test server has no annotations."""
    lists = {"images": (*IMAGE, *SIZE), "categories": CATEGORY, "annotations": _ANNOTATION}
    if isinstance(content, dict) and "annotations" not in content:
        lists.pop("annotations")
    check_content(content, json_file, **lists)


def percent_cell(value: float, objects: float) -> str:
    """A number of a table; without an object there is none."""
    if not objects:
        return "n/a (0 objects)"
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def pipe_table(rows: list[list[str]], headers: list[str]) -> str:
    """A table of text cells."""
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True)
