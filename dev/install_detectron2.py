#!/usr/bin/env python3
"""Install Detectron2 0.6 with pip alone if ``import detectron2`` fails.

Detectron2 is not on the package index under its own name. Another distribution there contains its
unmodified Python tree under another import prefix: this script extracts it, checks that it equals
the upstream files, and installs it as the distribution ``detectron2``. Compiled operators (rotated
boxes, deformable convolution) are not included. An existing Detectron2 is never replaced.

Every failure ends with one sentence and leaves no partial package; running the script again
continues.
"""

import argparse
import importlib.metadata
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from detectron2_wheel import UPSTREAM, Pins, extract_tree, pack_wheel, sha256_of_file
from interpreter import Probe, SetupError, probe_module, run_pip

LICENCE_FILE = Path(__file__).resolve().parent.parent / "LICENSE"


def pip_download(requirement: str, folder: Path) -> None:
    """Download the wheel of one requirement, without its dependencies, to a folder."""
    run_pip(
        *("download", "--quiet", "--no-deps", "--only-binary=:all:"),
        *("--dest", str(folder), requirement),
    )


def fetch_wheel(
    pins: Pins, cache_dir: Path, download: Callable[[str, Path], None] = pip_download
) -> Path:
    """Return the distribution that contains the tree, from the cache or the package index.

    Args:
        pins: the requirement and its expected digest.
        cache_dir: an existing folder; only files with the expected digest are stored there.
        download: called as ``download(requirement, folder)``.

    Raises:
        SetupError: if the download fails or has another digest.
    """
    cached = cache_dir / f"{pins.wheel_sha256[:16]}.whl"
    if cached.is_file() and sha256_of_file(cached) == pins.wheel_sha256:
        return cached
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix="download-") as folder:
        try:
            download(pins.requirement, Path(folder))
        except SetupError as error:
            raise SetupError(
                f"could not download {pins.requirement} ({str(error).rstrip('.')}); check the"
                " network and pip's index setting, then run this again."
            ) from error
        wheels = list(Path(folder).glob("*.whl"))
        if len(wheels) != 1 or sha256_of_file(wheels[0]) != pins.wheel_sha256:
            raise SetupError(
                f"the download of {pins.requirement} does not have the pinned sha256"
                f" {pins.wheel_sha256[:16]}..., so it was thrown away; run this again, and if that"
                " does not help check which package index pip uses."
            )
        os.replace(wheels[0], cached)
    return cached


def installed_constraints() -> list[str]:
    """Return pip constraints for packages whose replacement would break an environment."""
    constraints = []
    for name in ("torch", "torchvision", "numpy"):
        try:
            constraints.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return constraints


def install_dependencies(
    pins: Pins,
    constraint: Path | None,
    build_isolation: bool = True,
    pip: Callable[..., None] = run_pip,
) -> None:
    """Install missing dependencies of Detectron2.

    Args:
        pins: names the dependencies.
        constraint: a pip constraints file; None keeps torch, torchvision and numpy as they are.
        build_isolation: False builds source distributions with the installed setuptools.
        pip: called with pip's arguments.

    Raises:
        SetupError: if pip fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        if constraint is None:
            constraint = Path(folder) / "constraints.txt"
            constraint.write_text("\n".join(installed_constraints()))
        options = ["--quiet", "--constraint", str(constraint)]
        if not build_isolation:
            options.append("--no-build-isolation")
        try:
            pip("install", *options, *pins.dependencies)
        except SetupError as error:
            raise SetupError(
                f"could not install the dependencies of Detectron2 ({str(error).rstrip('.')}); "
                "fix that and run this again."
            ) from error


def install_wheel(
    wheel: Path, pins: Pins, site_dir: Path, pip: Callable[..., None] = run_pip
) -> None:
    """Install the packed wheel atomically.

    pip copies file by file, so an interruption would leave a partial package that can be imported.
    Therefore pip installs to a folder on the same disk, and two renames put the result in place.

    Raises:
        SetupError: if pip fails or the folder is not writable.
    """
    try:
        with tempfile.TemporaryDirectory(dir=site_dir, prefix=".detectron2-") as beside:
            options = ["--quiet", "--no-deps", "--no-index", "--no-user", "--target", beside]
            pip("install", *options, str(wheel))
            # The package is moved last: while it is missing, the next run starts over. The remains
            # of an interrupted run cannot be imported.
            for name in (pins.dist_info, "detectron2"):
                if (site_dir / name).exists():
                    shutil.rmtree(site_dir / name)
                os.replace(Path(beside) / name, site_dir / name)
    except OSError as error:
        raise SetupError(
            f"cannot write Detectron2 to {site_dir} ({error.strerror}); use a virtual environment."
        ) from error


def check_replaceable(pins: Pins, site_dir: Path) -> None:
    """Refuse to install over the metadata of a Detectron2 that has lost its files.

    Raises:
        SetupError: if pip lists another Detectron2 in ``site_dir`` than the one installed here.
    """
    for found in importlib.metadata.distributions(name="detectron2", path=[str(site_dir)]):
        if found.version != pins.version:
            raise SetupError(
                f"pip lists detectron2 {found.version} but `import detectron2` does not find it; "
                "fix it, or run `pip uninstall detectron2` and then this again."
            )


@dataclass(frozen=True)
class Steps:
    """The steps of :func:`install` with side effects, replaceable in tests."""

    probe: Callable[[str], Probe] = probe_module
    download: Callable[[str, Path], None] = pip_download
    pip: Callable[..., None] = run_pip
    site_dir: Path = field(default_factory=lambda: Path(sysconfig.get_path("purelib")))


def install(
    pins: Pins,
    cache_dir: Path,
    constraint: Path | None = None,
    build_isolation: bool = True,
    steps: Steps | None = None,
) -> str:
    """Make ``import detectron2`` work for this interpreter.

    Returns:
        One line that says what was done.

    Raises:
        SetupError: if this fails; the message says why and what to do.
    """
    steps = steps or Steps()
    before = steps.probe("detectron2")
    if before.state == "works":
        return f"Detectron2 is already installed and was not changed: {before.detail}"
    if before.state == "broken":
        raise SetupError(
            f"a Detectron2 is installed but importing it fails ({before.detail}); it was not "
            f"changed: fix that, or see {UPSTREAM}/blob/main/INSTALL.md."
        )
    torch = steps.probe("torch")
    if torch.state != "works":
        raise SetupError(
            f"Detectron2 needs PyTorch, which is {torch.state} here; install torch and torchvision"
            " (https://pytorch.org/get-started/locally) and run this again."
        )
    check_replaceable(pins, steps.site_dir)
    cache_dir.mkdir(parents=True, exist_ok=True)
    print(f"Detectron2: downloading {pins.requirement}, which contains its Python tree", flush=True)
    files = extract_tree(fetch_wheel(pins, cache_dir, steps.download), pins)
    wheel = pack_wheel(files, pins, LICENCE_FILE.read_bytes(), cache_dir)
    print("Detectron2: the tree equals upstream's; installing its dependencies", flush=True)
    install_dependencies(pins, constraint, build_isolation, steps.pip)
    install_wheel(wheel, pins, steps.site_dir, steps.pip)
    after = steps.probe("detectron2")
    if after.state != "works":
        raise SetupError(f"Detectron2 was installed, but importing it fails ({after.detail}).")
    return f"Detectron2 is installed: {after.detail}"


def main(
    argv: list[str] | None = None, pins: Pins | None = None, steps: Steps | None = None
) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    home_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument(
        "--cache-dir",
        type=Path,
        default=home_cache / "efpn_d2",
        help="folder that keeps the download",
    )
    parser.add_argument("--constraint", type=Path, help="pip constraints for the dependencies")
    parser.add_argument(
        "--no-build-isolation",
        action="store_true",
        help="build source dependencies with the installed setuptools",
    )
    args = parser.parse_args(argv)
    isolation = not args.no_build_isolation
    try:
        print(install(pins or Pins(), args.cache_dir, args.constraint, isolation, steps))
    except SetupError as error:
        print(f"install_detectron2: {error}", file=sys.stderr)
    except OSError as error:
        print(f"install_detectron2: {error}; fix that and run this again.", file=sys.stderr)
    except KeyboardInterrupt:
        print("install_detectron2: interrupted; run this again to continue.", file=sys.stderr)
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
