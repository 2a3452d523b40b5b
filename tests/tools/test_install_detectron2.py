"""The installer on a small stand-in distribution: no network, and nothing outside tmp_path."""

import base64
import csv
import dataclasses
import email
import hashlib
import importlib.metadata
import os
import shutil
import zipfile
from pathlib import Path

import pytest

import install_detectron2
from detectron2_wheel import Pins, SetupError, extract_tree, pack_wheel, tree_digest
from install_detectron2 import (
    LICENCE_FILE,
    Probe,
    Steps,
    fetch_wheel,
    install_dependencies,
    install_wheel,
    main,
    probe_module,
    run_pip,
)

pytestmark = pytest.mark.fast

# As upstream has them, by the path that upstream gives them.
UPSTREAM_FILES = {
    "detectron2/__init__.py": b'__version__ = "0.6"\n',
    "detectron2/config/__init__.py": b"from detectron2.config.config import get\n",
    "detectron2/config/config.py": b"import detectron2\n\n\ndef get():\n    return 'detectron2'\n",
    "detectron2/model_zoo/configs/a.yaml": b"A: 1\n",
}
# As the distribution carries them, with files beside that must stay out.
CARRIED_FILES = {
    "EZannot/__init__.py": b"raise ImportError\n",
    "EZannot/detectron2_like.py": b"import EZannot.detectron2\n",
    "EZannot/detectron2/__init__.py": b'__version__ = "0.6"\n',
    "EZannot/detectron2/config/__init__.py": b"from EZannot.detectron2.config.config import get\n",
    "EZannot/detectron2/config/config.py": (
        b"import EZannot.detectron2\n\n\ndef get():\n    return 'detectron2'\n"
    ),
    "EZannot/detectron2/model_zoo/configs/a.yaml": b"A: 1\n",
}


def expected_tree_digest() -> str:
    """The definition, spelled out for the four files in their sorted order."""
    digest = hashlib.sha256()
    for path in (
        "detectron2/__init__.py",
        "detectron2/config/__init__.py",
        "detectron2/config/config.py",
        "detectron2/model_zoo/configs/a.yaml",
    ):
        digest.update(path.encode())
        digest.update(b"\0")
        digest.update(hashlib.sha256(UPSTREAM_FILES[path]).digest())
    return digest.hexdigest()


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


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


class World:
    """The outside of the installer: an index, a site folder, and pip that can be made to fail."""

    def __init__(self, carrier: Path, root: Path):
        self.carrier = carrier
        self.cache = root / "cache"
        self.site = root / "site-packages"
        self.site.mkdir()
        self.downloads = 0
        self.pip_calls: list[tuple[str, ...]] = []
        self.download_fault: BaseException | None = None
        self.pip_fault: BaseException | None = None
        self.torch = "works"

    def probe(self, name: str) -> Probe:
        if name == "torch":
            return Probe(self.torch, "ModuleNotFoundError: torch")
        found = (self.site / "detectron2" / "__init__.py").is_file()
        return Probe("works", f"in {self.site}") if found else Probe("absent")

    def download(self, requirement: str, folder: Path) -> None:
        assert requirement == "EZannot==1.1.0"
        self.downloads += 1
        content = self.carrier.read_bytes()
        if self.download_fault is not None:
            (folder / self.carrier.name).write_bytes(content[: len(content) // 2])
            raise self.download_fault
        (folder / self.carrier.name).write_bytes(content)

    def pip(self, *arguments: str) -> None:
        self.pip_calls.append(arguments)
        if "--target" not in arguments:  # the dependencies; the real ones need a network
            return
        run_pip(*arguments)
        if self.pip_fault is not None:
            raise self.pip_fault

    def run(self, pins: Pins) -> int:
        steps = Steps(self.probe, self.download, self.pip, self.site)
        return main(["--cache-dir", str(self.cache)], pins, steps)

    def installed_files(self) -> set[str]:
        return {p.relative_to(self.site).as_posix() for p in self.site.rglob("*") if p.is_file()}


@pytest.fixture
def world(carrier: Path, tmp_path: Path) -> World:
    return World(carrier, tmp_path)


def assert_one_sentence(captured: str, *words: str) -> None:
    assert captured.count("\n") == 1
    assert captured.startswith("install_detectron2: ")
    for word in words:
        assert word in captured


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


@pytest.fixture
def packed(tmp_path: Path, pins: Pins) -> Path:
    return pack_wheel(UPSTREAM_FILES, pins, b"the licence", tmp_path)


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


# The whole of it.


def test_install_puts_a_whole_distribution_in_place(world: World, pins: Pins, capsys):
    assert world.run(pins) == 0
    assert "Detectron2 is installed" in capsys.readouterr().out
    for path, content in UPSTREAM_FILES.items():
        assert (world.site / path).read_bytes() == content
    (distribution,) = importlib.metadata.distributions(path=[str(world.site)])
    assert (distribution.metadata["Name"], distribution.version) == ("detectron2", pins.version)
    assert all(file.locate().is_file() for file in distribution.files)
    licence = world.site / pins.dist_info / "licenses" / "LICENSE"
    assert licence.read_bytes() == LICENCE_FILE.read_bytes()
    assert b"Apache License" in licence.read_bytes()
    tops = {path.split("/")[0] for path in world.installed_files()}
    assert tops == {"detectron2", pins.dist_info}


def test_install_asks_for_the_dependencies_first(world: World, pins: Pins):
    world.run(pins)
    dependencies, package = world.pip_calls
    assert set(pins.dependencies) <= set(dependencies)
    assert "--no-deps" in package


def test_a_detectron2_that_imports_is_left_alone(world: World, pins: Pins, capsys):
    own = world.site / "detectron2"
    own.mkdir()
    (own / "__init__.py").write_text("own = True\n")
    assert world.run(pins) == 0
    assert "stays as it is" in capsys.readouterr().out
    assert world.downloads == 0
    assert world.pip_calls == []
    assert world.installed_files() == {"detectron2/__init__.py"}


def test_a_detectron2_that_fails_to_import_is_left_alone(world: World, pins: Pins, capsys):
    world.probe = lambda name: Probe("broken", "ModuleNotFoundError: No module named 'torch'")
    assert world.run(pins) == 1
    assert_one_sentence(capsys.readouterr().err, "No module named 'torch'", "left as it is")
    assert world.downloads == 0
    assert world.installed_files() == set()


def test_missing_torch_is_said_before_anything_is_done(world: World, pins: Pins, capsys):
    world.torch = "absent"
    assert world.run(pins) == 1
    assert_one_sentence(capsys.readouterr().err, "needs PyTorch", "absent")
    assert world.downloads == 0


def test_metadata_of_another_detectron2_is_not_overwritten(world: World, pins, capsys, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.6+cu113")
    assert world.run(pins) == 1
    assert_one_sentence(capsys.readouterr().err, "0.6+cu113", "pip uninstall detectron2")
    assert world.installed_files() == set()


# Faults. Each must end in one sentence, leave no package, and not stand in the way of the next run.


def assert_second_run_finishes(world: World, pins: Pins) -> None:
    assert world.run(pins) == 0
    assert set(UPSTREAM_FILES) <= world.installed_files()
    assert {path.split("/")[0] for path in world.installed_files()} == {
        "detectron2",
        pins.dist_info,
    }


def test_no_network(world: World, pins: Pins, capsys):
    world.download_fault = SetupError("No matching distribution found for EZannot==1.1.0")
    assert world.run(pins) == 1
    assert_one_sentence(capsys.readouterr().err, "could not download", "check the network")
    assert world.installed_files() == set()
    assert list(world.cache.iterdir()) == []
    world.download_fault = None
    assert_second_run_finishes(world, pins)


def test_interrupted_download(world: World, pins: Pins, capsys):
    world.download_fault = KeyboardInterrupt()
    assert world.run(pins) == 1
    assert_one_sentence(capsys.readouterr().err, "interrupted", "again")
    assert world.installed_files() == set()
    assert list(world.cache.iterdir()) == []
    world.download_fault = None
    assert_second_run_finishes(world, pins)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 cut here", None], ids=["empty", "cut", "other"]
)
def test_wrong_hash(world: World, pins: Pins, capsys, content):
    whole = world.carrier.read_bytes()
    if content is None:
        write_zip(world.carrier, {**CARRIED_FILES, "EZannot/more.py": b""})
    else:
        world.carrier.write_bytes(content)
    assert world.run(pins) == 1
    assert_one_sentence(capsys.readouterr().err, "sha256", "thrown away")
    assert world.installed_files() == set()
    assert list(world.cache.iterdir()) == []
    world.carrier.write_bytes(whole)
    assert_second_run_finishes(world, pins)


def test_damaged_cache_is_fetched_again(world: World, pins: Pins):
    world.cache.mkdir()
    cached = fetch_wheel(pins, world.cache, world.download)
    cached.write_bytes(cached.read_bytes()[:100])
    assert_second_run_finishes(world, pins)
    assert world.downloads == 2


@pytest.mark.parametrize("fault", [SetupError("no space left"), KeyboardInterrupt()], ids=repr)
def test_fault_while_pip_unpacks(world: World, pins: Pins, capsys, fault):
    world.pip_fault = fault
    assert world.run(pins) == 1
    assert_one_sentence(capsys.readouterr().err)
    assert list(world.site.iterdir()) == []
    world.pip_fault = None
    assert_second_run_finishes(world, pins)
    assert world.downloads == 1  # the second run goes on from the cache


@pytest.mark.parametrize(
    "fault", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr
)
def test_fault_between_the_two_renames(world: World, pins: Pins, capsys, monkeypatch, fault):
    rename = os.replace

    def fail_at_the_package(source, target):
        if Path(target) == world.site / "detectron2":
            raise fault
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail_at_the_package)
        assert world.run(pins) == 1
    assert_one_sentence(capsys.readouterr().err)
    assert not (world.site / "detectron2").exists()
    assert_second_run_finishes(world, pins)


def test_a_killed_run_leaves_nothing_that_imports(
    world: World, pins: Pins, packed: Path, monkeypatch
):
    """A kill cleans nothing up: what pip had unpacked stays, under a name that no import finds."""
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(KeyboardInterrupt):
        world.pip_fault = KeyboardInterrupt()
        install_wheel(packed, pins, world.site, world.pip)
    left = [path.name for path in world.site.iterdir()]
    assert len(left) == 1
    assert left[0].startswith(".detectron2-")
    assert (world.site / left[0] / "detectron2" / "__init__.py").is_file()


def test_failed_dependencies_install_nothing(world: World, pins: Pins, capsys):
    def pip(*arguments):
        raise SetupError("Could not build wheels for fvcore")

    world.pip = pip
    assert world.run(pins) == 1
    assert_one_sentence(capsys.readouterr().err, "depends on", "fvcore")
    assert world.installed_files() == set()


def test_unwritable_cache(world: World, pins: Pins, capsys):
    world.cache.write_text("a file where the folder should be")
    assert world.run(pins) == 1
    assert_one_sentence(capsys.readouterr().err, str(world.cache))


# pip and the probe, for real.


def test_run_pip_gives_pips_reason(tmp_path: Path):
    nowhere = ["--no-index", "--find-links", str(tmp_path)]
    with pytest.raises(SetupError, match="No matching distribution found for no-such-thing==1"):
        run_pip("download", "--quiet", *nowhere, "--dest", str(tmp_path), "no-such-thing==1")


def test_run_pip_without_pip(monkeypatch):
    monkeypatch.setattr(install_detectron2.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match="has no pip; .* -m ensurepip"):
        run_pip("--version")


def test_dependencies_keep_torch_and_numpy_as_they_are(pins: Pins):
    seen = []

    def pip(*arguments: str) -> None:
        constraints = Path(arguments[arguments.index("--constraint") + 1])
        seen.extend(constraints.read_text().splitlines())

    install_dependencies(pins, constraint=None, pip=pip)
    assert f"torch=={importlib.metadata.version('torch')}" in seen
    assert f"numpy=={importlib.metadata.version('numpy')}" in seen


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
