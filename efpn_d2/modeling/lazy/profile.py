"""Receptive field and cost of each step from the stock features to P'2."""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from detectron2.layers import Conv2d, DeformConv, ModulatedDeformConv
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

if TYPE_CHECKING:  # the pyramid imports this
    from efpn_d2.modeling.backbone.extension import PyramidExtension


logger = logging.getLogger(__name__)

_PROBE_SIDES = (20, 40, 80)  # even, since some steps read an input at half the resolution


class StepProfile(NamedTuple):
    """Receptive field and cost of one step."""

    halos: tuple[int, ...]
    "For each input, the cells around a region on which the output over that region depends."
    macs: int
    """Multiply-accumulates of the convolutions per cell of the input."""

    @property
    def halo(self) -> int:
        """Maximum over the inputs."""
        return max(self.halos)


class ExtensionProfile(NamedTuple):
    """Profiles of all steps, each in cells of its input."""

    content: StepProfile
    "From merged3 (stride 8) to the upsampled content (stride 4)."
    transfer: StepProfile
    "From the upsampled content and merged2 to P'3 (stride 4)."
    stage2: StepProfile
    "From the stem's features to C'2 (stride 2)."
    output: StepProfile
    "From C'2 and P'3 to P'2 (stride 2)."

    def last_halos(self, reader_halo: int) -> tuple[int, int]:
        """Return the halos around a region of P'2 on which steps ``stage2`` and ``output`` run.

        The halo of ``output`` is even, so that windows begin with a whole cell of P'3. C'2 is read
        less far than P'3, whose cells are larger; its values further out may be wrong.

        Args:
            reader_halo: number of cells around the region that the reader of P'2 needs.
        """
        output = self.output.halo + reader_halo
        output += output % 2
        return max(self.output.halos[0] + reader_halo + self.stage2.halo, output), output


class ExtensionProfiler:
    """Compute a profile on first use, and again if the modules change."""

    def __init__(self) -> None:
        self._made_of: object = None
        self._profile: ExtensionProfile | None = None

    def __call__(self, stage2: nn.Module, extension: "PyramidExtension") -> ExtensionProfile | None:
        """Return :func:`profile_extension`, or None, with a warning, if profiling fails."""
        modules = _geometry(stage2, extension)
        if modules != self._made_of:
            try:
                self._profile = profile_extension(stage2, extension)
            except Exception as error:  # user modules may raise anything
                self._profile = None
                logger.warning(
                    "P'2 is computed densely: the receptive field of its modules could not be "
                    f"determined ({type(error).__name__}: {error})."
                )
            self._made_of = modules
        return self._profile


def _geometry(*parents: nn.Module) -> list[tuple[Any, ...]]:
    """Return the properties of all modules that determine their receptive field."""
    names = ("kernel_size", "padding", "dilation", "stride", "groups")
    return [
        (type(m), *(m.__dict__.get(name) for name in names))
        for parent in parents
        for m in parent.modules()
    ]


@torch.no_grad()
def profile_extension(stage2: nn.Module, extension: "PyramidExtension") -> ExtensionProfile | None:
    """Profile the steps from the stock features to P'2.

    A step cannot be computed in tiles if it reads its whole input (a group normalization, a global
    pool), if the input determines where it reads (a deformable convolution), or if it depends on
    the position of a cell (an interpolation with aligned corners).

    Args:
        stage2: stage 2 of the bottom-up network.
        extension: an extension that reads C'2, and whose level 2 is the pyramid's own.

    Returns:
        The profile; None if the receptive field of a step is unbounded or too large.
    """
    if any(_is_deformable(m) for part in (stage2, extension) for m in part.modules()):
        return None
    lateral: Conv2d = extension.lateral
    c2_channels, channels = lateral.in_channels, lateral.out_channels
    stem_channels = next(x for x in stage2.modules() if isinstance(x, nn.Conv2d)).in_channels
    up = extension.upsampler
    # Channels of the upsampled content.
    width = up.upsample(next(up.parameters(), torch.empty(0)).new_zeros(1, channels, 2, 2)).shape[1]
    steps = (
        profile_step(up, lambda m, x: m.upsample(x), [channels], scale=2),
        profile_step(
            up, lambda m, x, y, z: m.transfer(x, y, z[..., ::2, ::2]), [width, channels, channels]
        ),
        profile_step(stage2, lambda m, x: m(x), [stem_channels]),
        profile_step(
            extension, lambda m, x, y: m.p2_prime(x, y[..., ::2, ::2]), [c2_channels, channels]
        ),
    )
    bounded = [step for step in steps if step is not None]
    return ExtensionProfile(*bounded) if len(bounded) == len(steps) else None


def _is_deformable(module: nn.Module) -> bool:
    """Detect deformable convolutions, also by name; a NaN as an offset can crash their kernels."""
    known = isinstance(module, DeformConv | ModulatedDeformConv | DeformConv2d)
    name = type(module).__name__.lower()
    return known or "deform" in name or name.startswith("dcn")


@torch.no_grad()
def profile_step(
    module: nn.Module,
    call: Callable[..., Tensor],
    channels: Sequence[int],
    scale: int = 1,
) -> StepProfile | None:
    """Measure how far a NaN in the middle of each input spreads.

    The receptive field is thus found for any module, independent of its weights.

    Args:
        module: maps features to features.
        call: runs ``module`` (first argument) on its inputs, all of one size.
        channels: channels of the inputs.
        scale: side of the output as a multiple of the inputs'.

    Returns:
        The profile; None if a NaN spreads without bound, or the output depends on the position.
    """
    # Double precision uses PyTorch's own convolution, which shares no sums among cells; faster
    # algorithms do, and would spread a NaN too far.
    module = copy.deepcopy(module).cpu().double().eval()
    with torch.autocast("cpu", enabled=False):
        for side in _PROBE_SIDES:
            macs: list[int] = []
            with _counted(module, macs):
                distances = [_spread(module, call, channels, k, side) for k in range(len(channels))]
            halos = tuple(-(-distance // scale) for distance in distances)
            if max(halos) < side // 2 - 1:
                if not _is_stationary(module, call, channels, scale, max(halos)):
                    return None
                return StepProfile(halos, sum(macs) // (len(channels) * side**2))
    return None


def _is_stationary(
    module: nn.Module, call: Callable[..., Tensor], channels: Sequence[int], scale: int, halo: int
) -> bool:
    """Check that the output over a window equals that over the whole, except in the halo."""
    margin = halo + halo % 2 + 2  # even: some steps read an input at half the resolution
    side = 3 * margin
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(1, c, side, side, dtype=torch.double, generator=generator) for c in channels
    ]
    whole = call(module, *inputs)[..., scale * 2 * margin :, scale * 2 * margin :]
    windows = [x[..., margin:, margin:] for x in inputs]
    found = call(module, *windows)[..., scale * margin :, scale * margin :]
    return torch.allclose(found, whole, rtol=1e-6, atol=1e-9)


def _spread(
    module: nn.Module, call: Callable[..., Tensor], channels: Sequence[int], probed: int, side: int
) -> int:
    """Return how many cells of the output, beyond its own, a NaN in input ``probed`` reaches."""
    inputs = [torch.zeros(1, c, side, side, dtype=torch.double) for c in channels]
    middle = side // 2
    inputs[probed][..., middle, middle] = torch.nan
    found = call(module, *inputs).isnan().any(dim=1)[0]
    scale = found.shape[-1] // side
    distance = 0
    for cells in (found.any(dim=0), found.any(dim=1)):
        reached = cells.nonzero()[:, 0].tolist()
        if reached:
            own = middle * scale
            distance = max(distance, own - reached[0], reached[-1] - (own + scale - 1))
    return distance


@contextmanager
def _counted(module: nn.Module, macs: list[int]) -> Iterator[None]:
    """Append the multiply-accumulates of each convolution that runs to ``macs``."""

    def count(conv: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Forward hook that counts one convolution."""
        macs.append(conv.weight.numel() * output.shape[-1] * output.shape[-2])

    hooks = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, nn.Conv2d)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
