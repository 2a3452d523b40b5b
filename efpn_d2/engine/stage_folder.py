"""Output folder of a stage: which training it holds, and whether that is finished."""

from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode

from efpn_d2.model_zoo import get_config
from efpn_d2.modeling.stage_config import stage_config
from efpn_d2.modeling.stage_table import STAGES, get_stage
from efpn_d2.utils.files import write_atomically

# stage.yaml tells a later run which training this is. Other runs write config.yaml too, such as an
# evaluation with this OUTPUT_DIR.
_NOTE, _CONFIG = "stage.yaml", "config.yaml"

# A training may resume with other values of these: it is the same except for rounding, and for the
# statistics of batch normalization, which depend on the parts of a batch and on the processes.
_WITHOUT_EFFECT = (
    "CUDNN_BENCHMARK",
    "DATALOADER.NUM_WORKERS",
    "DISTILL.SCHEDULE",
    "MODEL.DEVICE",
    "OUTPUT_DIR",
    "SOLVER.CHECKPOINT_PERIOD",
    "TEST.EVAL_PERIOD",
    "TRAINING.ACCUMULATE_GRADIENTS",
    "VIS_PERIOD",
)


def record_path(cfg: CfgNode) -> Path:
    """Return the path of the run record that is written at the end of a stage."""
    return Path(cfg.OUTPUT_DIR, "record.json")


def output_path(cfg: CfgNode) -> Path:
    """Return the path of the stage's final weights, as Detectron2 names them."""
    return Path(cfg.OUTPUT_DIR, "model_final.pth")


def same_training(cfg: CfgNode) -> bool:
    """Check whether the stage's folder is empty or holds the training that ``cfg`` describes.

    Only options that change the training are compared. An option that the folder does not know,
    since it is of an earlier version, has its default.
    """
    folder = Path(cfg.OUTPUT_DIR)
    # Folders of earlier versions have no stage.yaml.
    noted = next((f for f in (folder / _NOTE, folder / _CONFIG) if f.is_file()), None)
    return noted is None or _values(get_config(str(noted))) == _values(cfg)


def note_training(cfg: CfgNode) -> None:
    """Write the config of the training to the stage's folder."""
    folder = Path(cfg.OUTPUT_DIR)
    for name in (_NOTE, _CONFIG):
        write_atomically(folder / name, cfg.dump().encode())


def _values(cfg: CfgNode) -> dict[str, Any]:
    """Return the options that define the training of a stage."""
    values = yaml.safe_load(stage_config(cfg).dump())
    # Both meta-architectures train alike, and earlier versions used the first one.
    if values["MODEL"]["META_ARCHITECTURE"] == "GeneralizedRCNN":
        values["MODEL"]["META_ARCHITECTURE"] = "EFPNRCNN"
    for key in _WITHOUT_EFFECT:
        *parents, name = key.split(".")
        node = values
        for parent in parents:
            node = node[parent]
        node.pop(name, None)
    own = get_stage(cfg.DISTILL.STAGE).options
    for stage in STAGES.values():
        for name in set(stage.options).difference(own):
            values["DISTILL"].pop(name, None)
    return values
