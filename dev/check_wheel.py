#!/usr/bin/env python3
"""Check that the package works as a wheel, outside of its source tree.

Builds the wheel from a copy of the tree, installs it to a separate folder, and loads every packaged
config by name in an interpreter that imports ``efpn_d2`` only from that folder.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Files that the build reads. A build in the tree itself would leave build/ there, and the next
# build would package its content.
SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "efpn_d2", "configs")

_LOAD_ALL = """
import sys
from pathlib import Path
import efpn_d2
from efpn_d2.model_zoo import list_configs

target = Path(sys.argv[1]).resolve()
for name, module in list(sys.modules.items()):
    if name.split(".")[0] == "efpn_d2" and target not in Path(module.__file__).resolve().parents:
        sys.exit(f"{name} was imported from {module.__file__}, not from the installed wheel")
names = list_configs()
for name in names:
    efpn_d2.get_config(name)
print("\\n".join(names))
"""


def build_wheel(folder: Path) -> Path:
    """Build the wheel of the source tree into ``folder``, with the installed setuptools."""
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.is_file():
            shutil.copy(path, source)
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, source]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def load_configs(wheel: Path, target: Path) -> list[str]:
    """Install the wheel into ``target``, load its configs from there, and return their names."""
    options = ["--quiet", "--no-deps", "--no-index", "--no-user", "--target", target]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, wheel], check=True)
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _LOAD_ALL, target],
        cwd=Path(target.anchor),
        env={**os.environ, "PYTHONPATH": str(target)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return child.stdout.splitlines()


def main() -> None:
    """Build and check the wheel."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            wheel = build_wheel(folder)
            packaged = load_configs(wheel, folder / "target")
        except subprocess.CalledProcessError as error:
            sys.exit(f"check_wheel: a step failed with status {error.returncode}, see above.")
        configs = ROOT / "configs"
        expected = sorted(path.relative_to(configs).as_posix() for path in configs.rglob("*.yaml"))
        if not expected or packaged != expected:
            sys.exit(
                f"check_wheel: the wheel has {len(packaged)} configs, the source tree"
                f" {len(expected)}; they differ in {sorted(set(packaged) ^ set(expected))}."
            )
        print(f"{wheel.name}: all {len(packaged)} configs load by name from the installed wheel")


if __name__ == "__main__":
    main()
