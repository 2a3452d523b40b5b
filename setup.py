"""Build script. It imports neither torch nor detectron2, so that it runs before they are there."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def package_version() -> str:
    """``__version__`` of the package, read as text because importing it would import torch."""
    text = (ROOT / "efpn_d2" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE).group(1)


def long_description() -> str:
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.is_file() else ""


setup(
    name="efpn_d2",
    version=package_version(),
    description="Extended Feature Pyramid Network for small object detection, for Detectron2",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    # configs/ ships as efpn_d2/configs. Its folders are not Python packages (their names are not
    # identifiers), so the one mapped package takes every file below it as its data.
    packages=[*find_packages(include=["efpn_d2", "efpn_d2.*"]), "efpn_d2.configs"],
    package_dir={"efpn_d2.configs": "configs"},
    package_data={
        "efpn_d2": ["py.typed"],
        "efpn_d2.configs": ["**/*.yaml"],
        "efpn_d2.report": ["assets/*"],
    },
    # Lower bounds alone, so that installing into an environment that works replaces nothing there.
    # Two dependencies are left out on purpose. detectron2 is not on the package index: see
    # dev/install_detectron2.py. OpenCV comes as one of several packages that overwrite each
    # other's cv2: see the extra "opencv".
    install_requires=[
        "torch>=2.0",
        "torchvision>=0.15",
        "numpy>=1.22",
        "pillow>=9.1",
        "pycocotools>=2.0.2",
        "fvcore>=0.1.5",
        "matplotlib",
        "pyyaml",
        "tabulate",
        "tqdm",
    ],
    extras_require={
        "opencv": ["opencv-python-headless>=4.5"],
        # Faster than pycocotools, equal to it, and used where it is.
        "evaluation": ["hotcoco>=1.3"],
        "dev": [
            "pytest>=7.4",
            "pytest-xdist>=3.5",
            "ruff>=0.6",
            "mypy>=2.4",
            "types-PyYAML",
            "types-tabulate",
            "types-tqdm",
            "hotcoco>=1.3",
            "faster-coco-eval>=1.8",
        ],
    },
)
