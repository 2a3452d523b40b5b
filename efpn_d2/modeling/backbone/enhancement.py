"""Modules that the config inserts after the outputs of a pyramid."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from efpn_d2.modeling.backbone.cem import build_cem
from efpn_d2.modeling.backbone.fbsm import ForegroundBackgroundSeparationModule, build_fbsm
from efpn_d2.modeling.backbone.sgdm import build_sgdm_on_levels

# In the order in which they run: CEM before FBSM, whose masks then see the context that it adds.
# Each entry has the name of a child, and a function of (cfg, output_shape of the pyramid) that
# returns a module, or None if the config does not enable it. A module maps all outputs,
# dict[str, Tensor], to outputs with the same names and shapes; its ``changed_levels()`` returns
# those that it changes.
_STEPS = (("cem", build_cem), ("fbsm", build_fbsm), ("sgdm", build_sgdm_on_levels))


class PyramidEnhancement(nn.Sequential):
    """Modules that are applied one after the other to the outputs of a pyramid."""

    def changed_levels(self) -> set[str]:
        """Return the names of the outputs that any of the modules changes."""
        steps: Iterable[Any] = self  # PyTorch only knows that they are modules
        return {name for step in steps for name in step.changed_levels()}

    def forward(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Apply the modules to outputs (N, C, H_l, W_l); names and shapes do not change."""
        for step in self:
            outputs = step(outputs)
        return outputs

    def forward_with_masks(
        self, outputs: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Run :meth:`forward` and return FBSM's masks before the sigmoid, too.

        Args:
            outputs: outputs of a pyramid, each (N, C, H_l, W_l).

        Returns:
            The enhanced outputs, and the mask (N, 1, H_l, W_l) of each gated level; empty without
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
    """Build all modules that ``cfg`` enables; None if there are none.

    Args:
        cfg: a config.
        levels: the pyramid's ``output_shape()``.

    Raises:
        ValueError: see the builders of the modules.
        KeyError: if ``add_efpn_config`` was not called.
    """
    steps: OrderedDict[str, nn.Module] = OrderedDict()
    for name, build in _STEPS:
        step = build(cfg, levels)
        if step is not None:
            steps[name] = step
    return PyramidEnhancement(steps) if steps else None


def find_fbsm(backbone: nn.Module) -> ForegroundBackgroundSeparationModule | None:
    """Return the FBSM of a pyramid; None if it has none."""
    fbsm = getattr(getattr(backbone, "enhancement", None), "fbsm", None)
    return fbsm if isinstance(fbsm, ForegroundBackgroundSeparationModule) else None
