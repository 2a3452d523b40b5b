"""The package as it is built, and what importing it does: nothing that shows elsewhere."""

import email
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import efpn_d2
from check_wheel import build_wheel
from efpn_d2 import get_config, get_config_file
from efpn_d2.model_zoo import list_configs

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
    assert len(configs) > 0
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == configs | modules


def test_wheel_asks_for_lower_bounds_alone(wheel: zipfile.ZipFile):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(wheel.read(name))
    required = [r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r]
    assert any(requirement.startswith("torch>=") for requirement in required)
    for requirement in required:
        assert not requirement.startswith(("detectron2", "opencv"))
        assert not any(mark in requirement for mark in ("==", "<", "~=", "!="))


_STATE = """
import json, logging, os, random, sys
import numpy, torch
random.seed(1), numpy.random.seed(1), torch.manual_seed(1)
before = dict(os.environ)
{statement}
state = {{
    "modules": sorted({{name.split(".")[0] for name in sys.modules}}),
    "env": sorted(set(os.environ.items()) ^ set(before.items())),
    "random": [random.random(), numpy.random.rand(), torch.rand(1).item()],
    "handlers": [str(h) for h in logging.getLogger().handlers],
}}
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
state["config"] = get_cfg().dump()
state["datasets"] = DatasetCatalog.list()
state["metadata"] = sorted(MetadataCatalog.list())
print(json.dumps(state))
"""


def test_import_has_no_side_effects():
    stock = json.loads(run_python(_STATE.format(statement="import detectron2.modeling")))
    ours = json.loads(run_python(_STATE.format(statement="import efpn_d2")))
    stock_modules, modules = set(stock.pop("modules")), set(ours.pop("modules"))
    assert "efpn_d2" in modules - stock_modules
    heavy = {"cv2", "matplotlib", "pycocotools", "tensorboard", "scipy", "pandas"}
    assert not (modules - stock_modules) & heavy
    assert ours == stock


def test_configs_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = list_configs()
    assert names == sorted(
        path.relative_to(ROOT / "configs").as_posix() for path in (ROOT / "configs").rglob("*.yaml")
    )
    for name in names:
        assert Path(get_config_file(name)).is_file()
    get_config(names[0]).OUTPUT_DIR = "changed"
    assert get_config(names[0]).OUTPUT_DIR != "changed"
    with pytest.raises(FileNotFoundError, match=f"no config 'missing.yaml'; it has: {names[0]}"):
        get_config_file("missing.yaml")
