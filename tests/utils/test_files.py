import json
import os

import pytest

from efpn_d2.utils.files import open_atomically, write_atomically, write_json

pytestmark = pytest.mark.fast


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_appears_when_it_is_complete(tmp_path, sync):
    path = tmp_path / "new" / "a.txt"
    with open_atomically(path, "w", sync=sync) as file:
        file.write("é")
        assert not path.exists()
    assert files(path.parent) == {"a.txt": "é".encode()}


@pytest.mark.parametrize("before", [{}, {"a.bin": b"old"}])
def test_a_failure_leaves_what_was_there(tmp_path, before):
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(OSError, match="full"), open_atomically(tmp_path / "a.bin") as file:
        file.write(b"half")
        raise OSError("full")
    assert files(tmp_path) == before


def test_a_failure_to_move_leaves_what_was_there(tmp_path, monkeypatch):
    (tmp_path / "a.bin").write_bytes(b"old")

    def power_cut(source, target):
        raise OSError("power cut")

    monkeypatch.setattr(os, "replace", power_cut)
    with pytest.raises(OSError, match="power cut"):
        write_atomically(tmp_path / "a.bin", b"new")
    assert files(tmp_path) == {"a.bin": b"old"}


def test_the_rest_of_a_killed_process_is_overwritten(tmp_path):
    (tmp_path / ".a.bin.partial").write_bytes(b"half of something long")
    write_atomically(str(tmp_path / "a.bin"), b"new")
    assert files(tmp_path) == {"a.bin": b"new"}


def test_json_has_no_nan_and_a_refused_one_replaces_nothing(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": [1, 2.5]})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": [1, 2.5]}
