"""What each step from the stock maps to P'2 reads around a cell, and what it costs."""

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

_PROBE_SIDES = (20, 40, 80)  # even: some steps read an input at half the resolution


class StepProfile(NamedTuple):
    """Of one step."""

    halos: tuple[int, ...]
    """Of each input: cells around a region of it that the output over that region depends on."""
    macs: int
    """Multiply-accumulates of the convolutions per cell of the input."""

    @property
    def halo(self) -> int:
        """The largest."""
        return max(self.halos)


class ExtensionProfile(NamedTuple):
    """Of all steps, each in cells of its input."""

    content: StepProfile
    """merged3 (stride 8) to its up-sampled map (stride 4)."""
    transfer: StepProfile
    """That and merged2 to P'3 (stride 4)."""
    stage2: StepProfile
    """The stem's map to C'2 (stride 2)."""
    output: StepProfile
    """C'2 and P'3 to P'2 (stride 2)."""

    def last_halos(self, reader_halo: int) -> tuple[int, int]:
        """Cells around a region of P'2 that steps ``stage2`` and ``output`` are run on.

        That of ``output`` is even, for windows to begin with a whole cell of P'3. C'2 is read less
        far than P'3, whose cells are larger; beyond that it may be wrong.

        Args:
            reader_halo: of what reads P'2 around the region.
        """
        output = self.output.halo + reader_halo
        output += output % 2
        return max(self.output.halos[0] + reader_halo + self.stage2.halo, output), output


class ExtensionProfiler:
    """Makes a profile when first asked, and again where other modules are asked about."""

    def __init__(self) -> None:
        self._made_of: object = None
        self._profile: ExtensionProfile | None = None

    def __call__(self, stage2: nn.Module, extension: "PyramidExtension") -> ExtensionProfile | None:
        """See :func:`profile_extension`; also None, with a warning, where probing fails."""
        modules = _geometry(stage2, extension)
        if modules != self._made_of:
            try:
                self._profile = profile_extension(stage2, extension)
            except Exception as error:  # of whatever modules someone has put there
                self._profile = None
                logger.warning(
                    "P'2 is computed in one piece: what its modules read around a cell could not "
                    f"be found ({type(error).__name__}: {error})."
                )
            self._made_of = modules
        return self._profile


def _geometry(*parents: nn.Module) -> list[tuple[Any, ...]]:
    """Of all modules, what says how far they read."""
    names = ("kernel_size", "padding", "dilation", "stride", "groups")
    return [
        (type(m), *(m.__dict__.get(name) for name in names))
        for parent in parents
        for m in parent.modules()
    ]


@torch.no_grad()
def profile_extension(stage2: nn.Module, extension: "PyramidExtension") -> ExtensionProfile | None:
    """Profile the steps from the stock maps to P'2; None: one reads its whole input, or too far.

    A step like that (a group normalisation, a global pool) cannot be computed in tiles, nor one
    that reads where its input says (a deformable convolution).

    Args:
        stage2: stage 2 of the bottom-up network.
        extension: one that reads C'2, and whose level 2 is the pyramid's own.
    """
    if any(_is_deformable(m) for part in (stage2, extension) for m in part.modules()):
        return None
    lateral: Conv2d = extension.lateral
    c2_channels, channels = lateral.in_channels, lateral.out_channels
    stem_channels = next(x for x in stage2.modules() if isinstance(x, nn.Conv2d)).in_channels
    up = extension.upsampler
    # Of the up-sampled content.
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
    """By the name, too, for there are many; a NaN as an offset can crash their kernels."""
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
    """Put a NaN into the middle of each input and see how far it spreads.

    So the halo comes from what the module does, whatever it is made of; weights do not matter.

    Args:
        module: maps maps to a map.
        call: runs ``module`` (first argument) on its inputs, all of one size.
        channels: of the inputs.
        scale: side of the output as a multiple of the inputs'.

    Returns:
        None if a NaN spreads over any distance.
    """
    # In double precision, of which PyTorch's own convolution shares no sums among cells, as faster
    # ones do, which would spread a NaN too far.
    module = copy.deepcopy(module).cpu().double().eval()
    with torch.autocast("cpu", enabled=False):
        for side in _PROBE_SIDES:
            macs: list[int] = []
            with _counted(module, macs):
                distances = [_spread(module, call, channels, k, side) for k in range(len(channels))]
            halos = tuple(-(-distance // scale) for distance in distances)
            if max(halos) < side // 2 - 1:
                return StepProfile(halos, sum(macs) // (len(channels) * side**2))
    return None


def _spread(
    module: nn.Module, call: Callable[..., Tensor], channels: Sequence[int], probed: int, side: int
) -> int:
    """Cells of the output that a NaN in input ``probed`` reaches beyond the cell's own."""
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
    """Append the multiply-accumulates of each convolution that runs."""

    def count(conv: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Forward hook of one."""
        macs.append(conv.weight.numel() * output.shape[-1] * output.shape[-2])

    hooks = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, nn.Conv2d)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
