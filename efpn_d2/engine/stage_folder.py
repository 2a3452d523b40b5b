"""The folder of a stage: which training it holds, and whether that is finished."""

from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode

from efpn_d2.model_zoo import get_config
from efpn_d2.modeling.stage_table import STAGES, get_stage
from efpn_d2.modeling.stages import stage_config
from efpn_d2.utils.files import write_atomically

# What tells a later run which training this is. Others write config.yaml too, such as an evaluation
# with this OUTPUT_DIR.
_NOTE, _CONFIG = "stage.yaml", "config.yaml"

# With another value of these a training may go on: it is the same but for rounding, and for the
# statistics of batch normalisation, which parts of a batch and several processes collect.
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
    """The run record that ends a stage."""
    return Path(cfg.OUTPUT_DIR, "record.json")


def output_path(cfg: CfgNode) -> Path:
    """The stage's last weights, as Detectron2 names them."""
    return Path(cfg.OUTPUT_DIR, "model_final.pth")


def same_training(cfg: CfgNode) -> bool:
    """Whether the stage's folder holds what ``cfg`` trains, as far as anything is in it.

    Options count that make this stage another training. One that is younger than the
    folder has its default.
    """
    folder = Path(cfg.OUTPUT_DIR)
    # Folders of earlier versions have no note.
    noted = next((f for f in (folder / _NOTE, folder / _CONFIG) if f.is_file()), None)
    return noted is None or _values(get_config(str(noted))) == _values(cfg)


def note_training(cfg: CfgNode) -> None:
    """Say in the stage's folder what is trained there."""
    folder = Path(cfg.OUTPUT_DIR)
    for name in (_NOTE, _CONFIG):
        write_atomically(folder / name, cfg.dump().encode())


def _values(cfg: CfgNode) -> dict[str, Any]:
    """What makes a stage the training that it is."""
    values = yaml.safe_load(stage_config(cfg).dump())
    # Both train alike what both know, and earlier versions named the first.
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
