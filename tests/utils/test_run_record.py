import json
import subprocess
import sys

import numpy as np
import pytest

from efpn_d2.utils.run_record import (
    collect_run_record,
    headline,
    peak_memory_gib,
    source_commit,
    timed,
    write_record,
)

pytestmark = pytest.mark.fast


def git(folder, *args):
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    subprocess.run(["git", "-C", folder, *identity, *args], check=True, capture_output=True)


@pytest.fixture
def work_tree(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_record_has_all_that_a_number_needs():
    record = collect_run_record(seed=7, command=["train", "a b"])
    assert record["seed"] == 7
    assert record["command"] == "train 'a b'"
    assert {"torch", "torchvision", "detectron2", "python"} <= record["versions"].keys()
    assert record["versions"]["torch"]
    assert record["hardware"]["cpu_cores"] >= 1
    json.dumps(record, allow_nan=False)


def test_commit_of_a_clean_and_of_a_changed_tree(work_tree):
    commit = source_commit(work_tree)
    assert len(commit) == 40
    (work_tree / "file").write_text("two")
    assert source_commit(work_tree) == f"{commit}-dirty"


def test_untracked_folder_of_a_foreign_repository_has_no_commit(work_tree):
    (work_tree / "site-packages").mkdir()
    assert source_commit(work_tree / "site-packages") is None


def test_no_repository_and_no_git_give_none(tmp_path, monkeypatch):
    assert source_commit(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert source_commit(tmp_path) is None


def test_timed_adds_up_and_counts_failures_too():
    seconds = {"work": 5.0}
    with pytest.raises(KeyError), timed(seconds, "work"):
        raise KeyError
    assert seconds["work"] >= 5.0
    with timed(seconds, "rest"):
        pass
    assert seconds.keys() == {"work", "rest"}


def test_json_has_null_for_what_is_not_finite_and_no_leftover(tmp_path):
    path = tmp_path / "new" / "results.json"
    write_record(path, {"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": "text"}})
    assert json.loads(path.read_text()) == {"a": None, "b": [None, 1.5], "c": {"d": "text"}}
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


def test_headline_names_sizes():
    text = headline({"AP50": 50.0, "AP": 30.25, "AP_0_8": 9.0, "AP_8_inf": 40.0})
    assert text.splitlines() == [
        "AP50 50.0   AP 30.2   by sqrt(area) of the object:",
        "       0 to 8 px: AP   9.0",
        "   8 px and more: AP  40.0",
    ]


def test_peak_memory_is_that_of_this_process_alone():
    """A process begins at its own memory, whatever the one that started it has used."""
    np.ones(2**30, dtype=np.uint8)
    code = "from efpn_d2.utils.run_record import peak_memory_gib as p; print(p())"
    command = [sys.executable, "-W", "ignore", "-c", code]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    own = peak_memory_gib()
    assert own > 1
    assert 0.05 < float(child.stdout) < own - 0.5
