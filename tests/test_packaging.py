"""The package as it is built, and what importing it does: nothing that shows elsewhere."""

import ast
import email
import importlib.metadata
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import efpn_d2
from check_wheel import build_wheel

pytestmark = pytest.mark.fast

ROOT = Path(__file__).resolve().parent.parent


def run_python(code: str) -> str:
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_setup_runs_without_torch_and_detectron2():
    code = """
import runpy, sys
for name in ("torch", "torchvision", "detectron2", "efpn_d2"):
    sys.modules[name] = None  # importing it raises
sys.argv = ["setup.py", "--quiet", "--version"]
runpy.run_path("setup.py", run_name="__main__")
"""
    assert run_python(code).split()[-1] == efpn_d2.__version__


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    with zipfile.ZipFile(build_wheel(tmp_path_factory.mktemp("wheel"))) as archive:
        yield archive


def test_wheel_holds_the_package_and_its_configs(wheel: zipfile.ZipFile):
    configs = {
        f"efpn_d2/configs/{path.relative_to(ROOT / 'configs').as_posix()}"
        for path in (ROOT / "configs").rglob("*.yaml")
    }
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "efpn_d2").rglob("*.py")}
    assets = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "efpn_d2/report/assets").iterdir()
    }
    assert len(configs) > 0 and len(assets) > 0
    packaged = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packaged == configs | modules | assets | {"efpn_d2/py.typed"}


def requirements(wheel: zipfile.ZipFile) -> list[str]:
    """What the package cannot do without."""
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(wheel.read(name))
    return [r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r]


def test_wheel_asks_for_lower_bounds_alone(wheel: zipfile.ZipFile):
    required = requirements(wheel)
    assert any(requirement.startswith("torch>=") for requirement in required)
    for requirement in required:
        assert not requirement.startswith(("detectron2", "opencv"))
        assert not any(mark in requirement for mark in ("==", "<", "~=", "!="))


def test_what_the_package_imports_is_required(wheel: zipfile.ZipFile):
    trees = (ast.parse(path.read_text()) for path in (ROOT / "efpn_d2").rglob("*.py"))
    nodes = [node for tree in trees for node in ast.walk(tree)]
    imported = {
        alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.level == 0}
    imported = {name.split(".")[0] for name in imported} - sys.stdlib_module_names
    distributions = importlib.metadata.packages_distributions()
    needed = {distributions.get(name, [name])[0].lower() for name in imported}
    required = {re.match(r"[\w-]+", r)[0].lower() for r in requirements(wheel)}
    # Extras, see setup.py, or taken where they are.
    optional = ("opencv", "hotcoco", "faster-coco-eval", "faster_coco_eval")
    needed = {name for name in needed if not name.startswith(optional)}
    assert {"torch", "tabulate"} <= needed
    assert needed - {"detectron2", "efpn_d2"} <= required


_STATE = """
import json, logging, os, random, sys
import numpy, torch
random.seed(1), numpy.random.seed(1), torch.manual_seed(1)
before = dict(os.environ)
import {package}
state = {{
    "modules": sorted(sys.modules),
    "env": sorted(set(os.environ.items()) ^ set(before.items())),
    "random": [random.random(), numpy.random.rand(), torch.rand(1).item()],
    "handlers": [str(h) for h in logging.getLogger().handlers],
}}
import {subpackage}  # its modules do not count, what it registers does
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
state["config"] = get_cfg().dump()
state["datasets"] = DatasetCatalog.list()
state["metadata"] = sorted(MetadataCatalog.list())
print(json.dumps(state))
"""


def test_import_has_no_side_effects():
    stock = _STATE.format(package="detectron2.modeling", subpackage="detectron2.data")
    ours = _STATE.format(package="efpn_d2", subpackage="efpn_d2.data.synthetic")
    before, after = json.loads(run_python(stock)), json.loads(run_python(ours))
    added = set(after.pop("modules")) - set(before.pop("modules"))
    assert "efpn_d2" in added
    heavy = {"cv2", "matplotlib", "pycocotools", "tensorboard", "scipy", "pandas"}
    assert not {name.split(".")[0] for name in added} & heavy
    assert not added & {"PIL.ImageDraw", "PIL.ImageFont", "efpn_d2.visualization", "efpn_d2.report"}
    assert after == before  # no data set is registered, among others
