"""Taking the tree out of its carrier, and the wheel it is packed as."""

import base64
import csv
import email
import hashlib
import zipfile
from pathlib import Path

import pytest

from detectron2_wheel import Pins, extract_tree, pack_wheel, tree_digest
from interpreter import SetupError
from tests.tools.stand_in import CARRIED_FILES, UPSTREAM_FILES, expected_tree_digest, write_zip

pytestmark = pytest.mark.fast

# The tree.


def test_tree_digest_follows_its_definition():
    backwards = dict(reversed(list(UPSTREAM_FILES.items())))
    assert tree_digest(backwards) == expected_tree_digest()
    assert tree_digest({**backwards, "detectron2/__init__.py": b""}) != expected_tree_digest()
    renamed = {path.replace("a.yaml", "b.yaml"): text for path, text in backwards.items()}
    assert tree_digest(renamed) != expected_tree_digest()


def test_extract_tree_undoes_the_prefix_and_takes_nothing_else(carrier: Path, pins: Pins):
    assert extract_tree(carrier, pins) == UPSTREAM_FILES


@pytest.mark.parametrize(
    "change",
    [
        {"EZannot/detectron2/__init__.py": b'__version__ = "0.7"\n'},
        {"EZannot/detectron2/extra.py": b""},
    ],
    ids=["changed", "added"],
)
def test_extract_tree_refuses_another_tree(tmp_path: Path, pins: Pins, change: dict):
    wheel = write_zip(tmp_path / "other.whl", {**CARRIED_FILES, **change})
    with pytest.raises(SetupError, match="not the 4 files of upstream's commit 28fd05ee"):
        extract_tree(wheel, pins)


# The packed wheel.


def test_packed_record_lists_every_file_with_its_hash_and_size(packed: Path):
    assert packed.name == "detectron2-0.6+28fd05ee-py3-none-any.whl"
    with zipfile.ZipFile(packed) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    record = "detectron2-0.6+28fd05ee.dist-info/RECORD"
    rows = {row[0]: row[1:] for row in csv.reader(content[record].decode().splitlines())}
    assert rows.keys() == content.keys()
    assert rows.pop(record) == ["", ""]
    for path, (digest, size) in rows.items():
        algorithm, value = digest.split("=", 1)
        raw = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
        assert algorithm == "sha256"
        assert "=" not in value
        assert raw == hashlib.sha256(content[path]).digest()
        assert int(size) == len(content[path])
    assert {path: content[path] for path in UPSTREAM_FILES} == UPSTREAM_FILES


def test_packed_metadata_names_version_licence_and_upstreams_dependencies(packed: Path):
    info = "detectron2-0.6+28fd05ee.dist-info"
    with zipfile.ZipFile(packed) as archive:
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
        wheel = email.message_from_bytes(archive.read(f"{info}/WHEEL"))
        assert archive.read(f"{info}/licenses/{metadata['License-File']}") == b"the licence"
    assert metadata["Name"] == "detectron2"
    assert metadata["Version"] == "0.6+28fd05ee"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert any(
        "github.com/facebookresearch/detectron2" in u for u in metadata.get_all("Project-URL")
    )
    requires = metadata.get_all("Requires-Dist")
    assert len(requires) == 16
    assert {"Pillow>=7.1", "fvcore>=0.1.5,<0.1.6", "iopath>=0.1.7,<0.1.10"} <= set(requires)
    assert "setuptools<81" in requires
    assert not any(name.startswith("torch") for name in requires)
    assert wheel["Tag"] == "py3-none-any"
    assert wheel["Root-Is-Purelib"] == "true"


def test_packing_is_reproducible_and_leaves_one_file(tmp_path: Path, pins: Pins, packed: Path):
    folder = tmp_path / "again"
    folder.mkdir()
    backwards = dict(reversed(list(UPSTREAM_FILES.items())))
    again = pack_wheel(backwards, pins, b"the licence", folder)
    assert again.read_bytes() == packed.read_bytes()
    assert list(folder.iterdir()) == [again]


def test_cut_packing_leaves_no_wheel(tmp_path: Path, pins: Pins, monkeypatch):
    def cut(*_):
        raise KeyboardInterrupt

    folder = tmp_path / "packing"
    folder.mkdir()
    monkeypatch.setattr(zipfile.ZipFile, "writestr", cut)
    with pytest.raises(KeyboardInterrupt):
        pack_wheel(UPSTREAM_FILES, pins, b"", folder)
    assert list(folder.iterdir()) == []
