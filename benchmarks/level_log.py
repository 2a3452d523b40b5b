"""What each level of a two-stage detector's pyramid gets of the samples and of the gradient."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from detectron2.modeling import poolers
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from efpn_d2.engine.seeding import Purpose, derive_seed

COUNTED = ("positive_anchors", "sampled_anchors", "rois")
GRADIENTS = ("map", "output_conv", "lateral_conv")
Passes = list[dict[str, Tensor]]


@contextlib.contextmanager
def watch(model: nn.Module) -> Iterator[dict[str, Any]]:
    """What the latest training pass of a two-stage detector on an FPN sampled, and its maps.

    Yields:
        A dict that each pass fills anew: for the names of ``COUNTED`` how many there were, (N, L)
        for L levels of the RPN, and in "maps" the pyramid's outputs, which keep their gradients.
    """
    seen: dict[str, Any] = {}
    rpn = model.proposal_generator
    sample, assign = rpn.label_and_sample_anchors, poolers.assign_boxes_to_levels

    def log_anchors(anchors: list[Boxes], gt_instances: list[Instances]) -> Any:
        labels, matched = sample(anchors, gt_instances)
        levels = torch.stack(labels).split([len(x) for x in anchors], dim=1)
        seen["positive_anchors"] = torch.stack([(x == 1).sum(dim=1) for x in levels], dim=1)
        seen["sampled_anchors"] = torch.stack([(x >= 0).sum(dim=1) for x in levels], dim=1)
        return labels, matched

    def log_boxes(box_lists: list[Boxes], min_level: int, *args: Any) -> Tensor:
        assigned = assign(box_lists, min_level, *args)
        per_image = assigned.split([len(x) for x in box_lists])
        names = [int(name.removeprefix("p")) - min_level for name in rpn.in_features]
        seen["rois"] = torch.stack(
            [torch.stack([(x == i).sum() for i in names]) for x in per_image]
        )
        return assigned

    def keep_gradients(module: nn.Module, args: Any, outputs: dict[str, Tensor]) -> None:
        for output in outputs.values():
            output.retain_grad()
        seen["maps"] = outputs

    hook = model.backbone.register_forward_hook(keep_gradients)
    try:
        with (
            mock.patch.object(rpn, "label_and_sample_anchors", log_anchors),
            mock.patch.object(poolers, "assign_boxes_to_levels", log_boxes),
        ):
            yield seen
    finally:
        hook.remove()


def measure(model: nn.Module, batches: Sequence[list[dict[str, Any]]], seed: int) -> Passes:
    """One training pass per batch, forward and backward; the model's weights stay.

    Returns:
        For each batch what ``COUNTED`` names, each (N, L), and ``GRADIENTS``, each (L,): norms, NaN
        where a level has no such convolution.
    """
    levels = model.proposal_generator.in_features
    passes = []
    with EventStorage(), watch(model) as seen:
        model.train()
        for i, batch in enumerate(batches):
            torch.manual_seed(derive_seed(seed, Purpose.STEP, i))
            model.zero_grad()
            sum(model(batch).values()).backward()
            weights = {
                "output_conv": [conv_weight(model.backbone, "fpn_output", x) for x in levels],
                "lateral_conv": [conv_weight(model.backbone, "fpn_lateral", x) for x in levels],
            }
            tensors = {"map": [seen["maps"][x] for x in levels], **weights}
            norms = {k: torch.stack([gradient_norm(x) for x in v]) for k, v in tensors.items()}
            passes.append({**{k: seen[k].cpu() for k in COUNTED}, **norms})
    return passes


def conv_weight(backbone: nn.Module, prefix: str, level: str) -> Tensor | None:
    """Of a level's convolution; None: there is none (P6 is taken from P5)."""
    conv = getattr(backbone, prefix + level.removeprefix("p"), None)
    return None if conv is None else conv.weight


def gradient_norm(x: Tensor | None) -> Tensor:
    if x is None:
        return torch.tensor(float("nan"), dtype=torch.float64)
    if x.grad is None:
        return torch.tensor(0.0, dtype=torch.float64)
    return x.grad.double().norm().cpu()


def summarize(levels: Sequence[str], passes: Passes) -> dict[str, dict[str, Any]]:
    """For each level, over all batches:

    * ``share`` of all levels' counts or gradient norms, ``squared_share`` of squared norms,
    * ``count`` and ``gradient_norm``: the sums of the counts and the mean norms,
    * ``images_without``, ``batches_without``: shares of those in which none of a kind is of this
      level; "unread" is where no sampled anchor and no RoI reads its output convolution,
    * ``zero_output_conv_gradient``: share of batches in which that is exactly zero.
    """
    images = {name: torch.cat([x[name] for x in passes]) for name in COUNTED}
    batches = {name: torch.stack([x[name].sum(dim=0) for x in passes]) for name in COUNTED}
    norms = {name: torch.stack([x[name] for x in passes]) for name in GRADIENTS}
    per_level = {
        "share": {k: share(v.sum(dim=0)) for k, v in {**batches, **norms}.items()},
        "squared_share": {k: share(v.square().sum(dim=0)) for k, v in norms.items()},
        "count": {k: v.sum(dim=0) for k, v in batches.items()},
        "gradient_norm": {k: v.mean(dim=0) for k, v in norms.items()},
    }
    for key, counts in (("images_without", images), ("batches_without", batches)):
        sampled = counts["sampled_anchors"] + counts["rois"]
        counts["unread"] = readers(sampled, norms["output_conv"][0])
        per_level[key] = {k: (v == 0).double().mean(dim=0) for k, v in counts.items()}
    conv = norms["output_conv"]
    zero = (conv == 0).double().mean(dim=0).where(~conv[0].isnan(), torch.nan)
    return {
        level: {
            **{k: {name: number(x[i]) for name, x in v.items()} for k, v in per_level.items()},
            "zero_output_conv_gradient": number(zero[i]),
        }
        for i, level in enumerate(levels)
    }


def readers(counts: Tensor, conv_norms: Tensor) -> Tensor:
    """(M, L) counts of what reads each level -> of what reads its output convolution's result.

    A level without one (its norm is NaN) is taken from the last that has one.
    """
    last = int((~conv_norms.isnan()).nonzero().max())
    counts = counts.clone()
    counts[:, last] += counts[:, last + 1 :].sum(dim=1)
    return counts


def share(values: Tensor) -> Tensor:
    values = values.double()
    return values / values.nansum()


def number(x: Tensor) -> float | int | None:
    value = x.item()
    return None if value != value else float(f"{value:.6g}") if isinstance(value, float) else value
