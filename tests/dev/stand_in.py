"""A small stand-in for the distribution that carries Detectron2's tree."""

import hashlib
import zipfile
from pathlib import Path

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
