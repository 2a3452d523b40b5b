"""What a config inserts into a backbone: what a pyramid's finished outputs go through."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from efpn_d2.config import require_node
from efpn_d2.modeling.backbone.cem import build_cem
from efpn_d2.modeling.backbone.fbsm import build_fbsm
from efpn_d2.modeling.backbone.sgdm import build_sgdm_on_levels

# Detectron2's builders, which insert nothing, and ours that do.
ENHANCED_BUILDERS = {
    "build_resnet_fpn_backbone": "build_resnet_enhanced_fpn_backbone",
    "build_retinanet_resnet_fpn_backbone": "build_retinanet_resnet_enhanced_fpn_backbone",
}

# In the order in which they run: context comes before the masks that are to tell what stands out in
# it. Each entry: name of the child that it becomes, and a function of (cfg, output_shape of the
# pyramid) that returns a module or, if the config asks for nothing, None. A module maps all
# outputs, dict[str, Tensor], to all outputs with the same names and shapes; it may add others in
# training, and tells by ``changed_levels()`` which it changes.
_STEPS = (("cem", build_cem), ("fbsm", build_fbsm), ("sgdm", build_sgdm_on_levels))


class PyramidEnhancement(nn.Sequential):
    """Modules that the outputs of a pyramid go through, one after the other."""

    def changed_levels(self) -> set[str]:
        """The outputs that any of the modules changes."""
        steps: Iterable[Any] = self  # PyTorch only knows that they are modules
        return {name for step in steps for name in step.changed_levels()}

    def forward(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """A pyramid's outputs, each (N, C, H_l, W_l) -> the same names and shapes.

        In training also FBSM's masks, see ``MASK_LOGITS``.
        """
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
    steps: OrderedDict[str, nn.Module] = OrderedDict()
    for name, build in _STEPS:
        step = build(cfg, levels)
        if step is not None:
            steps[name] = step
    return PyramidEnhancement(steps) if steps else None


def is_enhanced(cfg: CfgNode) -> bool:
    """Whether ``cfg`` inserts anything, after stages or on levels.

    Raises:
        KeyError: ``add_efpn_config`` was not called.
    """
    sgdm, efpn_bs = require_node(cfg, "MODEL.SGDM"), require_node(cfg, "MODEL.EFPN_BS")
    inserted = sgdm.AFTER_STAGES or sgdm.ON_LEVELS or efpn_bs.CEM_ENABLED or efpn_bs.FBSM_ENABLED
    return bool(inserted)


def check_enhancement(cfg: CfgNode) -> None:
    """Check that what ``cfg`` inserts is not lost on one of Detectron2's own builders.

    Raises:
        ValueError: it is; the message names the builder to use.
        KeyError: ``add_efpn_config`` was not called.
    """
    name = cfg.MODEL.BACKBONE.NAME
    if name in ENHANCED_BUILDERS and is_enhanced(cfg):
        raise ValueError(
            "The config inserts blocks into the backbone, but MODEL.BACKBONE.NAME is "
            f"{name}, which does not know them: set it to {ENHANCED_BUILDERS[name]}."
        )
