"""The distribution that the installer really downloads; needs the package index."""

import os
import subprocess
import sys

import pytest

from detectron2_wheel import Pins, extract_tree, pack_wheel
from install_detectron2 import LICENCE_FILE, fetch_wheel
from interpreter import SetupError, run_pip

pytestmark = pytest.mark.slow


def test_the_pinned_download_becomes_a_detectron2_that_imports(tmp_path):
    pins, site = Pins(), tmp_path / "site"
    try:
        downloaded = fetch_wheel(pins, tmp_path)
    except SetupError as error:
        pytest.fail(f"this test needs the package index: {error}", pytrace=False)
    files = extract_tree(downloaded, pins)  # raises unless they are upstream's
    wheel = pack_wheel(files, pins, LICENCE_FILE.read_bytes(), tmp_path)
    run_pip("install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel))

    code = "import detectron2.modeling, detectron2; print(detectron2.__file__)"
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.strip() == str(site / "detectron2" / "__init__.py")
