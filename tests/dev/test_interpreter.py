"""pip and imports as set-up sees them; no network."""

from pathlib import Path

import pytest

import interpreter
from interpreter import Probe, SetupError, pip_reason, probe_module, run_pip

pytestmark = pytest.mark.fast


def test_run_pip_gives_pips_reason(tmp_path: Path):
    nowhere = ["--no-index", "--find-links", str(tmp_path)]
    with pytest.raises(SetupError, match="No matching distribution found for no-such-thing==1"):
        run_pip("download", "--quiet", *nowhere, "--dest", str(tmp_path), "no-such-thing==1")


def test_run_pip_without_pip(monkeypatch):
    monkeypatch.setattr(interpreter.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match="has no pip; .* -m ensurepip"):
        run_pip("--version")


def test_probe_module(tmp_path: Path, monkeypatch):
    (tmp_path / "an_empty_folder").mkdir()
    (tmp_path / "one_that_works.py").write_text("__version__ = '3.2'\n")
    (tmp_path / "one_that_fails.py").write_text("raise ImportError('libGL.so.1 is missing')\n")
    (tmp_path / "one_that_exits.py").write_text("import os\nos._exit(7)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert probe_module("no_such_module").state == "absent"
    assert probe_module("an_empty_folder").state == "absent"
    works = probe_module("one_that_works")
    assert works.state == "works"
    assert works.detail.startswith("3.2 in ")
    assert probe_module("one_that_fails") == Probe("broken", "ImportError: libGL.so.1 is missing")
    assert probe_module("one_that_exits") == Probe("broken", "Python ended with status 7")


def test_probe_ignores_the_working_directory(tmp_path: Path, monkeypatch):
    (tmp_path / "only_here.py").write_text("__version__ = '1'\n")
    monkeypatch.chdir(tmp_path)
    assert probe_module("only_here").state == "absent"


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'\n"
            "ERROR: Could not find a version that satisfies the requirement a==1\n"
            "ERROR: No matching distribution found for a==1\n",
            "the package index did not answer",
        ),
        (
            "ERROR: Could not find a version that satisfies the requirement a==1\n"
            "ERROR: No matching distribution found for a==1\n",
            "No matching distribution found for a==1",
        ),
        (
            "  WARNING: Connection interrupted while downloading.\nerror: incomplete-download\n\n"
            "× Download failed because not enough bytes were received (4 kB/8 kB)\n"
            "╰─> URL: https://files/a.whl\n\nhint: Use --resume-retries to go on.\n",
            "Download failed because not enough bytes were received (4 kB/8 kB)",
        ),
        (
            "ERROR: Exception:\nTraceback (most recent call last):\n"
            "  File 'x.py', line 1, in <module>\nTimeoutError: The read operation timed out\n",
            "TimeoutError: The read operation timed out",
        ),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES. If you updated, see there.\n"
            "    a==1 from https://files/a.whl:\n        Expected sha256 12\n",
            "THESE PACKAGES DO NOT MATCH THE HASHES",
        ),
        ("", ""),
    ],
    ids=["no-network", "not-there", "cut", "traceback", "hash", "silent"],
)
def test_pip_reason_is_one_line(stderr: str, reason: str):
    assert pip_reason(stderr) == reason
