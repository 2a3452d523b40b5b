"""Write the report of :mod:`efpn_d2.report` at the end of an evaluation."""

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
    """Write a report on what another evaluator has read, written and computed.

    It must follow that evaluator in a :class:`DatasetEvaluators`.
    """

    def __init__(
        self, evaluator: ProtocolEvaluator, dataset_name: str, folder: str, backend: str = "auto"
    ) -> None:
        """
        Args:
            evaluator: the page shows the AP and AR of a :class:`SizeBinnedCOCOEvaluator`; for other
                evaluators those of COCO's protocol.
            dataset_name: a registered dataset that has a ``json_file`` when the report is written.
            folder: output folder of the evaluator; the page is written to ``report_<dataset>`` in
                it.
            backend: see :func:`efpn_d2.evaluation.coco_backends.choose_backend`.
        """
        self._evaluator, self._dataset_name, self._folder = evaluator, dataset_name, folder
        self._backend = backend

    def evaluate(self) -> None:
        """Write the page in the main process; a failure is only logged."""
        if not comm.is_main_process():
            return
        try:
            self._write()
        except (AttributeError, OSError, ValueError) as error:
            logger.error(f"Cannot write a report on '{self._dataset_name}': {error_text(error)}")

    def _write(self) -> None:
        # Importing this package must not import the code that draws and reads images.
        from efpn_d2.report import Evaluated, ReportOptions, write_report
        from efpn_d2.report.rules import report_rules

        name = self._dataset_name.replace("/", "_")
        metadata = MetadataCatalog.get(self._dataset_name)
        numbers = os.path.join(self._folder, f"evaluation_{name}.json")
        rules, result = COCO_PROTOCOLS["coco"], None
        if isinstance(self._evaluator, SizeBinnedCOCOEvaluator):
            rules, result = self._evaluator.protocol, self._evaluator.coco_results.get("bbox")
        truth = ground_truth(self._evaluator.dataset, metadata.json_file, rules.ignore_fields)
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
    """Append a report to the evaluator if the config enables it and the protocol supports it.

    Args:
        cfg: a config; ``EVALUATION.REPORT`` and ``EVALUATION.BACKEND`` apply.
        evaluator: evaluator of the dataset; it gets a report if it is a :class:`ProtocolEvaluator`.
        dataset_name: a registered dataset.
        folder: output folder of the evaluator.
    """
    if not cfg.EVALUATION.REPORT or not isinstance(evaluator, ProtocolEvaluator):
        return evaluator
    report = ReportEvaluator(evaluator, dataset_name, folder, cfg.EVALUATION.BACKEND)
    return DatasetEvaluators([evaluator, report])
