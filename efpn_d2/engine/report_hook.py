"""The report of :mod:`efpn_d2.report`, written at the end of an evaluation."""

import logging
import os

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.utils import comm

from efpn_d2.evaluation.coco_arrays import ground_truth
from efpn_d2.evaluation.coco_evaluator import SizeBinnedCOCOEvaluator
from efpn_d2.evaluation.coco_protocols import COCO_PROTOCOLS
from efpn_d2.evaluation.protocol_evaluator import ProtocolEvaluator
from efpn_d2.utils.tool_support import error_text

logger = logging.getLogger(__name__)

RESULTS = "coco_instances_results.json"


class ReportEvaluator(DatasetEvaluator):
    """Turns what another evaluator has read, written and computed into a page.

    It must come after that evaluator in a :class:`DatasetEvaluators`.
    """

    def __init__(
        self, evaluator: ProtocolEvaluator, dataset_name: str, folder: str, backend: str = "auto"
    ) -> None:
        """
        Args:
            evaluator: if it is a :class:`SizeBinnedCOCOEvaluator`, the page has its AP and AR, else
                those of COCO's protocol.
            dataset_name: a registered data set that has a ``json_file`` by the time of the report.
            folder: where the evaluator writes; the page comes to ``report_<data set>`` there.
            backend: see :func:`efpn_d2.evaluation.coco_backends.choose_backend`.
        """
        self._evaluator, self._dataset_name, self._folder = evaluator, dataset_name, folder
        self._backend = backend

    def evaluate(self) -> None:
        """Write the page in the main process; a failure is logged and costs no evaluation."""
        if not comm.is_main_process():
            return
        try:
            self._write()
        except (AttributeError, OSError, ValueError) as error:
            logger.error(f"There is no report on '{self._dataset_name}': {error_text(error)}")

    def _write(self) -> None:
        # Only here: importing this package must not import what draws and reads images.
        from efpn_d2.report import Evaluated, ReportOptions, write_report
        from efpn_d2.report.rules import report_rules

        name = self._dataset_name.replace("/", "_")
        metadata = MetadataCatalog.get(self._dataset_name)
        numbers = os.path.join(self._folder, f"evaluation_{name}.json")
        rules, result = COCO_PROTOCOLS["coco"], None
        if isinstance(self._evaluator, SizeBinnedCOCOEvaluator):
            rules, result = self._evaluator.protocol, self._evaluator.coco_results.get("bbox")
        truth = ground_truth(self._evaluator.dataset, metadata.json_file, rules.excused_fields)
        write_report(
            [os.path.join(self._folder, RESULTS)],
            metadata.json_file,
            metadata.get("image_root") or "",
            os.path.join(self._folder, f"report_{name}"),
            ReportOptions(
                title=self._dataset_name,
                rules=report_rules(rules),
                backend=self._backend,
                evaluations=[numbers] if os.path.isfile(numbers) else [],
            ),
            Evaluated(truth, result),
        )


def add_report(
    cfg: CfgNode, evaluator: DatasetEvaluator, dataset_name: str, folder: str
) -> DatasetEvaluator:
    """The evaluator, followed by a report if the config asks for one and the protocol allows it.

    Args:
        cfg: a config; ``EVALUATION.REPORT`` and ``EVALUATION.BACKEND`` apply.
        evaluator: of the data set; one that is no :class:`ProtocolEvaluator` gets no report.
        dataset_name: a registered data set.
        folder: where the evaluator writes.
    """
    if not cfg.EVALUATION.REPORT or not isinstance(evaluator, ProtocolEvaluator):
        return evaluator
    report = ReportEvaluator(evaluator, dataset_name, folder, cfg.EVALUATION.BACKEND)
    return DatasetEvaluators([evaluator, report])
