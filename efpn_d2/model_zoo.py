"""The configs that come with the package, found from any working directory."""

from pathlib import Path

from detectron2.config import CfgNode, get_cfg

from efpn_d2.config import add_efpn_config

_PACKAGE_DIR = Path(__file__).resolve().parent


def _config_root() -> Path:
    """The installed ``efpn_d2/configs``, or ``configs/`` of the source tree it is packaged from."""
    installed = _PACKAGE_DIR / "configs"
    return installed if installed.is_dir() else _PACKAGE_DIR.parent / "configs"


def get_config_file(name: str) -> str:
    """Path of a packaged config.

    Args:
        name: path below ``configs/``, e.g. ``"COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml"``; or
            the path of any file, which is returned as it is.

    Returns:
        The path of the YAML file, absolute for a packaged one.

    Raises:
        FileNotFoundError: no such config; the message lists those there are.
    """
    path = Path(name) if Path(name).is_file() else _config_root() / name
    if not path.is_file():
        raise FileNotFoundError(
            f"efpn_d2 has no config '{name}'; it has: {', '.join(list_configs())}"
        )
    return str(path)


def list_configs() -> list[str]:
    """Names of all packaged configs, sorted, each valid for :func:`get_config`."""
    root = _config_root()
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*.yaml"))


def get_config(name: str) -> CfgNode:
    """A packaged config, or any file, merged into Detectron2's and this package's defaults.

    Args:
        name: see :func:`get_config_file`.

    Returns:
        A mutable config, ready for ``detectron2.modeling.build_model``.
    """
    cfg = get_cfg()
    add_efpn_config(cfg)
    cfg.merge_from_file(get_config_file(name))
    return cfg
