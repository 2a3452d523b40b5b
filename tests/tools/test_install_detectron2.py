"""The installer on a small stand-in distribution: no network, and nothing outside tmp_path."""

import importlib.metadata
import os
import shutil
from pathlib import Path

import pytest

from detectron2_wheel import Pins
from install_detectron2 import (
    LICENCE_FILE,
    Steps,
    fetch_wheel,
    install_dependencies,
    install_wheel,
    main,
)
from interpreter import Probe, SetupError, run_pip
from tests.tools.stand_in import CARRIED_FILES, UPSTREAM_FILES, write_zip

pytestmark = pytest.mark.fast


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


def test_metadata_of_another_detectron2_is_not_overwritten(world: World, pins: Pins, capsys):
    info = world.site / "detectron2-0.6+cu113.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: detectron2\nVersion: 0.6+cu113\n")
    assert world.run(pins) == 1
    assert_one_sentence(capsys.readouterr().err, "0.6+cu113", "pip uninstall detectron2")
    assert world.installed_files() == {f"{info.name}/METADATA"}


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
    into_site = []

    def fail_at_the_second(source, target):
        if Path(target).parent == world.site:
            into_site.append(target)
            if len(into_site) == 2:
                raise fault
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail_at_the_second)
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


def test_dependencies_keep_torch_and_numpy_as_they_are(pins: Pins):
    seen = []

    def pip(*arguments: str) -> None:
        constraints = Path(arguments[arguments.index("--constraint") + 1])
        seen.extend(constraints.read_text().splitlines())

    install_dependencies(pins, constraint=None, pip=pip)
    assert f"torch=={importlib.metadata.version('torch')}" in seen
    assert f"numpy=={importlib.metadata.version('numpy')}" in seen
