"""The detectors whose speed is compared, all with the same proposals."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn
from torch.nn import functional as F
from variants import SGDM

import efpn_d2

NUM_SMALL, NUM_LARGE = 300, 700  # proposals per image
_TILE = 64  # pixels: what "active area" is counted in, 32 cells of P'2
_STOCK = [
    *("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone", "MODEL.PROPOSAL_GENERATOR.NAME", "RPN"),
    *("MODEL.ROI_HEADS.NAME", "StandardROIHeads"),
]

_ENHANCED = [*_STOCK[2:], "MODEL.BACKBONE.NAME", "build_resnet_enhanced_fpn_backbone"]
_PROPOSE = ["MODEL.EFPN.RPN_ON_P2_PRIME", True, "MODEL.EFPN.P2_PRIME_ANCHOR_SIZES", [16]]


class Detector(NamedTuple):
    """What is timed."""

    options: list[Any]
    """Keys and values."""
    active: float = 0.1
    """Share of the image in tiles of 64 px that hold small proposals."""
    scale: float = 1
    """Side of the image as a multiple of the others'."""
    spread: int | None = None
    """That many small proposals, anywhere in the image."""
    slices: bool = False
    """Run it on the image and on its four quarters at twice the scale, too."""


def _efpn(preset: str, lazy: bool = False) -> list[Any]:
    return ["MODEL.EFPN.PRESET", preset, "MODEL.EFPN.LAZY", lazy]


_P2_PRIME_ALONE = ["MODEL.EFPN.SMALL_IN_FEATURES", ["p2_prime"]]

DETECTORS = {
    "FPN": Detector(_STOCK),
    **{
        f"FPN at {scale:g} times the side": Detector(_STOCK, scale=scale)
        for scale in (1.19, 1.41, 1.68)
    },
    "FPN on the image at twice the side": Detector(_STOCK, scale=2),
    "FPN + 2 x 2 slices": Detector(_STOCK, slices=True),
    **{f"EFPN {x}, dense": Detector(_efpn(x)) for x in ("paper", "reference")},
    "EFPN paper + SGDM, P'2 in the RPN, dense": Detector([*_efpn("paper"), *_PROPOSE, *SGDM]),
    "FPN + SGDM": Detector([*_ENHANCED, *SGDM]),
    **{
        f"FPN + SGDM at {scale:g} times the side": Detector([*_ENHANCED, *SGDM], scale=scale)
        for scale in (1.19, 1.41, 1.68, 2.0)
    },
    "EFPN slim": Detector([*_efpn("slim"), *_PROPOSE]),
    "EFPN slim + SGDM": Detector([*_efpn("slim"), *_PROPOSE, *SGDM]),
    "EFPN slim, P'2 alone": Detector([*_efpn("slim"), *_PROPOSE, *SGDM, *_P2_PRIME_ALONE]),
    "EFPN slim, P'2 alone, of 64 channels": Detector(
        [
            *(*_efpn("slim"), *_PROPOSE, *SGDM, *_P2_PRIME_ALONE),
            *("MODEL.EFPN.P2_PRIME_CHANNELS", 64),
        ]
    ),
    **{
        f"EFPN paper, lazy, {active} % active": Detector(_efpn("paper", lazy=True), active / 100)
        for active in (2, 10, 30, 100)
    },
    **{
        f"EFPN paper, lazy, {number} small boxes anywhere": Detector(
            _efpn("paper", lazy=True), spread=number
        )
        for number in (3, 10, 30, 100)
    },
}


class FixedProposals(nn.Module):
    """A proposal generator that runs, and whose proposals are then replaced."""

    def __init__(self, generator: nn.Module, boxes: Tensor) -> None:
        super().__init__()
        self.generator = generator
        self.boxes = boxes

    def forward(
        self, images: ImageList, features: dict[str, Tensor], instances: object = None
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """The same boxes for each image, and no losses."""
        self.generator(images, features, instances)
        scores = torch.zeros(len(self.boxes), device=self.boxes.device)
        fixed = [
            Instances(size, proposal_boxes=Boxes(self.boxes.clone()), objectness_logits=scores)
            for size in images.image_sizes
        ]
        return fixed, {}


def make_proposals(side: int, active: float, spread: int | None = None, seed: int = 0) -> Tensor:
    """Small boxes in some tiles of the image, and larger ones anywhere: (1000, 4) in pixels.

    Args:
        side: of the image.
        active: share of its tiles that hold small boxes; at least one does.
        spread: this many small boxes anywhere instead, and as many more larger ones.
        seed: of the places.
    """
    generator = torch.Generator().manual_seed(seed)
    small = _in_tiles(side, active, generator)
    if spread is not None:
        small = _anywhere(side, spread, 8, 32, generator)
    large = _anywhere(side, NUM_SMALL + NUM_LARGE - len(small), 130, 300, generator)
    return torch.cat([small, large])


def _in_tiles(side: int, active: float, generator: torch.Generator) -> Tensor:
    per_side = -(-side // _TILE)
    chosen = torch.randperm(per_side**2, generator=generator)
    chosen = chosen[: max(round(active * per_side**2), 1)]
    tiles = chosen[torch.arange(NUM_SMALL) % len(chosen)]
    corners = torch.stack([tiles % per_side, tiles // per_side], dim=1) * _TILE
    sides = 8 + 24 * torch.rand(NUM_SMALL, 1, generator=generator)
    # One pixel and a half away from the neighbours, which RoIAlign would read too.
    room = _TILE - 8 - sides
    start = corners + 4 + room * torch.rand(NUM_SMALL, 2, generator=generator)
    return torch.cat([start, start + sides], dim=1).clamp(max=side)


def _anywhere(
    side: int, number: int, shortest: float, longest: float, generator: torch.Generator
) -> Tensor:
    start = torch.rand(number, 2, generator=generator) * side * 0.8
    sides = shortest + (longest - shortest) * torch.rand(number, 2, generator=generator)
    return torch.cat([start, start + sides], dim=1).clamp(max=side)


def detector_config(
    config: str, detector: Detector, device: str, options: Sequence[str] = ()
) -> CfgNode:
    """The config of a detector without weights, and with some more options."""
    cfg = efpn_d2.get_config(config)
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.DEVICE = device
    cfg.merge_from_list([*detector.options, *options])
    return cfg


def build_detector(
    config: str, detector: Detector, size: int, device: str, options: Sequence[str] = ()
) -> nn.Module:
    """A detector with new weights and fixed proposals, in evaluation mode."""
    torch.manual_seed(0)
    model = build_model(detector_config(config, detector, device, options)).eval()
    boxes = make_proposals(size, detector.active, detector.spread).to(device) * detector.scale
    model.proposal_generator = FixedProposals(model.proposal_generator, boxes)
    return model


def make_run(
    model: nn.Module, detector: Detector, size: int, batch: int = 1
) -> Callable[[], object]:
    """A call that detects on ``batch`` images of side ``size``, which the model's device holds."""
    generator = torch.Generator().manual_seed(0)
    image = (torch.rand(batch, 3, size, size, generator=generator) * 255).to(model.device)
    if detector.scale > 1:
        image = F.interpolate(image, size=2 * (round(detector.scale * size),))
    images = [image]
    if detector.slices:
        half = size // 2
        quarters = [image[..., y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
        images += [F.interpolate(x, size=(size, size)) for x in quarters]
    batches = [[{"image": x, "height": x.shape[1], "width": x.shape[2]} for x in b] for b in images]

    def run() -> None:
        """One batch after the other, as slicing tools do."""
        for batch in batches:
            model(batch)

    return run
