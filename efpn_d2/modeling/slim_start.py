"""How a slim extension and the heads that read it start from a trained FPN detector. [ours]

P'2 starts as P2, bilinearly up-sampled, seen through those C' directions of its C channels that the
stock heads read most: the first singular vectors of their first layers. A head that reads P2 and
P'2 takes what lies in these directions from P'2 and all else from P2. So the detector starts as it
was, to the interpolation, and P'2 learns with trained weights behind it.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from efpn_d2.layers import BRANCH_GAIN

from .backbone.extension import PyramidExtension
from .backbone.ftt import FeatureTextureTransfer

__all__ = ["can_start_as_p2", "channel_basis", "share_inputs", "start_as_p2"]


@torch.no_grad()
def channel_basis(readers: Iterable[Tensor], channels: int, reduced: int) -> Tensor:
    """The directions of a map's channel space that some layers read most.

    Args:
        readers: weights of layers that read the map, (O, C, k, k) or, of fully connected layers on
            pooled maps, (O, C * S * S).
        channels: C.
        reduced: C', the number of directions.

    Returns:
        (C, C') with orthonormal columns: of all projections to C' dimensions the one that changes
        the layers' outputs least, for maps with uncorrelated channels.
    """
    gram = torch.zeros(channels, channels, dtype=torch.double)
    for weight in readers:
        # Channels are the slowest index of what a layer reads in either case.
        matrix = weight.detach().cpu().double().reshape(len(weight), channels, -1)
        gram += torch.einsum("oik,ojk->ij", matrix, matrix)
    ascending = torch.linalg.eigh(gram).eigenvectors
    return ascending.flip(1)[:, :reduced].float()


def share_inputs(weight: Tensor, like: Tensor, basis: Tensor | None) -> Tensor:
    """The weight of a layer that reads P'2, or P2 and P'2, from that of one that reads P2.

    Args:
        weight: (O, C, k, k) or (O, C * S * S); or of any shape, if ``like`` has the same.
        like: the same with C' or C + C' channels.
        basis: (C, C'), the directions that P'2 has; None: unknown, and the layer reads all from P2.

    Returns:
        Of the shape of ``like``; that itself, if nothing is known of what it reads.
    """
    if weight.shape == like.shape:
        return weight
    reads_p2 = like.shape[1] > weight.shape[1]
    if basis is None and not reads_p2:
        return like
    if basis is None:
        padded = torch.zeros_like(like)
        padded[:, : weight.shape[1]] = weight
        return padded
    basis = basis.to(weight)
    split = weight.reshape(len(weight), len(basis), -1)
    from_p2_prime = torch.einsum("oik,ij->ojk", split, basis)
    if not reads_p2:
        return from_p2_prime.reshape(like.shape)
    from_p2 = split - torch.einsum("ojk,ij->oik", from_p2_prime, basis)
    return torch.cat([from_p2, from_p2_prime], dim=1).reshape(like.shape)


def can_start_as_p2(extension: nn.Module | None) -> bool:
    """Whether :func:`start_as_p2` knows how.

    It needs FTT on P2 and P3, and no normalisation, which would undo it.
    """
    return (
        isinstance(extension, PyramidExtension)
        and extension.reads_outputs
        and extension.reduce2 is not None
        and isinstance(extension.upsampler, FeatureTextureTransfer)
        and extension.upsampler.tail is None
        and isinstance(extension.output, nn.Conv2d)
        and all(getattr(m, "norm", None) is None for m in extension.modules())
    )


@torch.no_grad()
def start_as_p2(extension: PyramidExtension, basis: Tensor) -> None:
    """Let P'2 be P2 through ``basis`` (C, C'), bilinearly up-sampled, and a little texture.

    Args:
        extension: one that :func:`can_start_as_p2`, as it was initialised; changed in place.
        basis: see :func:`channel_basis`.
    """
    for reduction in (extension.reduce2, extension.reduce3):
        reduction.weight.copy_(basis.T[:, :, None, None])
        reduction.bias.zero_()
    # P'3 = E_t(concat(level2, up)) + up, and E_t takes ``up`` away again.
    fold, *blocks = extension.upsampler.texture_extractor
    width = len(fold.weight)
    middle = fold.weight.shape[-1] // 2
    identity = torch.eye(width).to(fold.weight)
    fold.weight.zero_()
    fold.weight[:, :, middle, middle] = torch.cat([identity, -identity], dim=1)
    fold.bias.zero_()
    for block in blocks:
        *_, last = block.children()
        last.weight.zero_()
        last.bias.zero_()
    if extension.lateral is not None:
        extension.lateral.weight.mul_(BRANCH_GAIN)
    # Nearest up-sampling and this kernel are bilinear up-sampling.
    row = fold.weight.new_tensor([0.25, 0.5, 0.25])
    extension.output.weight.zero_()
    extension.output.bias.zero_()
    for channel in range(width):
        extension.output.weight[channel, channel] = torch.outer(row, row)
