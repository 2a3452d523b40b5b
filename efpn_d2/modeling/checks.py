"""Checks of a config and of module interfaces, each ending in one sentence that says what to do."""

from collections.abc import Container, Iterable

from detectron2.config import CfgNode

__all__ = ["check_features", "efpn_node"]


def efpn_node(cfg: CfgNode) -> CfgNode:
    """``cfg.MODEL.EFPN``.

    Raises:
        KeyError: ``add_efpn_config`` was not called.
    """
    if "EFPN" not in cfg.MODEL:
        raise KeyError(
            "cfg.MODEL.EFPN is missing: call efpn_d2.add_efpn_config(cfg) before merging a config "
            "file and building the model."
        )
    return cfg.MODEL.EFPN


def check_features(key: str, wanted: Iterable[str], available: Container[str]) -> None:
    """Check that every feature map that ``key`` names is one that the backbone returns.

    Args:
        key: the config key that lists ``wanted``, for the message.
        wanted: names of feature maps.
        available: names of the maps there are.

    Raises:
        ValueError: some are not; the message names them, the key and what there is.
    """
    unknown = [name for name in wanted if name not in available]
    if unknown:
        raise ValueError(
            f"{key} names {', '.join(unknown)}, but the backbone returns only "
            f"{', '.join(available)}: correct {key} or use an EFPN backbone "
            "(MODEL.BACKBONE.NAME build_resnet_efpn_backbone)."
        )
