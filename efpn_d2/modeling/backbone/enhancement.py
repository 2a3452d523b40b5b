"""What a pyramid's finished outputs go through, as a config says."""

from collections import OrderedDict

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from .sgdm import build_sgdm_on_levels

__all__ = ["PyramidEnhancement", "build_enhancement"]

# In the order in which they run. Each entry: name of the child that it becomes, and a function of
# (cfg, output_shape of the pyramid) that returns a module or, if the config asks for nothing, None.
# A module maps all outputs, dict[str, Tensor], to all outputs with the same names and shapes.
_STEPS = (("sgdm", build_sgdm_on_levels),)


class PyramidEnhancement(nn.Sequential):
    """Modules that the outputs of a pyramid go through, one after the other."""

    def forward(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """A pyramid's outputs, each (N, C, H_l, W_l) -> the same names and shapes."""
        for step in self:
            outputs = step(outputs)
        return outputs


def build_enhancement(cfg: CfgNode, levels: dict[str, ShapeSpec]) -> PyramidEnhancement | None:
    """All that ``cfg`` asks for; None if that is nothing.

    Args:
        cfg: a config.
        levels: the pyramid's ``output_shape()``.

    Raises: as the builders of the single steps.
    """
    steps = OrderedDict()
    for name, build in _STEPS:
        step = build(cfg, levels)
        if step is not None:
            steps[name] = step
    return PyramidEnhancement(steps) if steps else None
