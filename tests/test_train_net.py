"""The command line, run as a user does: in processes of its own, outside of the source tree."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.engine.tiny_training import TINY_OPTS, write_coco
from tests.fork_server import ForkServer

ROOT = Path(__file__).parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
CONFIG = ("--config-file", "Base-RCNN-EFPN.yaml")
DATA_OFF = ("DATASETS.TRAIN", "()", "DATASETS.TEST", "()", "MODEL.WEIGHTS", "")


ENV = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def server():
    server = ForkServer(["efpn_d2.engine.command_line", "efpn_d2.engine.stages"], ENV)
    yield server
    server.close()


@pytest.fixture
def refused(server, folder, tmp_path):
    """What a command says that ends in one sentence."""

    def run_refused(*args, script="train_net.py"):
        result = server.run(ROOT / script, [str(x) for x in args], folder, tmp_path)
        assert result.returncode != 0
        assert "Traceback" not in result.stderr
        return result

    return run_refused


def run(folder, *args, launcher=(sys.executable,)):
    command = [*launcher, str(ROOT / "train_net.py"), *map(str, args)]
    result = subprocess.run(command, cwd=folder, env=ENV, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    return result.stdout


def metrics(output):
    return [line.split("copypaste: ")[1] for line in output.splitlines() if "copypaste" in line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train_net")
    write_coco(folder / "data")
    return folder


def data(*roles):
    paths = ("data/annotations.json", "data/images")
    return [
        arg for role in roles for arg in (f"--{role}-json", paths[0], f"--{role}-images", paths[1])
    ]


# The class count comes from the files; of the device, the default is left to be corrected.
OPTS = [*TINY_OPTS, "MODEL.ROI_HEADS.NUM_CLASSES", "80", "MODEL.DEVICE", "cuda"]
SCHEDULE = ["SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "2"]


@pytest.fixture(scope="module")
def trained(folder):
    output = run(folder, *CONFIG, *data("train", "test"), *OPTS, *SCHEDULE, "OUTPUT_DIR", "whole")
    return folder / "whole", output


def test_training_ends_with_a_checkpoint_and_metrics_by_size(trained):
    output_dir, output = trained
    assert (output_dir / "last_checkpoint").read_text() == "model_final.pth"
    predictor = torch.load(output_dir / "model_final.pth")["model"]
    assert len(predictor["roi_heads.small_box_predictor.cls_score.bias"]) == 3
    assert "AP_0_16" in metrics(output)[1]
    assert "CUDA is not available: running on the CPU." in output


def test_resumed_in_another_process_equals_uninterrupted(folder, trained):
    whole, output = trained
    part = folder / "part"
    part.mkdir()
    shutil.copy(whole / "model_0000001.pth", part)
    (part / "last_checkpoint").write_text("model_0000001.pth")
    # Resuming needs no options but those of the training, which are kept next to the checkpoint.
    resumed = run(folder, "--config-file", whole / "config.yaml", "--resume", "OUTPUT_DIR", "part")
    assert "Starting training from iteration 2" in resumed
    expected, weights = (torch.load(d / "model_final.pth")["model"] for d in (whole, part))
    assert [k for k in expected if not torch.equal(expected[k], weights[k])] == []
    assert metrics(resumed) == metrics(output)


def test_what_is_probably_not_meant_is_said(folder):
    schedule = ("DISTILL.SCHEDULE", '[["base", 2, 0.01]]', "SOLVER.MAX_ITER", 1)
    args = (
        "--resume",
        *data("train"),
        *OPTS,
        *schedule,
        "OUTPUT_DIR",
        "said",
        "DATASETS.TEST",
        "()",
    )
    output = run(folder, *CONFIG, *args)
    assert "no file last_checkpoint. Starting from MODEL.WEIGHTS" in " ".join(output.split())
    assert "DISTILL.SCHEDULE is for tools/run_stages.py" in output


def test_evaluation_in_two_processes_gives_the_same_metrics(folder, trained):
    whole, output = trained
    args = ("--num-gpus", 2, "--eval-only", *CONFIG, *data("test"), *OPTS, "OUTPUT_DIR", "eval")
    evaluated = run(folder, *args, "MODEL.WEIGHTS", whole / "model_final.pth")
    assert metrics(evaluated) == metrics(output)


def test_evaluation_at_several_scales_comes_beside_that_at_one(folder, trained):
    whole, output = trained
    args = ("--eval-only", *CONFIG, *data("test"), *OPTS, "OUTPUT_DIR", "scales")
    scales = ("TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(64, 96)")
    evaluated = run(folder, *args, "MODEL.WEIGHTS", whole / "model_final.pth", *scales)
    lines, single = metrics(evaluated), metrics(output)
    assert lines[: len(single)] == single
    assert len(lines) == 2 * len(single) and lines[len(single) + 1] == single[1]  # the names
    assert (folder / "scales" / "inference_TTA" / "coco_instances_results.json").is_file()


def test_torchrun(folder):
    """One process group of two, whose training and evaluation end together."""
    args = (*CONFIG, *data("train", "test"), *OPTS, "SOLVER.MAX_ITER", 2, "OUTPUT_DIR", "torchrun")
    output = run(folder, *args, launcher=TORCHRUN)
    assert "World size: 2" in output
    assert "AP_0_16" in metrics(output)[1]
    state = torch.load(folder / "torchrun" / "model_final.pth")
    assert state["iteration"] == 1
    assert state["trainer"]["hooks"]["ResumeHook"]["stream"]["processes"] == 2


def test_unknown_config_ends_in_one_sentence(refused):
    result = refused("--config-file", "no_such.yaml")
    assert result.returncode == 2
    assert "efpn_d2 has no config 'no_such.yaml'; it has: " in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--train-json", "none.json", "--train-images", "images"), "none.json"),
        (("MODEL.EFPN.SMALL_BOX_SIZE", "56"), "MODEL.EFPN.SMALL_BOX_SIZE"),
        (("MODEL.EFPN.NO_SUCH_KEY", "1"), "MODEL.EFPN.NO_SUCH_KEY"),
        ((), "coco_2017_train"),
        (("--eval-only", *DATA_OFF), "add --resume to use the last checkpoint"),
        (("--eval-only", *DATA_OFF, "MODEL.WEIGHTS", "nope.pth"), "'nope.pth' does not exist"),
        (
            (
                *("--eval-only", *DATA_OFF, "MODEL.WEIGHTS", "data/annotations.json"),
                *("MODEL.META_ARCHITECTURE", "RetinaNet", "TEST.AUG.ENABLED", "True"),
            ),
            "but not RetinaNet: set TEST.AUG.ENABLED to False",
        ),
        (
            ("--eval-only", *DATA_OFF, "MODEL.WEIGHTS", "data/annotations.json"),
            "'data/annotations.json' cannot be read as a checkpoint",
        ),
        ((*DATA_OFF, "DISTILL.STAGE", "destill"), "'destill', which does not exist"),
        ((*DATA_OFF, "TRAINING.AMP_PRECISION", "half"), "use one of float16, bfloat16"),
        ((*DATA_OFF, "TRAINING.ACCUMULATE_GRADIENTS", "3"), "make it a multiple of 3"),
        ((*DATA_OFF, "MODEL.EFPN.PRESET", "papier"), "papier"),
    ],
)
def test_what_is_wrong_with_the_arguments_ends_in_one_sentence(refused, args, message):
    assert message in refused(*CONFIG, *args).stderr.splitlines()[-1]


@pytest.mark.parametrize("mode", ["--resume", "--eval-only --resume"])
def test_a_checkpoint_that_is_gone_is_named(refused, tmp_path, mode):
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    args = (*mode.split(), *CONFIG, *data("train", "test"), *OPTS, "OUTPUT_DIR", tmp_path)
    message = refused(*args).stderr.splitlines()[-1]
    assert message.startswith("error: ") and "last_checkpoint' names " in message
    assert f"{tmp_path}/model_0000001.pth', which is not there" in message


@pytest.mark.parametrize(
    ("args", "opts", "message"),
    [
        (["--eval-only"], [], "error: --eval-only evaluates one detector"),
        ([], ["DISTILL.OHEM_BATCH", "0"], "error: stage head: DISTILL.OHEM_BATCH 0"),
        ([], ["TRAINING.AMP_PRECISION", "half"], "error: stage base: TRAINING.AMP_PRECISION is"),
    ],
)
def test_mistakes_in_the_arguments_of_stages_end_in_one_sentence(
    refused, folder, args, opts, message
):
    schedule = ("DISTILL.SCHEDULE", '[["base", 2, 0.01], ["head", 2, 0.01]]', "OUTPUT_DIR", "none")
    args = (*CONFIG, *args, *data("train", "test"), *OPTS, *schedule, *opts)
    result = refused(*args, script="tools/run_stages.py")
    assert message in result.stderr.splitlines()[-1]
    assert not (folder / "none" / "base").exists()
