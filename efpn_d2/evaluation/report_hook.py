"""The report of :mod:`efpn_d2.report`, written at the end of an evaluation."""

import logging
import os

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.utils import comm

from efpn_d2.evaluation.coco_protocols import PRESETS, CocoProtocol
from efpn_d2.tool_support import error_text

logger = logging.getLogger(__name__)

RESULTS = "coco_instances_results.json"


class ReportEvaluator(DatasetEvaluator):
    """Turns what another evaluator has written into a page; it has no numbers of its own.

    It must come after that evaluator in a :class:`DatasetEvaluators`.
    """

    def __init__(
        self, dataset_name: str, folder: str, rules: CocoProtocol, backend: str = "auto"
    ) -> None:
        """
        Args:
            dataset_name: a registered data set that has a ``json_file`` by the time of the report.
            folder: where the other evaluator writes; the page comes to ``report_<data set>`` there.
            rules: of AP and AR on the page.
            backend: see :func:`efpn_d2.evaluation.coco_backends.choose_backend`.
        """
        self._dataset_name, self._folder = dataset_name, folder
        self._rules, self._backend = rules, backend

    def evaluate(self) -> None:
        """Write the page in the main process; a failure is logged and costs no evaluation."""
        if not comm.is_main_process():
            return
        # Only here: importing this package must not import what draws and reads images.
        from efpn_d2.report import ReportOptions, write_report
        from efpn_d2.report.protocol import report_protocol

        name = self._dataset_name.replace("/", "_")
        metadata = MetadataCatalog.get(self._dataset_name)
        numbers = os.path.join(self._folder, f"evaluation_{name}.json")
        options = ReportOptions(
            title=self._dataset_name,
            protocol=report_protocol(self._rules),
            backend=self._backend,
            evaluations=[numbers] if os.path.isfile(numbers) else [],
        )
        try:
            write_report(
                [os.path.join(self._folder, RESULTS)],
                metadata.json_file,
                metadata.get("image_root") or "",
                os.path.join(self._folder, f"report_{name}"),
                options,
            )
        except (AttributeError, OSError, ValueError) as error:
            logger.error(f"There is no report on '{self._dataset_name}': {error_text(error)}")


def with_report(
    evaluator: DatasetEvaluator, dataset_name: str, folder: str, backend: str = "auto"
) -> DatasetEvaluators:
    """An evaluator that is followed by its report.

    Args:
        evaluator: writes COCO results to ``folder``; if it has a ``protocol`` of the COCO family,
            the page goes by it, else by COCO's.
        dataset_name: a registered data set.
        folder: see :class:`ReportEvaluator`.
        backend: likewise.
    """
    rules = getattr(evaluator, "protocol", None) or PRESETS["coco"]
    return DatasetEvaluators(
        [evaluator, ReportEvaluator(dataset_name, folder, rules, backend)],
    )
