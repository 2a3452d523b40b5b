"""What released versions wrote still loads: configs, checkpoints, results and stage folders.

The weights are constants, so that the compressed files are small.
"""

import gzip
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

import efpn_d2
from efpn_d2.checkpoint import EFPNCheckpointer
from efpn_d2.data.datasets import register_datasets
from efpn_d2.engine import EFPNTrainer
from efpn_d2.engine.stages import run_stages
from efpn_d2.report import write_report
from tests.data.conftest import catalogs  # noqa: F401
from tests.engine.tiny_training import write_coco

RELEASES = sorted(p for p in Path(__file__).parent.iterdir() if p.name.startswith("v"))


@pytest.fixture(params=RELEASES, ids=lambda p: p.name)
def folder(request, tmp_path, catalogs):  # noqa: F811
    """A release's files, with their data set beside them."""
    shutil.copytree(request.param, tmp_path / "made")
    write_coco(tmp_path / "made" / "data")
    for path in (tmp_path / "made").rglob("*"):
        if path.suffix in (".yaml", ".json"):
            path.write_text(path.read_text().replace("FOLDER", str(tmp_path / "made")))
        if path.suffix == ".gz":
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    return tmp_path / "made"


def test_a_checkpoint_fills_the_detector_of_its_config(folder):
    cfg = efpn_d2.get_config(str(folder / "training" / "config.yaml"))
    model = build_model(cfg)
    checkpointer = EFPNCheckpointer(model)
    loaded = {}
    load_model = checkpointer._load_model
    checkpointer._load_model = lambda c: loaded.setdefault("keys", load_model(c))
    checkpointer.load(str(folder / "training" / "model_0000001.pth"))
    keys = loaded["keys"]
    assert (keys.missing_keys, keys.unexpected_keys, keys.incorrect_shapes) == ([], [], [])


def test_a_training_is_resumed(folder):
    cfg = efpn_d2.get_config(str(folder / "training" / "config.yaml"))
    cfg.OUTPUT_DIR = str(folder / "training")
    cfg.SOLVER.MAX_ITER = 3
    register_datasets(cfg)
    trainer = EFPNTrainer(cfg)
    trainer.resume_or_load(resume=True)
    trainer.train()
    assert (trainer.start_iter, trainer.iter) == (2, 3)
    assert torch.load(folder / "training" / "model_final.pth")["iteration"] == 2


def test_results_make_a_report(folder):
    path = folder / "training" / "coco_instances_results.json"
    data = folder / "data"
    page = write_report([path], data / "annotations.json", data / "images", folder / "report")
    assert page.is_file()


def test_finished_stages_are_skipped(folder, monkeypatch):
    monkeypatch.chdir(folder)  # as they were trained, by a relative OUTPUT_DIR
    cfg = efpn_d2.get_config(str(folder / "stages" / "config.yaml"))
    register_datasets(cfg)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("model_final.pth")}
    assert len(before) == 3
    run_stages(cfg)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("model_final.pth")} == before
