import pytest
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_HEADS_REGISTRY,
)

import efpn_d2  # noqa: F401  (registers)
from efpn_d2.modeling.stock_names import (
    ENHANCED_BUILDERS,
    EXTENDED,
    STOCK_FASTER_RCNN,
    stock_name,
)

pytestmark = pytest.mark.fast

REGISTRIES = {
    "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
    "MODEL.PROPOSAL_GENERATOR.NAME": PROPOSAL_GENERATOR_REGISTRY,
    "MODEL.ROI_HEADS.NAME": ROI_HEADS_REGISTRY,
    "MODEL.META_ARCHITECTURE": META_ARCH_REGISTRY,
}


@pytest.mark.parametrize("key", REGISTRIES)
def test_every_name_is_registered_by_whom_it_is_said_to_be(key):
    pairs = list(EXTENDED[key].items())
    pairs += list(ENHANCED_BUILDERS.items()) if key == "MODEL.BACKBONE.NAME" else []
    for stock, own in pairs:
        assert REGISTRIES[key].get(stock).__module__.startswith("detectron2.")
        assert REGISTRIES[key].get(own).__module__.startswith("efpn_d2.")
    assert EXTENDED.keys() == REGISTRIES.keys()


def test_back_to_stock():
    heads = "MODEL.ROI_HEADS.NAME"
    assert stock_name(heads, "EFPNROIHeads") == STOCK_FASTER_RCNN[heads] == "StandardROIHeads"
    assert stock_name(heads, "EFPNCascadeROIHeads") == "CascadeROIHeads"
    assert stock_name(heads, "RROIHeads") == "RROIHeads"
    for key, name in STOCK_FASTER_RCNN.items():
        assert stock_name(key, EXTENDED[key][name]) == name
