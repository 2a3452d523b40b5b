"""The optimizer step: in parts that fit into memory, and in mixed precision on any device.

``SOLVER.IMS_PER_BATCH`` stays what Detectron2 says it is, the images of one optimizer step, however
few of them are in memory at once: ``TRAINING.ACCUMULATE_GRADIENTS`` cuts each process's share into
equal parts. So accumulation changes neither the images of an iteration nor learning rate, schedule,
``SOLVER.REFERENCE_WORLD_SIZE``, checkpoints and logs, and a training may be resumed with another
number of parts, on a smaller device.

The loss of a step is the mean over its parts. That is the loss of the whole batch as far as a loss
is a mean over images or over a fixed number of samples per image, as the detector's are while
enough boxes can be sampled. What is counted per batch is counted per part: statistics of BatchNorm,
padding, the cells in Eq. 7, and ``DISTILL.OHEM_BATCH``.
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
    """How an optimizer step is made."""

    #: Parts that the batch of a process is cut into.
    micro_batches: int
    #: Type that autocast computes in; None: no mixed precision.
    precision: torch.dtype | None


def training_options(cfg: CfgNode) -> TrainingOptions:
    """The options of ``SOLVER.AMP`` and ``TRAINING``; without that node, its defaults.

    Raises:
        ValueError: a value of ``TRAINING`` does not exist, or the batch does not divide by it.
        RuntimeError: this torch is too old for mixed precision.
    """
    if "TRAINING" not in cfg:
        cfg = cfg.clone()
        cfg.defrost()
        add_efpn_config(cfg)
    micro_batches, precision = cfg.TRAINING.ACCUMULATE_GRADIENTS, cfg.TRAINING.AMP_PRECISION
    if not isinstance(micro_batches, int) or micro_batches < 1:
        raise ValueError(
            f"TRAINING.ACCUMULATE_GRADIENTS is {micro_batches}: use 1, or the number of parts that "
            "a batch is to be cut into."
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
            f"SOLVER.AMP.ENABLED needs torch 2.3 or later, and this is {torch.__version__}: "
            "install a later one or set it False."
        )
    if precision == "float16" and cfg.MODEL.DEVICE == "cpu":
        logger.warning(
            "TRAINING.AMP_PRECISION is 'float16', which a CPU emulates, many times slower than "
            "float32: use 'bfloat16', or SOLVER.AMP.ENABLED False."
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
    """The loop for these options; model, data loader and optimizer as for ``SimpleTrainer``."""
    parts = options.micro_batches
    if options.precision is None:
        return MicroBatchTrainer(model, data_loader, optimizer, micro_batches=parts)
    return AMPMicroBatchTrainer(
        model, data_loader, optimizer, micro_batches=parts, precision=options.precision
    )


class MicroBatchTrainer(SimpleTrainer):
    """:class:`SimpleTrainer` that takes each batch in equal parts, one after the other.

    An iteration is one optimizer step, whatever the number of parts; its gradients and the losses
    in its log are means over the parts. Processes exchange gradients once per step.
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
            model, data_loader, optimizer: those of ``SimpleTrainer``; batches are lists.
            micro_batches: parts of a batch; it must divide the images of a batch.
            kwargs: of the Detectron2 class mixed with.
        """
        super().__init__(model, data_loader, optimizer, **kwargs)
        self.micro_batches = micro_batches

    def run_step(self) -> None:
        """One optimizer step.

        Raises:
            ValueError: the batch cannot be cut into equal parts.
            FloatingPointError: a loss is infinite or NaN.
        """
        assert self.model.training, "The model was changed to evaluation mode during the training."
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
        """Gradients stay in this process until those of the last part go with them."""
        if isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return contextlib.nullcontext()

    def _add_gradients(self, batch: list[Any], mean_losses: dict[str, Tensor]) -> None:
        """Add a part's share to the gradients and to ``mean_losses``."""
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

    With fp16 the loss is scaled; a step whose gradients overflow is left out, and the scale halves.
    bf16 has the range of fp32 and needs no scale.
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
            model, data_loader, optimizer, micro_batches: those of :class:`MicroBatchTrainer`.
            precision: ``torch.float16`` or ``torch.bfloat16``.
        """
        self._device_type = next(model.parameters()).device.type
        super().__init__(
            model,
            data_loader,
            optimizer,
            micro_batches=micro_batches,
            precision=precision,
            # Disabled, it does nothing, and its state is empty.
            grad_scaler=torch.amp.GradScaler(self._device_type, enabled=precision == torch.float16),
        )
        pool_in_fp32(model)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in the base class; a state without a loss scale starts with a new one."""
        if not state_dict.get("grad_scaler"):
            if self.grad_scaler.is_enabled():
                logger.warning(
                    "The training resumes in fp16, but its checkpoint was written without: the "
                    "loss scale starts anew."
                )
            state_dict = {**state_dict, "grad_scaler": self.grad_scaler.state_dict()}
        super().load_state_dict(state_dict)

    def _losses(self, batch: list[Any]) -> dict[str, Tensor]:
        with torch.autocast(self._device_type, dtype=self.precision):
            return super()._losses(batch)

    def _backward(self, loss: Tensor) -> None:
        self.grad_scaler.scale(loss).backward()

    def _update(self) -> None:
        # Detectron2's gradient clipping is part of the optimizer's step, and an optimizer that
        # unscales by itself would do it after that.
        self.grad_scaler.unscale_(self.optimizer)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()


def split_batch(batch: list[Any], parts: int) -> list[list[Any]]:
    """``batch`` in equal, consecutive parts.

    Raises:
        ValueError: it cannot be cut so.
    """
    if parts == 1:
        return [batch]
    if len(batch) % parts:
        raise ValueError(
            f"The data loader gave a batch of {len(batch)}, which TRAINING.ACCUMULATE_GRADIENTS "
            f"{parts} does not divide: let it give equal batches of a multiple of {parts}."
        )
    size = len(batch) // parts
    return [batch[i : i + size] for i in range(0, len(batch), size)]


def pool_in_fp32(model: nn.Module) -> None:
    """Let all poolers of boxes read their maps in fp32, in place.

    Detectron2's ``ROIAlign`` brings the boxes to the type of the map, which in bf16 moves a box at
    x = 1300 by up to 4 pixels; that it then computes in fp32 does not bring them back.
    """
    for module in model.modules():
        if isinstance(module, ROIPooler):
            module.register_forward_pre_hook(_maps_in_fp32)


def _maps_in_fp32(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    maps, *rest = args
    return ([x.float() for x in maps], *rest)
