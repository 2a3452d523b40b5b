"""What a config inserts into a backbone: what a pyramid's finished outputs go through."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from efpn_d2.modeling.backbone.cem import build_cem
from efpn_d2.modeling.backbone.fbsm import ForegroundBackgroundSeparationModule, build_fbsm
from efpn_d2.modeling.backbone.sgdm import build_sgdm_on_levels

# In the order in which they run: context comes before the masks that are to tell what stands out in
# it. Each entry: name of the child that it becomes, and a function of (cfg, output_shape of the
# pyramid) that returns a module or, if the config asks for nothing, None. A module maps all
# outputs, dict[str, Tensor], to all outputs with the same names and shapes, and tells by
# ``changed_levels()`` which it changes.
_STEPS = (("cem", build_cem), ("fbsm", build_fbsm), ("sgdm", build_sgdm_on_levels))


class PyramidEnhancement(nn.Sequential):
    """Modules that the outputs of a pyramid go through, one after the other."""

    def changed_levels(self) -> set[str]:
        """The outputs that any of the modules changes."""
        steps: Iterable[Any] = self  # PyTorch only knows that they are modules
        return {name for step in steps for name in step.changed_levels()}

    def forward(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """A pyramid's outputs, each (N, C, H_l, W_l) -> the same names and shapes."""
        for step in self:
            outputs = step(outputs)
        return outputs

    def forward_with_masks(
        self, outputs: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """As :meth:`forward`, and FBSM's masks before the sigmoid.

        Args:
            outputs: of a pyramid, each (N, C, H_l, W_l).

        Returns:
            The enhanced outputs, and of each gated level the mask (N, 1, H_l, W_l); none without
            FBSM.
        """
        mask_logits: dict[str, Tensor] = {}
        for step in self:
            if isinstance(step, ForegroundBackgroundSeparationModule):
                mask_logits = step.mask_logits(outputs)
                outputs = step.gate(outputs, mask_logits)
            else:
                outputs = step(outputs)
        return outputs, mask_logits


def build_enhancement(cfg: CfgNode, levels: dict[str, ShapeSpec]) -> PyramidEnhancement | None:
    """All that ``cfg`` asks for; None if that is nothing.

    Args:
        cfg: a config.
        levels: the pyramid's ``output_shape()``.

    Raises: as the builders of the single steps.
    """
    steps: OrderedDict[str, nn.Module] = OrderedDict()
    for name, build in _STEPS:
        step = build(cfg, levels)
        if step is not None:
            steps[name] = step
    return PyramidEnhancement(steps) if steps else None


def find_fbsm(backbone: nn.Module) -> ForegroundBackgroundSeparationModule | None:
    """The FBSM of a pyramid; None: it has none."""
    fbsm = getattr(getattr(backbone, "enhancement", None), "fbsm", None)
    return fbsm if isinstance(fbsm, ForegroundBackgroundSeparationModule) else None
