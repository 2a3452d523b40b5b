"""Optimizer step with gradient accumulation and mixed precision on any device.

``SOLVER.IMS_PER_BATCH`` remains the number of images per optimizer step.
``TRAINING.ACCUMULATE_GRADIENTS`` cuts the batch of each process into equal parts that are processed
one after the other. Accumulation therefore changes neither the images of an iteration nor learning
rate, schedule, ``SOLVER.REFERENCE_WORLD_SIZE``, checkpoints and logs, and a training can resume
with a different number of parts.

The loss of a step is the mean over its parts. It equals the loss of the whole batch if that is a
mean over images or over a fixed number of samples per image, as the detector's losses are while
enough boxes can be sampled. Quantities that are counted per batch are counted per part: statistics
of BatchNorm, padding, the cells in Eq. 7, and ``DISTILL.OHEM_BATCH``.
"""

import contextlib
import functools
import logging
import operator
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, SimpleTrainer
from detectron2.modeling.poolers import ROIPooler
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from efpn_d2.config import add_efpn_config

logger = logging.getLogger(__name__)

PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class TrainingOptions(NamedTuple):
    """Options of an optimizer step."""

    #: Number of parts of a process's batch.
    micro_batches: int
    #: Data type of autocast; None: no mixed precision.
    precision: torch.dtype | None


def training_options(cfg: CfgNode) -> TrainingOptions:
    """Return the options in ``SOLVER.AMP`` and ``TRAINING``, with defaults if that node is missing.

    Raises:
        ValueError: if a value of ``TRAINING`` is invalid, or the batch cannot be divided by it.
        RuntimeError: if this torch is too old for mixed precision.
    """
    if "TRAINING" not in cfg:
        cfg = cfg.clone()
        cfg.defrost()
        add_efpn_config(cfg)
    micro_batches, precision = cfg.TRAINING.ACCUMULATE_GRADIENTS, cfg.TRAINING.AMP_PRECISION
    if not isinstance(micro_batches, int) or micro_batches < 1:
        raise ValueError(
            f"TRAINING.ACCUMULATE_GRADIENTS is {micro_batches}: use 1, or the number of parts of a "
            "batch."
        )
    if precision not in PRECISIONS:
        raise ValueError(
            f"TRAINING.AMP_PRECISION is '{precision}', which does not exist: use one of "
            f"{', '.join(PRECISIONS)}."
        )
    _check_divisible(cfg.SOLVER.IMS_PER_BATCH, micro_batches)
    if not cfg.SOLVER.AMP.ENABLED:
        return TrainingOptions(micro_batches, None)
    if not hasattr(torch.amp, "GradScaler"):
        raise RuntimeError(
            f"SOLVER.AMP.ENABLED needs torch 2.3 or later, but this is {torch.__version__}: "
            "upgrade torch or set it False."
        )
    if precision == "float16" and cfg.MODEL.DEVICE == "cpu":
        logger.warning(
            "TRAINING.AMP_PRECISION is 'float16', which on a CPU is emulated and many times slower "
            "than float32: use 'bfloat16', or set SOLVER.AMP.ENABLED False."
        )
    return TrainingOptions(micro_batches, PRECISIONS[precision])


def _check_divisible(total_batch_size: int, micro_batches: int) -> None:
    world_size = comm.get_world_size()
    # Without accumulation the data loader checks this itself.
    if micro_batches > 1 and total_batch_size % (world_size * micro_batches):
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH {total_batch_size} cannot be divided among {world_size} "
            f"process(es) with {micro_batches} parts each (TRAINING.ACCUMULATE_GRADIENTS); make it "
            f"a multiple of {world_size * micro_batches}."
        )


def build_training_loop(
    options: TrainingOptions, model: nn.Module, data_loader: Iterable[Any], optimizer: Optimizer
) -> SimpleTrainer:
    """Build the training loop for these options.

    Args:
        options: number of parts and precision.
        model: see ``SimpleTrainer``.
        data_loader: see ``SimpleTrainer``.
        optimizer: see ``SimpleTrainer``.
    """
    parts = options.micro_batches
    if options.precision is None:
        return MicroBatchTrainer(model, data_loader, optimizer, micro_batches=parts)
    return AMPMicroBatchTrainer(
        model, data_loader, optimizer, micro_batches=parts, precision=options.precision
    )


class MicroBatchTrainer(SimpleTrainer):
    """:class:`SimpleTrainer` that processes each batch in equal parts, one after the other.

    An iteration is one optimizer step for any number of parts; its gradients and logged losses are
    means over the parts. Processes exchange gradients once per step.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: Optimizer,
        *,
        micro_batches: int = 1,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            model: see ``SimpleTrainer``.
            data_loader: see ``SimpleTrainer``; batches are lists.
            optimizer: see ``SimpleTrainer``.
            micro_batches: number of parts; it must divide the number of images of a batch.
            kwargs: arguments of the Detectron2 class that this one is combined with.
        """
        super().__init__(model, data_loader, optimizer, **kwargs)
        self.micro_batches = micro_batches

    def run_step(self) -> None:
        """Run one optimizer step.

        Raises:
            ValueError: if the batch cannot be cut into equal parts.
            FloatingPointError: if a loss is infinite or NaN.
        """
        assert self.model.training, "The model was switched to evaluation mode during training."
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start

        self.optimizer.zero_grad()
        *first, last = split_batch(batch, self.micro_batches)
        mean_losses: dict[str, Tensor] = {}
        for part in first:
            with self._local_gradients():
                self._add_gradients(part, mean_losses)
        self._add_gradients(last, mean_losses)
        self.after_backward()
        self._write_metrics(mean_losses, data_time)
        self._update()

    def _local_gradients(self) -> contextlib.AbstractContextManager[None]:
        """Defer the exchange of gradients between processes to the last part."""
        if isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return contextlib.nullcontext()

    def _add_gradients(self, batch: list[Any], mean_losses: dict[str, Tensor]) -> None:
        """Add the gradients and losses of a part, divided by the number of parts."""
        losses = self._losses(batch)
        total = functools.reduce(operator.add, (value.float() for value in losses.values()))
        self._backward(total / self.micro_batches)
        for name, value in losses.items():
            share = value.detach().float() / self.micro_batches
            mean_losses[name] = mean_losses[name] + share if name in mean_losses else share

    def _losses(self, batch: list[Any]) -> dict[str, Tensor]:
        losses = self.model(batch)
        return losses if isinstance(losses, dict) else {"total_loss": losses}

    def _backward(self, loss: Tensor) -> None:
        loss.backward()

    def _update(self) -> None:
        self.optimizer.step()


class AMPMicroBatchTrainer(MicroBatchTrainer, AMPTrainer):
    """:class:`MicroBatchTrainer` in mixed precision, fp16 or bf16, on any device.

    With fp16 the loss is scaled; a step whose gradients overflow is skipped, and the scale is
    halved. bf16 has the range of fp32 and needs no scale.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: Optimizer,
        *,
        precision: torch.dtype = torch.float16,
        micro_batches: int = 1,
    ) -> None:
        """
        Args:
            model: see :class:`MicroBatchTrainer`.
            data_loader: see :class:`MicroBatchTrainer`.
            optimizer: see :class:`MicroBatchTrainer`.
            precision: ``torch.float16`` or ``torch.bfloat16``.
            micro_batches: see :class:`MicroBatchTrainer`.
        """
        self._device_type = next(model.parameters()).device.type
        super().__init__(
            model,
            data_loader,
            optimizer,
            micro_batches=micro_batches,
            precision=precision,
            # A disabled scaler does nothing, and its state is empty.
            grad_scaler=torch.amp.GradScaler(self._device_type, enabled=precision == torch.float16),
        )
        pool_in_fp32(model)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state as the base class does; one without a loss scale starts with a new scale."""
        if not state_dict.get("grad_scaler"):
            if self.grad_scaler.is_enabled():
                logger.warning(
                    "The training resumes in fp16 from a checkpoint of another precision: the loss "
                    "scale is initialized again."
                )
            state_dict = {**state_dict, "grad_scaler": self.grad_scaler.state_dict()}
        super().load_state_dict(state_dict)

    def _losses(self, batch: list[Any]) -> dict[str, Tensor]:
        with torch.autocast(self._device_type, dtype=self.precision):
            return super()._losses(batch)

    def _backward(self, loss: Tensor) -> None:
        self.grad_scaler.scale(loss).backward()

    def _update(self) -> None:
        # Detectron2's gradient clipping is part of the optimizer's step, so the gradients must be
        # unscaled before it.
        self.grad_scaler.unscale_(self.optimizer)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()


def split_batch(batch: list[Any], parts: int) -> list[list[Any]]:
    """Split ``batch`` into equal, consecutive parts.

    Raises:
        ValueError: if ``parts`` does not divide the batch.
    """
    if parts == 1:
        return [batch]
    if len(batch) % parts:
        raise ValueError(
            f"The data loader returned a batch of {len(batch)}, which is not divisible by "
            f"TRAINING.ACCUMULATE_GRADIENTS {parts}: use batches of a multiple of {parts}."
        )
    size = len(batch) // parts
    return [batch[i : i + size] for i in range(0, len(batch), size)]


def pool_in_fp32(model: nn.Module) -> None:
    """Let all box poolers read their features in fp32, in place.

    Detectron2's ``ROIAlign`` casts the boxes to the data type of the features, which in bf16 moves
    a box at x = 1300 by up to 4 pixels before it computes in fp32.
    """
    for module in model.modules():
        if isinstance(module, ROIPooler):
            module.register_forward_pre_hook(_maps_in_fp32)


def _maps_in_fp32(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    maps, *rest = args
    return ([x.float() for x in maps], *rest)
