import json
import os
import re
import time

import gpu_check
import gpu_check_steps
import pytest
import torch
from gpu_check import FAILED, PASSED, SKIPPED, attempt, attempt_apart, main, run_steps
from gpu_check_steps import COMPILED, DRY, RECIPES, TIMED, Step, make_steps
from rendering.gpu_check_tables import render_gpu_check

pytestmark = pytest.mark.fast

DRY_RUN = ["--device", "cpu", "--dry-run"]


def in_this_process(step, seconds):
    return attempt(step)


def fail():
    raise ValueError("wrong\nin more lines")


def do_nothing():
    return {"done": True}


def leave():
    os._exit(3)


def hang():
    time.sleep(60)


def step(run, name="step", least=1, most=30):
    return Step(name, "train", least, most, run)


@pytest.fixture
def quick(monkeypatch):
    """No process for each step, no fp16, which CPUs emulate slowly, and no compiler."""
    scale = DRY._replace(backend="eager", batches=(2,))
    own = [s for s in make_steps(scale._replace(device="cpu")) if "float16" not in s.name.split()]
    monkeypatch.setattr(gpu_check, "make_steps", lambda _: own)
    monkeypatch.setattr(
        gpu_check, "run_steps", lambda *args: run_steps(*args, execute=in_this_process)
    )


def test_a_dry_run_writes_a_record_that_is_rendered(quick, tmp_path):
    file = tmp_path / "record.json"
    only = ["--only", "train slim", "train paper", "speed", "compile EFPN slim"]
    try:
        assert main([*DRY_RUN, *only, "--output", str(file)]) == 0
    finally:
        torch.set_flush_denormal(False)
    record = json.loads(file.read_text())
    assert record.keys() >= {"commit", "versions", "hardware", "device", "size", "seconds", "steps"}
    steps = {x["name"]: x for x in record["steps"]}
    assert list(steps) == [
        *("train slim bfloat16", "train paper bfloat16", "speed batch 2 float32"),
        f"compile {COMPILED[0]}",
    ]
    assert {x["outcome"] for x in steps.values()} == {PASSED}
    assert steps["speed batch 2 float32"]["result"]["rows"].keys() == set(TIMED)
    text = render_gpu_check(record)
    assert "| train slim bfloat16 |" in text
    assert re.search(r"\| FPN \| 1.00 \(\d+\.\d ms\) \|", text)
    assert re.search(r"\| EFPN slim \+ SGDM \| \d\.\d\d \| ", text)
    assert re.search(r"\| paper \| bf16 \| [\d.]+ to [\d.]+ \| 0 of 3 \|", text)
    assert "A dry run, whose numbers say nothing. ResNet-18, 32 px" in text


def test_all_steps_of_the_check():
    names = [s.name for s in make_steps(gpu_check_steps.FULL)]
    assert len(names) == len(set(names)) == 1 + 2 * len(RECIPES) + 4 + len(COMPILED)
    assert set(TIMED) <= gpu_check_steps.DETECTORS.keys()


def test_a_failing_step_is_recorded_and_stops_no_other():
    saved = []
    steps = [step(fail, "first"), step(do_nothing, "second")]
    outcomes = run_steps(steps, 60, lambda x: saved.append(len(x)), in_this_process)
    assert [x["outcome"] for x in outcomes] == [FAILED, PASSED]
    assert outcomes[0]["reason"] == "ValueError: wrong"
    assert outcomes[1]["result"] == {"done": True}
    assert saved == [1, 2]


@pytest.mark.parametrize("run", [fail, leave, hang])
def test_a_step_in_a_process_of_its_own_cannot_stop_the_check(run):
    start = time.monotonic()
    outcome = attempt_apart(step(run), 2 if run is hang else 60)
    assert time.monotonic() - start < 55
    assert outcome["outcome"] == FAILED
    assert (
        outcome["reason"]
        in {
            fail: "ValueError: wrong",
            leave: "its process ended with 3",
            hang: "it was ended after 2 s",
        }[run]
    )


def test_what_does_not_fit_into_the_time_is_skipped():
    steps = [step(do_nothing, least=1), step(fail, least=100), step(do_nothing, least=1)]
    outcomes = run_steps(steps, 60, lambda x: None, in_this_process)
    assert [x["outcome"] for x in outcomes] == [PASSED, SKIPPED, PASSED]
    assert outcomes[1]["reason"] == "60 s were left, and it may need 100 s"


def test_a_check_that_had_no_time_did_not_pass(quick, tmp_path):
    file = tmp_path / "record.json"
    assert main([*DRY_RUN, "--minutes", "0", "--output", str(file)]) == 1
    record = json.loads(file.read_text())
    assert {x["outcome"] for x in record["steps"]} == {SKIPPED}
    assert "| tests | 0 | skipped: 0 s were left" in render_gpu_check(record)


@pytest.mark.parametrize("arguments", [[], ["--dry-run"], ["--device", "cpu"]])
def test_without_a_card_it_says_that_it_needs_one(arguments, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([*arguments, "--output", str(tmp_path / "record.json")]) == 2
    assert capsys.readouterr().err.startswith("This check needs a CUDA card")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_tests_that_a_card_skips_are_a_failure(device, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_check_steps, "ROOT", tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_some.py").write_text(
        "import pytest\n\n\ndef test_cuda():\n    pytest.skip()\ndef test_cuda_too(): pass\n"
    )
    outcome = attempt(step(lambda: gpu_check_steps.run_tests(DRY._replace(device=device))))
    assert outcome["outcome"] == (PASSED if device == "cpu" else FAILED)
    if device == "cuda":
        assert "1 passed, 1 skipped" in outcome["reason"]


def test_maps_that_differ_fail(monkeypatch):
    monkeypatch.setattr(gpu_check_steps, "TOLERANCE", -1.0)
    scale = DRY._replace(device="cpu", backend="eager")
    outcome = attempt(step(lambda: gpu_check_steps.compare_compiled(COMPILED[0], scale)))
    assert outcome["reason"].startswith("ArithmeticError: the maps differ by")


def test_a_parameter_without_a_gradient_is_named():
    model = torch.nn.Linear(1, 1)
    with pytest.raises(RuntimeError, match="2 parameters have no gradient, e.g. weight"):
        gpu_check_steps.gradients_are_finite(model)
    model(torch.ones(1, 1)).sum().backward()
    assert gpu_check_steps.gradients_are_finite(model)
    model.weight.grad.fill_(float("inf"))
    assert not gpu_check_steps.gradients_are_finite(model)
