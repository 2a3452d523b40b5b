"""DCLoss: weight the losses of objects by the gradients that their size receives.

This is a reconstruction: only the abstract of E-FPN-BS (Liu and Cui, 2025) is public, which
describes a "Dynamic Gradient-Balanced Loss" that modulates losses "via scale-aware gradient
equilibrium". The arithmetic is ours.
"""

import logging
import math
from collections.abc import Callable, Sequence

import torch
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor, nn
from torch.nn import functional as F

from efpn_d2.utils.size_labels import size_labels

# : ``loss(predictions, rows)`` returns the sum of the plain losses of some samples, given by
# ``rows`` (n,), with the network's ``predictions`` (n, ...) for them.
SampleLoss = Callable[[Tensor, Tensor], Tensor]

logger = logging.getLogger(__name__)

_EPSILON = 1e-12


class DynamicGradientBalancedLoss(nn.Module):
    """Correction to a plain loss that balances its gradients between object sizes.

    Samples are the positives, binned by the size s of their object. For bin k, g_k is the moving
    average over batches of the mean gradient norm of the *plain* loss:

        g_k <- momentum * g_k + (1 - momentum) * mean of |dl_i / dprediction_i| in bin k
        w_k = clip((mean of g / g_k) ^ alpha, min_weight, max_weight)

    with the mean over the bins that ever had a sample; these w_k are then divided by their mean
    over the samples of the batch, so the balance of foreground and background is unchanged. The
    weights are detached. A batch updates g before it is weighted; the first batch of a bin sets its
    g, and a bin without samples keeps it. With ``alpha=0`` all weights are exactly 1.

    Each call with autograd enabled counts as a batch, including each part under gradient
    accumulation; without autograd, as in validation, nothing is updated. Gradients and samples are
    summed over all processes, so every process must call this, with or without samples. The state
    is part of the state dict; loading one without it, or with other bins, keeps the current state.

    Loss scale, loss weight and learning rate cancel in w, so the plain loss may have any unit that
    is constant during training.
    """

    edges: Tensor
    gradient_norms: Tensor
    """g, (B,)."""
    updates: Tensor
    "Number of batches that updated g, (B,)."

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
            momentum: momentum of the moving average, in [0, 1).
            size_bins: B - 1 edges in pixels of the network's input; bin k has ``size_bins[k - 1] <=
                s < size_bins[k]``.
            min_weight: minimum weight, in (0, 1].
            max_weight: maximum weight, at least 1.
            name: name under which the fractions of the bins are logged, see :meth:`forward`.

        Raises:
            ValueError: if a value is out of range.
        """
        super().__init__()
        _check(alpha, momentum, size_bins, min_weight, max_weight)
        self.alpha = alpha
        self.momentum = momentum
        self.min_weight = min_weight
        self.max_weight = max_weight
        self.name = name
        self.labels = [x.replace("_", "-") for x in size_labels([0, *size_bins], "key")]
        self.register_buffer("edges", torch.tensor(size_bins, dtype=torch.float32))
        self.register_buffer("gradient_norms", torch.zeros(len(self.labels)))
        self.register_buffer("updates", torch.zeros(len(self.labels), dtype=torch.long))

    def forward(self, loss: SampleLoss, predictions: Tensor, sizes: Tensor) -> Tensor:
        """Compute the sum over samples of (w_i - 1) * l_i, to be added to the sum of the l_i.

        With an event storage it logs under ``gradient_balance/<name>/`` for each bin:
        ``share_before``, its fraction of the gradients of the plain loss; ``share_after``, its
        fraction of those of the weighted loss; and ``weight``, each over all processes.

        Args:
            loss: the plain loss; called once for all samples and once for each bin.
            predictions: (R, ...) predictions for the positives, of any floating type.
            sizes: (R,), sqrt(w * h) of their objects in pixels of the network's input.

        Returns:
            Scalar in fp32; exactly 0 without samples or with ``alpha=0``.
        """
        predictions = predictions.float()
        bins = torch.bucketize(sizes, self.edges, right=True)
        # Without autograd, as in validation, the loss does not train, so the state must not change.
        trains = torch.is_grad_enabled()
        norms = gradient_norms(loss, predictions) if trains else predictions.new_zeros(len(sizes))
        sums, counts = self._sum_bins(norms, bins)
        if trains:
            self._move(sums, counts)
        weights = self._weights(counts)
        if trains:
            self._log(sums, counts, weights)
        if self.alpha == 0:
            # Zeros would give the same loss, but may change the memory layout of gradients, and
            # thus the summation order for those of a bias.
            return predictions.new_zeros(())
        extra = predictions[:0].sum()
        for k, weight in enumerate(weights):
            rows = (bins == k).nonzero()[:, 0]
            if len(rows):
                extra = extra + (weight - 1) * loss(predictions[rows], rows)
        return extra

    @torch.no_grad()
    def _sum_bins(self, norms: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
        """Sum gradient norms and count samples per bin over all processes, (B,) each."""
        # A table is used because the summation order of index_add_ is undefined on a GPU.
        members = F.one_hot(bins, len(self.labels)).bool()
        table = torch.where(members, norms[:, None], 0.0)
        sums = torch.stack([table.sum(0), members.sum(0).float()])
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(sums)
        return sums[0], sums[1]

    @torch.no_grad()
    def _move(self, sums: Tensor, counts: Tensor) -> None:
        means = sums / counts.clamp(min=1)
        # A value that is not finite would persist, although fp16's loss scaling may skip this step.
        has_sample = (counts > 0) & means.isfinite()
        moved = self.momentum * self.gradient_norms + (1 - self.momentum) * means
        moved = torch.where(self.updates > 0, moved, means)
        self.gradient_norms.copy_(torch.where(has_sample, moved, self.gradient_norms))
        self.updates.add_(has_sample)

    @torch.no_grad()
    def _weights(self, counts: Tensor) -> Tensor:
        """Compute w, (B,); 1 for bins that never had a sample."""
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
        # Condition on samples, not on fractions, which are undefined in a batch without objects.
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
        """Load the state if present; it is never reported missing, as plain detectors lack it."""
        edges = state_dict.get(prefix + "edges", self.edges)
        if not torch.equal(edges.cpu(), self.edges.cpu()):
            logger.warning(
                f"The state of DCLoss '{self.name}' has other size bins, with edges at "
                f"{edges.tolist()} px: it is not loaded."
            )
            state_dict = {k: v for k, v in state_dict.items() if not k.startswith(prefix)}
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, [], unexpected_keys, error_msgs
        )


@torch.enable_grad()
def gradient_norms(loss: SampleLoss, predictions: Tensor) -> Tensor:
    """Sum |dl_i / dprediction_i| over the components of each sample's prediction.

    This is |p - y| for sigmoid cross-entropy, the sum of |p_j - y_j| over classes for softmax
    cross-entropy, and the sum of the slopes over coordinates for smooth L1.

    Args:
        loss: the plain loss.
        predictions: (R, ...); no gradient flows to them.

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
            f"MODEL.EFPN_BS.DCLOSS_SIZE_BINS is {list(size_bins)}: use edges in pixels that are "
            "positive and increase, like [8, 16, 32]."
        )
    if not 0 < min_weight <= 1 <= max_weight < math.inf:
        raise ValueError(
            f"MODEL.EFPN_BS.DCLOSS_MIN_WEIGHT {min_weight} and DCLOSS_MAX_WEIGHT {max_weight} "
            "must be limits on both sides of 1: use for example 0.5 and 2.0."
        )
