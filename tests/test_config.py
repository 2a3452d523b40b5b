import os
from pathlib import Path

import pytest
from detectron2.config import get_cfg

import efpn_d2
from efpn_d2.model_zoo import list_configs

pytestmark = pytest.mark.fast

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def leaves(node, prefix="") -> dict[str, object]:
    out = {}
    for key, value in node.items():
        out.update(
            leaves(value, f"{prefix}{key}.") if hasattr(value, "items") else {prefix + key: value}
        )
    return out


def test_only_own_nodes_are_added_and_no_default_changes():
    cfg = get_cfg()
    efpn_d2.add_efpn_config(cfg)
    before, after = leaves(get_cfg()), leaves(cfg)
    assert {k: after[k] for k in before} == before
    nodes = ("EFPN", "EFPN_BS", "SGDM")
    own = (
        *(f"MODEL.{node}." for node in nodes),
        "DISTILL.",
        "TRAINING.",
        "COCO_DATA.",
        "DATA.",
        "EVALUATION.",
        "MULTI_SCALE_TEST.",
    )
    assert all(k.startswith(own) for k in after.keys() - before.keys())


def test_a_second_call_keeps_the_values():
    cfg = get_cfg()
    efpn_d2.add_efpn_config(cfg)
    cfg.MODEL.EFPN.SMALL_BOX_SIZE = 7.0
    efpn_d2.add_efpn_config(cfg)
    assert cfg.MODEL.EFPN.SMALL_BOX_SIZE == 7.0


def test_configs_are_found_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = list_configs()
    assert names == sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))
    assert "COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml" in names
    for name in names:
        assert os.path.isabs(efpn_d2.get_config_file(name))
        assert "fpn" in efpn_d2.get_config(name).MODEL.BACKBONE.NAME


def test_each_call_gives_a_config_of_its_own():
    (name, *_) = list_configs()
    efpn_d2.get_config(name).OUTPUT_DIR = "changed"
    assert efpn_d2.get_config(name).OUTPUT_DIR != "changed"


def test_a_file_of_ones_own_is_a_config_too(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("MODEL: {EFPN: {SMALL_BOX_SIZE: 33.0}}\nVERSION: 2\n")
    assert efpn_d2.get_config(str(path)).MODEL.EFPN.SMALL_BOX_SIZE == 33.0


def test_an_unknown_config_lists_those_there_are():
    with pytest.raises(FileNotFoundError, match="no config 'nope.yaml'; it has: .*mask_rcnn_R_50"):
        efpn_d2.get_config_file("nope.yaml")
