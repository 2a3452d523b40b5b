"""Fold batch normalization into convolutions for inference."""

import copy

import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights


@torch.no_grad()
def fold_normalizations(module: nn.Module) -> nn.Module:
    """Return a copy with batch normalization by running statistics folded into the convolutions.

    This saves one pass over the features per normalization. All other parameters and buffers are
    shared with ``module``, not copied. The copy does not follow later changes of ``module``. If a
    weight is computed (``torch.nn.utils.parametrize``), its normalization is kept. [ours]

    Args:
        module: a module with Detectron2's convolutions, whose normalization is ``norm``; it must
            not be :func:`~efpn_d2.layers.is_watched`, since a copy runs in its place.
    """
    # deepcopy shares whatever its memo lists as already copied.
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
