"""Extract Detectron2's Python tree from a distribution that contains it, and pack it as a wheel.

The functions operate on bytes and paths, without network and pip. The command line is
``install_detectron2.py``.
"""

import base64
import csv
import hashlib
import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

from interpreter import SetupError

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time of a zip, which makes the wheel reproducible

UPSTREAM = "https://github.com/facebookresearch/detectron2"


@dataclass(frozen=True)
class Pins:
    """Source of the tree, its expected content, and the wheel's metadata."""

    requirement: str = "EZannot==1.1.0"
    "Requirement of the distribution that contains the tree."
    wheel_sha256: str = "eb3db02d9a2fba6fa2934b25738a106087faccceb3629124d4d4b8e65759c0d7"
    folder: str = "EZannot/detectron2/"
    "Folder of the tree inside the distribution."
    import_prefix: bytes = b"EZannot.detectron2"
    "Name that replaces ``detectron2`` in the tree's files."
    num_files: int = 306
    tree_sha256: str = "a4b0e15d674cbf5ce6c642cee134998e2a1415caae65014c1e963260d1f04112"
    ":func:`tree_digest` of the upstream files at ``commit``."
    commit: str = "28fd05ee"
    version: str = "0.6+28fd05ee"
    requires_python: str = ">=3.7"
    # Upstream's own list, and setuptools for the pkg_resources that detectron2.model_zoo imports.
    # Like upstream, it does not require a specific torch build.
    dependencies: tuple[str, ...] = (
        "Pillow>=7.1",
        "matplotlib",
        "pycocotools>=2.0.2",
        "termcolor>=1.1",
        "yacs>=0.1.8",
        "tabulate",
        "cloudpickle",
        "tqdm>4.29.0",
        "tensorboard",
        "fvcore>=0.1.5,<0.1.6",
        "iopath>=0.1.7,<0.1.10",
        "omegaconf>=2.1,<2.4",
        "hydra-core>=1.1",
        "black",
        "packaging",
        "setuptools<81",
    )

    @property
    def dist_info(self) -> str:
        """Name of the wheel's metadata folder."""
        return f"detectron2-{self.version}.dist-info"


def sha256_of_file(path: Path) -> str:
    """Return the hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tree_digest(files: dict[str, bytes]) -> str:
    r"""Return one digest for a whole tree.

    Args:
        files: content by path, with forward slashes.

    Returns:
        Hex sha256 over ``path + "\0" + sha256(content)`` of all files, sorted by path.
    """
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.encode() + b"\0" + hashlib.sha256(files[path]).digest())
    return digest.hexdigest()


def extract_tree(wheel: Path, pins: Pins) -> dict[str, bytes]:
    """Extract Detectron2's files as written upstream.

    Args:
        wheel: the downloaded distribution.
        pins: what to extract.

    Returns:
        Content by path, e.g. ``"detectron2/config/config.py"``.

    Raises:
        SetupError: if the files are not those of ``pins.commit``.
    """
    with zipfile.ZipFile(wheel) as archive:
        files = {
            "detectron2/" + name.removeprefix(pins.folder): archive.read(name).replace(
                pins.import_prefix, b"detectron2"
            )
            for name in archive.namelist()
            if name.startswith(pins.folder) and not name.endswith("/")
        }
    if len(files) != pins.num_files or tree_digest(files) != pins.tree_sha256:
        raise SetupError(
            f"the {len(files)} Detectron2 files in {wheel.name} are not the {pins.num_files} files"
            f" of upstream's commit {pins.commit}, so they were not installed; install Detectron2"
            f" from {UPSTREAM} instead."
        )
    return files


def _metadata(pins: Pins) -> str:
    lines = [
        "Metadata-Version: 2.4",
        "Name: detectron2",
        f"Version: {pins.version}",
        "Summary: Detectron2 0.6, its Python files without the compiled operators",
        "Author: FAIR",
        "License-Expression: Apache-2.0",
        "License-File: LICENSE",
        f"Project-URL: Homepage, {UPSTREAM}",
        f"Project-URL: Source, {UPSTREAM}/tree/{pins.commit}",
        f"Requires-Python: {pins.requires_python}",
        *(f"Requires-Dist: {dependency}" for dependency in pins.dependencies),
        "Description-Content-Type: text/plain",
        "",
        f"The unmodified Python files of {UPSTREAM} at commit {pins.commit}, as carried by",
        f"{pins.requirement} and packed by efpn_d2's dev/install_detectron2.py.",
    ]
    return "\n".join(lines) + "\n"


def _record(entries: dict[str, bytes], record_path: str) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for path, content in entries.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        writer.writerow([path, f"sha256={digest}", len(content)])
    writer.writerow([record_path, "", ""])
    return text.getvalue().encode()


def pack_wheel(files: dict[str, bytes], pins: Pins, licence: bytes, folder: Path) -> Path:
    """Write the wheel; the same input always gives the same bytes.

    Args:
        files: the tree, from :func:`extract_tree`.
        pins: version and dependencies of the wheel.
        licence: text of the Apache License, version 2.0.
        folder: an existing output folder.

    Returns:
        Path of the wheel, which is written atomically.
    """
    entries = {
        **{path: files[path] for path in sorted(files)},
        f"{pins.dist_info}/METADATA": _metadata(pins).encode(),
        f"{pins.dist_info}/WHEEL": (
            b"Wheel-Version: 1.0\nGenerator: efpn_d2\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
        f"{pins.dist_info}/licenses/LICENSE": licence,
    }
    record_path = f"{pins.dist_info}/RECORD"
    entries[record_path] = _record(entries, record_path)
    wheel = folder / f"detectron2-{pins.version}-py3-none-any.whl"
    unfinished = wheel.with_name(f"{wheel.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, content in entries.items():
                info = zipfile.ZipInfo(path, _EPOCH)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = 0o644 << 16
                archive.writestr(info, content)
        os.replace(unfinished, wheel)
    finally:
        unfinished.unlink(missing_ok=True)
    return wheel
