import argparse
import os
import re
import runpy
import sys
from pathlib import Path

import pytest

from efpn_d2.utils.tool_support import at_least, error_text, not_negative, positive

pytestmark = pytest.mark.fast

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (not_negative, "0", "-1"),
        (positive, "1", "0"),
        (at_least(2), "2", "1"),
        (positive, "7", "x"),
    ],
)
def test_whole_numbers_from_a_least_one_on(kind, good, bad):
    assert kind(good) == int(good)
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{bad}' must be a whole number, at le"):
        kind(bad)


def test_no_script_takes_any_whole_number():
    scripts = [
        p for folder in ("tools", "dev", "benchmarks", "demo") for p in (ROOT / folder).glob("*.py")
    ]
    assert len(scripts) > 20
    assert not [p.name for p in scripts if re.search(r"type=int\b|, int, ", p.read_text())]


def test_errors_of_the_system_are_sentences(tmp_path):
    (tmp_path / "file").write_text("")
    cases = {
        tmp_path / "none": "does not exist: check the path.",
        tmp_path: "is a folder, but must be a file.",
        tmp_path / "file" / "below": "is not a folder, or is below a file: choose",
    }
    for path, message in cases.items():
        with pytest.raises(OSError) as error:
            path.read_text()
        text = error_text(error.value)
        assert text.startswith(f"'{path}' {message}") and "Errno" not in text
    assert error_text(FileNotFoundError("It is gone: look elsewhere.")).startswith("It is gone")
    assert error_text(ValueError("x must be 1.")) == "x must be 1."


@pytest.mark.parametrize(
    "script",
    [
        "train_net.py",
        "demo/demo.py",
        "demo/run_demo.py",
        "tools/analyze_dataset.py",
        "tools/run_stages.py",
        "tools/visualize_features.py",
    ],
)
def test_commands_that_draw_need_no_backend_with_a_window(script, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://of_a_notebook")
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    runpy.run_path(str(ROOT / script))
    assert os.environ["MPLBACKEND"] == "module://of_a_notebook"  # imported, it changes nothing
    with pytest.raises(SystemExit) as exit_info:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert exit_info.value.code == 0
    assert os.environ["MPLBACKEND"] == "agg"
