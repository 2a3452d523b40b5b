import json
import sys

import import_time
import pytest

pytestmark = pytest.mark.fast


def test_each_statement_runs_in_new_processes(tmp_path, monkeypatch, capsys):
    own = {"write": f"open({str(tmp_path / 'log')!r}, 'a').write('x')", "nothing": "pass"}
    monkeypatch.setattr(import_time, "STATEMENTS", tuple(own.values()))
    monkeypatch.setattr(import_time, "BASELINE", own["nothing"])
    monkeypatch.setattr(import_time, "MODELING", own["write"])
    monkeypatch.setattr(import_time, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["import_time.py", "--rounds", "2", "--name", "own"])
    import_time.main()
    assert (tmp_path / "log").read_text() == "xxx"  # two rounds, and one that does not count
    record = json.loads((tmp_path / "own.json").read_text())
    assert record["rows"].keys() == set(own.values()) and record["rounds"] == 2
    assert record["rows"][own["nothing"]]["ratio"] == 1
    assert record["rows"][own["write"]]["ratio_to_modeling"] == 1
    assert "commit" in record and "hardware" in record
