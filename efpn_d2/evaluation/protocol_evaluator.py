"""Detectron2's COCO evaluator with the metrics left to a protocol."""

import logging
import math
import os
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from tabulate import tabulate

from efpn_d2.data.coco.names import unique_names
from efpn_d2.data.coco.record_checks import (
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
from efpn_d2.utils.files import read_json
from efpn_d2.utils.run_record import write_record

logger = logging.getLogger(__name__)


class ProtocolEvaluator(COCOEvaluator):
    """Collect and write predictions as :class:`COCOEvaluator` does, and evaluate by a protocol.

    With ``output_dir``, the results and their rules are written to ``evaluation_<dataset>.json`` in
    it. The annotation file is checked once, when the evaluator is built.
    """

    #: Fields that the protocol reads from each annotation.
    annotation_fields: ClassVar[tuple[Field, ...]] = (
        Field("id", INTEGER),  # the base class indexes by it
        *ANNOTATION,
        Field("area", NUMBER, required=False),
        Field("iscrowd", FLAG, required=False),
        # Fields of prepared VisDrone-DET datasets.
        Field("visdrone_category", INTEGER, required=False),
        Field("visdrone_score", NUMBER, required=False),
    )

    def __init__(self, dataset_name: str, *args: Any, **kwargs: Any) -> None:
        """
        Args:
            dataset_name: a registered dataset.
            args: see :class:`COCOEvaluator`.
            kwargs: see :class:`COCOEvaluator`.

        Raises:
            ValueError: if a field of a record in the dataset's file is missing or invalid; the
                message names the first such record.
        """
        has_file = "json_file" in MetadataCatalog.get(dataset_name).as_dict()
        try:
            super().__init__(dataset_name, *args, **kwargs)
        except (AssertionError, AttributeError, KeyError, TypeError, ValueError):
            # The base class indexes the file without checking it.
            json_file = MetadataCatalog.get(dataset_name).get("json_file")
            if json_file is not None and os.path.isfile(json_file):
                self._check_file(read_json(json_file)[0], json_file)
            raise
        self._check_file(self.dataset, self._metadata.json_file)
        # Needed for keypoints, which the base class evaluates.
        self.dataset.setdefault("info", {})
        if has_file:
            self._map_categories()
        self._dataset_name = dataset_name
        # The base class itself evaluates no task, unless a subclass names some.
        self._own_tasks: Sequence[str] | None = self._tasks
        self._tasks: Sequence[str] | None = None

    @classmethod
    def _check_file(cls, content: Any, json_file: str) -> None:
        """Check the fields that are read; a file for a test server has no annotations."""
        lists = {"images": (*IMAGE, *SIZE), "categories": CATEGORY}
        if not isinstance(content, dict) or "annotations" in content:
            lists["annotations"] = cls.annotation_fields
        check_content(content, json_file, **lists)

    @property
    def dataset(self) -> dict[str, Any]:
        """The content of the annotation file."""
        return self._coco_api.dataset

    def _map_categories(self) -> None:
        """Map the file's categories to the detector's classes if the metadata have no mapping.

        Detectron2's loader adds the mapping; without it the base class would use the classes as
        category ids.
        """
        if "thing_dataset_id_to_contiguous_id" not in self._metadata.as_dict():
            ids = sorted(self._coco_api.getCatIds())
            self._metadata.thing_dataset_id_to_contiguous_id = {k: i for i, k in enumerate(ids)}

    def _class_names(self) -> dict[int, str]:
        """Return unique names of the file's categories by id."""
        categories = sorted(self._coco_api.cats.values(), key=lambda category: category["id"])
        names = unique_names(categories)
        return {c["id"]: name for c, name in zip(categories, names, strict=True)}

    @abstractmethod
    def evaluate_results(
        self, results: list[dict[str, Any]], img_ids: Iterable[Any] | None
    ) -> dict[str, dict[str, float]]:
        """Compute metrics by task.

        Args:
            results: detections of all processes in COCO format, with the file's category ids.
            img_ids: images to evaluate; None: all.
        """

    @abstractmethod
    def rules(self) -> dict[str, Any]:
        """Describe the rules of the metrics for readers, as JSON types."""

    def _tasks_of(self, results: list[dict[str, Any]]) -> list[str]:
        """Return the configured tasks, or those found in the results."""
        return sorted(self._own_tasks or super()._tasks_from_predictions(results))

    def _tasks_from_predictions(self, predictions: list[dict[str, Any]]) -> list[str]:
        return []

    def _eval_predictions(
        self, predictions: list[dict[str, Any]], img_ids: list[Any] | None = None
    ) -> None:
        super()._eval_predictions(predictions, img_ids=img_ids)
        if not self._do_evaluation:
            return
        # The base class has replaced the classes by the file's category ids.
        results = [result for image in predictions for result in image["instances"]]
        self._results.update(self.evaluate_results(results, img_ids))
        if self._output_dir:
            name = f"evaluation_{self._dataset_name.replace('/', '_')}.json"
            write_record(
                os.path.join(self._output_dir, name),
                {"data set": self._dataset_name, "rules": self.rules(), "results": self._results},
            )

    def _records_by_image(
        self, results: list[dict[str, Any]], img_ids: Iterable[Any] | None
    ) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]]:
        """Yield the entry, annotations and results of every image, also without detections."""
        check_records(results, "results[{}]", RESULT)
        found = defaultdict(list)
        for result in results:
            found[result["image_id"]].append(result)
        chosen = None if img_ids is None else set(img_ids)
        for image_id, image in sorted(self._coco_api.imgs.items()):
            if chosen is None or image_id in chosen:
                yield image, self._coco_api.imgToAnns.get(image_id, []), found[image_id]


def percent_cell(value: float, objects: float) -> str:
    """Format a number for a table; "n/a" if it is NaN or there are no objects."""
    if not objects:
        return "n/a (0 objects)"
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def pipe_table(rows: list[list[str]], headers: list[str]) -> str:
    """Format text cells as a table."""
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True)
