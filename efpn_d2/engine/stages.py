"""Run the stages base -> distill -> head from one config and skip finished ones."""

import contextlib
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from efpn_d2.data.mappers import build_distillation_mapper, build_train_mapper
from efpn_d2.engine.distillation import DistillationTrainer
from efpn_d2.engine.stage_folder import note_training, output_path, record_path, same_training
from efpn_d2.engine.training_loop import training_options
from efpn_d2.modeling.config_checks import is_enhanced
from efpn_d2.modeling.stage_config import stage_config
from efpn_d2.modeling.stage_table import STAGES, StageError, get_stage
from efpn_d2.modeling.stock_names import ENHANCED_BUILDERS, stock_name
from efpn_d2.utils.logs import without_messages
from efpn_d2.utils.run_record import collect_run_record, peak_memory_gib, write_record

logger = logging.getLogger(__name__)


def stage_configs(cfg: CfgNode) -> list[CfgNode]:
    """Return one config per entry of ``DISTILL.SCHEDULE``, each starting from the previous output.

    A stage's output folder is ``OUTPUT_DIR/<stage>``. Learning-rate steps and warm-up scale with
    the number of iterations.

    Raises:
        StageError: if the schedule is empty or an entry is not [stage, iterations, learning rate].
    """
    schedule = cfg.DISTILL.SCHEDULE
    if not schedule or not all(_is_stage(entry) for entry in schedule):
        raise StageError(
            f"DISTILL.SCHEDULE is {schedule}: list the stages as [stage, iterations, learning "
            f"rate], each stage one of {', '.join(filter(None, STAGES))}."
        )
    configs = []
    weights = cfg.MODEL.WEIGHTS
    for stage, iterations, learning_rate in schedule:
        own = cfg.clone()
        own.defrost()
        own.DISTILL.STAGE = stage
        own.OUTPUT_DIR = str(Path(cfg.OUTPUT_DIR, stage))
        own.MODEL.WEIGHTS = weights
        share = iterations / cfg.SOLVER.MAX_ITER
        own.SOLVER.MAX_ITER = iterations
        steps = (round(step * share) for step in cfg.SOLVER.STEPS)
        # In very short stages the last step may be rounded up to the end, which the schedule
        # refuses.
        own.SOLVER.STEPS = tuple(step for step in steps if step < iterations)
        own.SOLVER.WARMUP_ITERS = round(cfg.SOLVER.WARMUP_ITERS * share)
        own.SOLVER.BASE_LR = float(learning_rate)
        if get_stage(stage).stock:
            _use_stock_names(own)
        with _refusals_of(stage):
            own = stage_config(own)
        own.freeze()
        configs.append(own)
        weights = str(output_path(own))
    return configs


def _is_stage(entry: Any) -> bool:
    if not isinstance(entry, list | tuple) or len(entry) != 3:
        return False
    stage, iterations, learning_rate = entry
    known = stage in list(STAGES)[1:] and isinstance(iterations, int)
    return known and iterations > 0 and isinstance(learning_rate, int | float) and learning_rate > 0


def _use_stock_names(cfg: CfgNode) -> None:
    parts = []
    if cfg.MODEL.EFPN_BS.DCLOSS_ENABLED or cfg.MODEL.EFPN_BS.FBSM_ENABLED:
        # Heads that support these losses, on the stock features.
        cfg.MODEL.EFPN.ROUTING, cfg.MODEL.EFPN.RPN_ON_P2_PRIME = "none", False
    elif cfg.MODEL.EFPN.SIMILARITY != "iou":
        # The RPN that supports the similarity, on the stock features.
        cfg.MODEL.EFPN.RPN_ON_P2_PRIME = False
        parts.append("ROI_HEADS")
    else:
        parts += ["PROPOSAL_GENERATOR", "ROI_HEADS"]
    for part in parts:
        cfg.MODEL[part].NAME = stock_name(f"MODEL.{part}.NAME", cfg.MODEL[part].NAME)
    stock_builder = cfg.MODEL.BACKBONE.NAME.replace("_efpn_", "_fpn_")
    if "RetinaNet" not in cfg.MODEL.META_ARCHITECTURE and stock_builder in BACKBONE_REGISTRY:
        cfg.MODEL.BACKBONE.NAME = stock_builder
    if is_enhanced(cfg):
        # The stock pyramid with the modules inserted into it, except those on P'2.
        name = cfg.MODEL.BACKBONE.NAME
        cfg.MODEL.BACKBONE.NAME = ENHANCED_BUILDERS.get(name, name)
        cfg.MODEL.SGDM.ON_LEVELS = [x for x in cfg.MODEL.SGDM.ON_LEVELS if x != "p2_prime"]


def run_stages(
    cfg: CfgNode, trainer_class: type[DistillationTrainer] = DistillationTrainer
) -> list[dict[str, Any]]:
    """Train the stages of ``DISTILL.SCHEDULE`` one after the other.

    A finished stage is skipped and an interrupted one resumed. Each stage logs its progress and
    remaining time.

    Args:
        cfg: a config; its datasets must be registered.
        trainer_class: trains and evaluates the stages.

    Returns:
        The stages' run records, as written to ``OUTPUT_DIR/<stage>/record.json``.

    Raises:
        StageError: see :func:`stage_configs`; also if the folder holds stages of another config, or
            a stage has an error, which is found before any stage is trained.
    """
    configs = stage_configs(cfg)
    to_train = [i for i in range(len(configs)) if not _is_finished(configs, i)]
    for own in configs:
        _check_folder(own)
    outputs = [str(output_path(own)) for own in configs]
    for i in to_train:
        _check_stage(configs[i], trainer_class, outputs[:i])
    records = []
    for i, own in enumerate(configs):
        logger.info(f"Stage {i + 1} of {len(configs)}: {own.DISTILL.STAGE}, {own.OUTPUT_DIR}")
        if i in to_train:
            _train(own, trainer_class)
            comm.synchronize()
        else:
            logger.info("The stage is already finished.")
        records.append(json.loads(record_path(own).read_text()))
    return records


def _is_finished(configs: list[CfgNode], i: int) -> bool:
    """Check for the record of a stage, and for its weights if the next stage still needs them."""
    is_read = i + 1 < len(configs) and not record_path(configs[i + 1]).exists()
    return record_path(configs[i]).exists() and (output_path(configs[i]).is_file() or not is_read)


def _check_folder(cfg: CfgNode) -> None:
    if not same_training(cfg):
        raise StageError(
            f"'{cfg.OUTPUT_DIR}' holds this stage trained with another config (compare its "
            "config.yaml): choose another OUTPUT_DIR or delete the folder. To continue from "
            "existing weights, set MODEL.WEIGHTS and remove their stages from DISTILL.SCHEDULE."
        )


def _check_stage(
    cfg: CfgNode, trainer_class: type[DistillationTrainer], to_come: list[str]
) -> None:
    """Find the errors of a stage before training earlier stages, whose outputs are ``to_come``."""
    on_cpu = cfg.clone()
    on_cpu.defrost()
    on_cpu.MODEL.DEVICE = "cpu"
    if cfg.DISTILL.TEACHER_WEIGHTS in to_come:
        on_cpu.DISTILL.TEACHER_WEIGHTS = ""
    distills = get_stage(cfg.DISTILL.STAGE).distills
    with _refusals_of(cfg.DISTILL.STAGE):
        # Do not log the model: build_model() prints all of it.
        with without_messages("detectron2.engine.defaults"):
            trainer_class.build_model(on_cpu)
        (build_distillation_mapper if distills else build_train_mapper)(on_cpu)
        training_options(on_cpu)


@contextlib.contextmanager
def _refusals_of(stage: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError) as error:
        text = str(error.args[0] if isinstance(error, KeyError) else error)
        raise StageError(f"stage {stage}: {text}") from error


class _Stopwatch(HookBase):
    """Measure the seconds of training, including those before an interruption."""

    seconds = 0.0

    def before_step(self) -> None:
        """Start the measurement of a step."""
        self._start = time.perf_counter()

    def after_step(self) -> None:
        """Add the duration of the step."""
        self.seconds += time.perf_counter() - self._start

    def state_dict(self) -> dict[str, float]:
        """Return the seconds so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from the seconds of an interrupted training."""
        self.seconds = state["seconds"]


def _train(cfg: CfgNode, trainer_class: type[DistillationTrainer]) -> None:
    # New weights depend on the seed only, not on what ran before in this process.
    seed_all_rng(cfg.SEED if cfg.SEED >= 0 else None)
    with _refusals_of(cfg.DISTILL.STAGE):
        trainer = trainer_class(cfg)
    stopwatch = _Stopwatch()
    trainer.register_hooks([stopwatch])
    if comm.is_main_process():
        note_training(cfg)
    with _refusals_of(cfg.DISTILL.STAGE):
        trainer.resume_or_load(resume=True)
    if trainer.start_iter < cfg.SOLVER.MAX_ITER:
        trainer.train()
    elif comm.is_main_process() and not output_path(cfg).is_file():
        # The training was stopped between its last checkpoint and its output.
        trainer.checkpointer.save(output_path(cfg).stem, iteration=trainer.start_iter - 1)
    # The training may have been stopped before its final evaluation.
    metrics = getattr(trainer, "_last_eval_results", None)
    if metrics is None:
        metrics = trainer_class.test(cfg, trainer.model)
    if comm.is_main_process():
        record = {
            **collect_run_record(trainer.seed),
            "stage": cfg.DISTILL.STAGE,
            "config": cfg.dump(),
            "seconds": round(stopwatch.seconds, 1),
            "peak_memory_gib": peak_memory_gib(cfg.MODEL.DEVICE),
            "metrics": metrics,
        }
        write_record(record_path(cfg), record)
