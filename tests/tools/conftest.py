"""Fixtures of the installer's tests."""

import dataclasses
import hashlib
from pathlib import Path

import pytest

from detectron2_wheel import Pins, pack_wheel
from tests.tools.stand_in import CARRIED_FILES, UPSTREAM_FILES, expected_tree_digest, write_zip


@pytest.fixture
def carrier(tmp_path: Path) -> Path:
    """The stand-in for the distribution on the package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    return write_zip(folder / "ezannot-1.1.0-py3-none-any.whl", CARRIED_FILES)


@pytest.fixture
def pins(carrier: Path) -> Pins:
    return dataclasses.replace(
        Pins(),
        wheel_sha256=hashlib.sha256(carrier.read_bytes()).hexdigest(),
        num_files=4,
        tree_sha256=expected_tree_digest(),
    )


@pytest.fixture
def packed(tmp_path: Path, pins: Pins) -> Path:
    """The stand-in's tree, packed as a wheel."""
    return pack_wheel(UPSTREAM_FILES, pins, b"the licence", tmp_path)
