"""What README and docs say is so."""

import os
import re
from pathlib import Path

import pytest
import yaml
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.modeling import build_model

import efpn_d2
from efpn_d2.model_zoo import list_configs

pytestmark = pytest.mark.fast

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks/RESULTS.md"]


def fenced(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", x.lower()).replace(" ", "-") for x in headings}


def test_the_diff_of_a_real_config_makes_an_efpn(tmp_path):
    (diff,) = fenced("diff")
    lines = diff.splitlines()
    before = "\n".join(line[1:] for line in lines if not line.startswith("+"))
    zoo_file = Path(model_zoo.get_config_file("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"))
    assert yaml.safe_load(before) == yaml.safe_load(zoo_file.read_text())
    after = yaml.safe_load("\n".join(line[1:] for line in lines))
    after["_BASE_"] = str(zoo_file.parent / after["_BASE_"])
    converted = tmp_path / "faster_rcnn_R_50_EFPN_1x.yaml"
    converted.write_text(yaml.safe_dump(after))
    cfg = get_cfg()
    efpn_d2.add_efpn_config(cfg)
    cfg.merge_from_file(str(converted))
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    model = build_model(cfg)
    assert type(model.roi_heads).__name__ == "EFPNROIHeads"
    assert "p2_prime" in model.backbone.output_shape()


def test_the_config_lines_for_own_data_are_valid():
    (lines,) = fenced("yaml", (ROOT / "docs/datasets.md").read_text())
    cfg = get_cfg()
    efpn_d2.add_efpn_config(cfg)
    cfg.merge_from_other_cfg(type(cfg)(yaml.safe_load(lines)))
    assert [entry[0] for entry in cfg.COCO_DATA.REGISTER] == [
        *cfg.DATASETS.TRAIN,
        *cfg.DATASETS.TEST,
    ]


def test_python_example_compiles_and_names_a_config_that_exists():
    (example,) = fenced("python")
    compile(example, "README.md", "exec")
    assert re.search(r'get_config\("(.+?)"\)', example).group(1) in list_configs()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_configs_files_and_sections_that_are_named_exist(page):
    text = page.read_text()
    # Not those of a run's output folder.
    assert set(re.findall(r"--config-file ((?!RUN/)\S+/\S+\.yaml)", text)) <= set(list_configs())
    for target, _, anchor in re.findall(r"\]\((?!https?://)([^)#]*)(#([^)]+))?\)", text):
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"
    for target in re.findall(r"(?:\./|python )((?:tools|dev|demo)/\S+?\.py|train_net\.py)", text):
        assert (ROOT / target).is_file(), target
    for target in re.findall(r"(?<!\S)\./(\S+?\.py)", text):
        assert os.access(ROOT / target, os.X_OK), f"{target} is called as ./{target}"


def test_the_readme_keeps_its_budget():
    assert len(README.splitlines()) <= 120
    assert len(re.findall(r"^!\[", README, re.MULTILINE)) <= 2
    tables = [line for line in README.splitlines() if line.startswith("|")]
    assert max(line.count("|") - 1 for line in tables) <= 5
