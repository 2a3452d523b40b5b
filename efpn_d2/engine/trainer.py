"""Detectron2's trainer with resumable data, safe checkpoints and evaluation by metadata."""

import functools
import os
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultTrainer, HookBase, SimpleTrainer, defaults
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import nn
from torch.utils.data import DataLoader

from efpn_d2.checkpoint import EFPNCheckpointer
from efpn_d2.config import check_input_format
from efpn_d2.data.mappers import DetectionMapper, build_train_mapper
from efpn_d2.engine.batch_norm import ShareBatchNorm
from efpn_d2.engine.report_hook import add_report
from efpn_d2.engine.resumable_loader import build_resumable_train_loader
from efpn_d2.engine.resume_hook import ResumeHook
from efpn_d2.engine.resumption import optimizer_settings, warn_of_resumption
from efpn_d2.engine.training_loop import TrainingOptions, build_training_loop, training_options
from efpn_d2.evaluation import build_evaluator
from efpn_d2.modeling.config_checks import check_config
from efpn_d2.modeling.meta_arch import EFPNWithTTA


class EFPNTrainer(DefaultTrainer):
    """:class:`DefaultTrainer` whose resumed training equals the uninterrupted one bit for bit.

    It builds its own training data loader, optimizer step (see :mod:`.training_loop`) and
    checkpointer, two more hooks, and the evaluator that the dataset's metadata name. Data
    parallelism, gradient clipping, schedule and logging are Detectron2's. Exact resumption excludes
    ``TEST.PRECISE_BN``, whose statistics depend on how often it ran.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """
        Args:
            cfg: a config.

        Raises:
            ValueError: see :func:`training_options`.
            RuntimeError: see :func:`training_options`.
        """
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        options = training_options(cfg)
        plain = cfg.clone()
        plain.defrost()
        plain.SOLVER.AMP.ENABLED = False  # the loop of the base class is replaced below
        with _ddp_without_device_ids() if cfg.MODEL.DEVICE == "cpu" else nullcontext():
            super().__init__(plain)
        self.cfg = cfg
        self._trainer: SimpleTrainer = self._replace_loop(options)

    def _replace_loop(self, options: TrainingOptions) -> SimpleTrainer:
        loop: SimpleTrainer = vars(self)["_trainer"]
        return build_training_loop(options, loop.model, loop.data_loader, loop.optimizer)

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Build the model as the base class does, after checking the config.

        Raises:
            ValueError: if the input images do not have three colors; see also :func:`check_config`.
        """
        check_input_format(cfg)
        check_config(cfg)
        return super().build_model(cfg)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> DataLoader[Any]:
        """Build a resumable loader with the mapper that ``cfg.DATA`` selects."""
        return build_resumable_train_loader(cfg, mapper=build_train_mapper(cfg))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> DataLoader[Any]:
        """Build Detectron2's loader with :class:`DetectionMapper`."""
        mapper = DetectionMapper(cfg, is_train=False)
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None
    ) -> DatasetEvaluator:
        """Build the evaluator of a dataset, with a report if ``EVALUATION.REPORT`` is set.

        See :func:`efpn_d2.evaluation.build_evaluator`.
        """
        folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
        evaluator = build_evaluator(cfg, dataset_name, folder)
        return add_report(cfg, evaluator, dataset_name, folder)

    @classmethod
    def test_at_scales(cls, cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
        """Evaluate at the scales of ``TEST.AUG``, each resized from the original image.

        Returns:
            The result of ``test`` with the suffix ``_TTA`` on all keys: ``{"bbox_TTA": {"AP":
            ...}}``.

        Raises:
            ValueError: see :class:`EFPNWithTTA`.
        """
        model = EFPNWithTTA(cfg, model)
        cfg = cfg.clone()
        cfg.defrost()
        cfg.INPUT.MIN_SIZE_TEST = 0  # the data loader does not resize
        folder = os.path.join(cfg.OUTPUT_DIR, "inference_TTA")
        evaluators = [cls.build_evaluator(cfg, name, folder) for name in cfg.DATASETS.TEST]
        results = cls.test(cfg, model, evaluators)
        return OrderedDict((f"{key}_TTA", value) for key, value in results.items())

    def build_checkpointer(self) -> EFPNCheckpointer:
        """Build the checkpointer of this training, which writes to ``cfg.OUTPUT_DIR``."""
        return EFPNCheckpointer(
            self.model,
            self.cfg.OUTPUT_DIR,
            init_from_stock=self.cfg.MODEL.EFPN.INIT_FROM_STOCK,
            trainer=weakref.proxy(self),
        )

    def resume_or_load(self, resume: bool = True) -> None:
        """Resume or load as the base class does, and warn of settings that differ from the config.

        Raises:
            ValueError: if the checkpoint is of a different detector.
        """
        resumes = resume and self.checkpointer.has_checkpoint()
        configured = optimizer_settings(self._trainer.optimizer)
        super().resume_or_load(resume)
        if resumes:
            warn_of_resumption(self, configured)

    def build_hooks(self) -> list[HookBase]:
        """Build Detectron2's hooks, after those that make the training resumable.

        Raises:
            ValueError: if precise batch normalization is enabled for a model that computes C'2.
        """
        if self.cfg.TEST.PRECISE_BN.ENABLED and _runs_stage2_twice(self.model):
            raise ValueError(
                "TEST.PRECISE_BN.ENABLED needs modules that run once per image, but stage 2 runs "
                "a second time for C'2: set it False, or set MODEL.EFPN.PRESET slim."
            )
        # These hooks are the first users of the checkpointer.
        self.checkpointer = self.build_checkpointer()
        self._resume_hook = ResumeHook(self.data_loader)
        share = ShareBatchNorm(self.cfg.SOLVER.CHECKPOINT_PERIOD, self.cfg.TEST.EVAL_PERIOD)
        return [self._resume_hook, share, *super().build_hooks()]

    @property
    def seed(self) -> int:
        """The base seed: ``cfg.SEED``, or a random one if that is negative."""
        return self._resume_hook.seed


def _runs_stage2_twice(model: nn.Module) -> bool:
    return any(getattr(m, "texture", "") == "c2_prime" for m in model.modules())


@contextmanager
def _ddp_without_device_ids() -> Iterator[None]:
    """Let ``DefaultTrainer``, which always passes device ids, use data parallelism on the CPU."""
    create_ddp_model = defaults.create_ddp_model
    defaults.create_ddp_model = functools.partial(create_ddp_model, device_ids=None)
    try:
        yield
    finally:
        defaults.create_ddp_model = create_ddp_model
