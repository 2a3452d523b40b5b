"""DCLoss: objects of each size weighed by the gradients that their size gets.

A reconstruction: of E-FPN-BS (Liu and Cui, 2025) only the abstract is public, which promises a
"Dynamic Gradient-Balanced Loss" that modulates losses "via scale-aware gradient equilibrium". The
arithmetic here is ours.
"""

import logging
import math
from collections.abc import Callable, Sequence

import torch
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor, nn
from torch.nn import functional as F

#: ``loss(predictions, rows)``: the sum of the plain losses of some samples. ``rows`` (n,) says
#: which they are, ``predictions`` (n, ...) is what the network says of them.
SampleLoss = Callable[[Tensor, Tensor], Tensor]

logger = logging.getLogger(__name__)

_EPSILON = 1e-12


class DynamicGradientBalancedLoss(nn.Module):
    """What to add to a plain loss, so that objects of all sizes get a like share of its gradients.

    Samples are the positives, binned by the size s of their object. For bin k, g_k is the moving
    mean over batches of the mean gradient norm of the *plain* loss:

        g_k <- momentum * g_k + (1 - momentum) * mean of |dl_i / dprediction_i| in bin k
        w_k = clip((mean of g / g_k) ^ alpha, min_weight, max_weight)

    with the mean over the bins that ever had a sample; these w_k are then divided by their mean
    over the samples of the batch, so the balance of objects and background stays. They carry no
    gradient. A batch moves g before it is weighed, a bin's first batch sets it, and a bin without
    a sample keeps it. With ``alpha=0`` all weights are exactly 1.

    Each call under autograd counts as a batch: with gradient accumulation, each part of one;
    without autograd, as in validation, nothing moves. Gradients and samples
    are summed over all processes, which therefore all have to call, with or without a sample. The
    state is in the state dict; loading one that lacks it, or has other bins, keeps the state there
    is.

    Loss scale, loss weight and learning rate cancel in w, so the plain loss may be in any unit that
    does not change during training.
    """

    edges: Tensor
    gradient_norms: Tensor
    """g, (B,)."""
    updates: Tensor
    """Batches that moved g, (B,)."""

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        momentum: float = 0.9,
        size_bins: Sequence[float] = (8, 16, 32),
        min_weight: float = 0.5,
        max_weight: float = 2.0,
        name: str = "loss",
    ) -> None:
        """
        Args:
            alpha: exponent, at least 0.
            momentum: of the moving mean, in [0, 1).
            size_bins: B - 1 edges in pixels of the network's input; bin k has
                ``size_bins[k - 1] <= s < size_bins[k]``.
            min_weight, max_weight: limits of a weight, 0 < min_weight <= 1 <= max_weight.
            name: below which the shares of the bins are logged, see :meth:`forward`.

        Raises:
            ValueError: a value is out of its range.
        """
        super().__init__()
        _check(alpha, momentum, size_bins, min_weight, max_weight)
        self.alpha = alpha
        self.momentum = momentum
        self.min_weight = min_weight
        self.max_weight = max_weight
        self.name = name
        self.labels = _labels(size_bins)
        self.register_buffer("edges", torch.tensor(size_bins, dtype=torch.float32))
        self.register_buffer("gradient_norms", torch.zeros(len(self.labels)))
        self.register_buffer("updates", torch.zeros(len(self.labels), dtype=torch.long))

    def forward(self, loss: SampleLoss, predictions: Tensor, sizes: Tensor) -> Tensor:
        """The sum over samples of (w_i - 1) * l_i, to be added to the sum of the l_i.

        With an event storage it logs ``gradient_balance/<name>/`` and for each bin
        ``share_before``, the bin's share of all gradients of the plain loss, ``share_after``, that
        of the weighted loss, and ``weight``, both counted over all processes.

        Args:
            loss: the plain loss; called once for all samples and once for each bin.
            predictions: (R, ...), of the positives, of any floating type.
            sizes: (R,), sqrt(w * h) of their objects in pixels of the network's input.

        Returns:
            Scalar in fp32; without a sample, and with ``alpha=0``, it is exactly 0.
        """
        predictions = predictions.float()
        bins = torch.bucketize(sizes, self.edges, right=True)
        # Without autograd the loss is not trained by, as in validation: no state is to change.
        trains = torch.is_grad_enabled()
        norms = gradient_norms(loss, predictions) if trains else predictions.new_zeros(len(sizes))
        sums, counts = self._sum_bins(norms, bins)
        if trains:
            self._move(sums, counts)
        weights = self._weights(counts)
        if trains:
            self._log(sums, counts, weights)
        if self.alpha == 0:
            # Zeros would do for the loss, but they can change the memory layout of gradients, and
            # by that the order in which those of a bias are summed.
            return predictions.new_zeros(())
        extra = predictions[:0].sum()
        for k, weight in enumerate(weights):
            rows = (bins == k).nonzero()[:, 0]
            if len(rows):
                extra = extra + (weight - 1) * loss(predictions[rows], rows)
        return extra

    @torch.no_grad()
    def _sum_bins(self, norms: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of gradient norms and number of samples per bin, (B,) each, of all processes."""
        # As a table, for index_add_ adds in any order on a GPU.
        members = F.one_hot(bins, len(self.labels)).bool()
        table = torch.where(members, norms[:, None], 0.0)
        sums = torch.stack([table.sum(0), members.sum(0).float()])
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(sums)
        return sums[0], sums[1]

    @torch.no_grad()
    def _move(self, sums: Tensor, counts: Tensor) -> None:
        means = sums / counts.clamp(min=1)
        # What is not finite would stay so for ever, though fp16's loss scale may yet save the step.
        has_sample = (counts > 0) & means.isfinite()
        moved = self.momentum * self.gradient_norms + (1 - self.momentum) * means
        moved = torch.where(self.updates > 0, moved, means)
        self.gradient_norms.copy_(torch.where(has_sample, moved, self.gradient_norms))
        self.updates.add_(has_sample)

    @torch.no_grad()
    def _weights(self, counts: Tensor) -> Tensor:
        """w, (B,); 1 for bins that never had a sample."""
        seen = self.updates > 0
        mean = (self.gradient_norms * seen).sum() / seen.sum().clamp(min=1)
        ratio = mean.clamp(min=_EPSILON) / self.gradient_norms.clamp(min=_EPSILON)
        weights = ratio.pow(self.alpha).clamp(self.min_weight, self.max_weight)
        weights = torch.where(seen, weights, torch.ones_like(weights))
        mean_weight = (counts * weights).sum() / counts.sum().clamp(min=1)
        return torch.where(counts.sum() > 0, weights / mean_weight, weights)

    def _log(self, sums: Tensor, counts: Tensor, weights: Tensor) -> None:
        if not has_event_storage():
            return
        shares = [x / x.sum().clamp(min=_EPSILON) for x in (sums, weights * sums)]
        rows = torch.stack([counts, *shares, weights], dim=1).tolist()
        storage = get_event_storage()
        # Samples, not the share: they are none in a batch without objects, which has no shares.
        present = any(count for count, *_ in rows)
        for label, (count, before, after, weight) in zip(self.labels, rows, strict=True):
            if present and math.isfinite(before):
                storage.put_scalar(f"gradient_balance/{self.name}/share_before/{label}", before)
                storage.put_scalar(f"gradient_balance/{self.name}/share_after/{label}", after)
            if count:
                storage.put_scalar(f"gradient_balance/{self.name}/weight/{label}", weight)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Tensor],
        prefix: str,
        local_metadata: dict[str, object],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """As for any module, but the state is not missed: a plain detector's file has none."""
        edges = state_dict.get(prefix + "edges", self.edges)
        if not torch.equal(edges.cpu(), self.edges.cpu()):
            logger.warning(
                f"The state of DCLoss '{self.name}' is of other size bins, with edges at "
                f"{edges.tolist()} px: it is not loaded, and begins anew."
            )
            state_dict = {k: v for k, v in state_dict.items() if not k.startswith(prefix)}
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, [], unexpected_keys, error_msgs
        )


@torch.enable_grad()
def gradient_norms(loss: SampleLoss, predictions: Tensor) -> Tensor:
    """Sum of |dl_i / dprediction_i| over the components of each sample's prediction.

    For the sigmoid's cross-entropy that is |p - y|, for the softmax's the sum of |p_j - y_j| over
    classes, for smooth L1 the sum of its slopes over coordinates.

    Args:
        loss: the plain loss.
        predictions: (R, ...); no gradient flows to it.

    Returns:
        (R,).
    """
    if len(predictions) == 0:
        return predictions.new_zeros(0)
    leaf = predictions.detach().clone().requires_grad_()
    rows = torch.arange(len(leaf), device=leaf.device)
    (gradient,) = torch.autograd.grad(loss(leaf, rows), leaf)
    return gradient.abs().flatten(1).sum(1) if gradient.dim() > 1 else gradient.abs()


def _check(
    alpha: float,
    momentum: float,
    size_bins: Sequence[float],
    min_weight: float,
    max_weight: float,
) -> None:
    if not 0 <= alpha < math.inf:
        raise ValueError(
            f"MODEL.EFPN_BS.DCLOSS_ALPHA is {alpha}: use 0.0 for the plain loss, or a positive "
            "number up to about 1.0."
        )
    if not 0 <= momentum < 1:
        raise ValueError(
            f"MODEL.EFPN_BS.DCLOSS_MOMENTUM is {momentum}: use a number from 0.0 to below 1.0."
        )
    edges = [0.0, *size_bins]
    if any(low >= high for low, high in zip(edges, edges[1:], strict=False)):
        raise ValueError(
            f"MODEL.EFPN_BS.DCLOSS_SIZE_BINS is {list(size_bins)}: give edges in pixels that are "
            "positive and increase, like [8, 16, 32]."
        )
    if not 0 < min_weight <= 1 <= max_weight < math.inf:
        raise ValueError(
            f"MODEL.EFPN_BS.DCLOSS_MIN_WEIGHT {min_weight} and DCLOSS_MAX_WEIGHT {max_weight} must "
            "be limits on both sides of 1: use for example 0.5 and 2.0."
        )


def _labels(size_bins: Sequence[float]) -> list[str]:
    """``["0-8", "8-16", "16-inf"]`` for the edges 8 and 16."""
    edges = ["0", *(f"{edge:g}" for edge in size_bins), "inf"]
    return [f"{low}-{high}" for low, high in zip(edges, edges[1:], strict=False)]
