"""Convolutions with the normalisations after them, for inference."""

import copy

import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights


@torch.no_grad()
def fold_normalizations(module: nn.Module) -> nn.Module:
    """A copy that has batch normalisation by running statistics in its convolutions' weights.

    Each normalisation of its own is a pass over the whole map. All other parameters and buffers are
    shared with ``module``, not copied. The result is for one use: it follows no change. Where a
    weight is computed (``torch.nn.utils.parametrize``), the normalisation stays. [ours]

    Args:
        module: with Detectron2's convolutions, which hold their normalisation as ``norm``; not
            :func:`~efpn_d2.layers.is_watched`, for what runs is a copy.
    """
    # What deepcopy takes for copied already, it shares.
    shared = {id(x): x for x in [*module.parameters(), *module.buffers()]}
    folded = copy.deepcopy(module, memo=shared)
    for conv in folded.modules():
        norm = getattr(conv, "norm", None)
        if not (isinstance(conv, nn.Conv2d) and isinstance(norm, FrozenBatchNorm2d | _BatchNorm)):
            continue
        mean, variance = norm.running_mean, norm.running_var
        if mean is None or variance is None or "weight" not in conv._parameters:
            continue
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight,
            conv.bias,
            mean,
            variance,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        conv.register_module("norm", None)
    return folded
