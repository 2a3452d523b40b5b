import json

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog

from efpn_d2.config import add_efpn_config
from tests.data.datasets.trees import write_image

BUILTIN_SETS = set(DatasetCatalog.list())  # conftest files are imported before any test runs


@pytest.fixture
def catalogs():
    """Detectron2's own data sets alone, before a test and after it."""
    _forget_other_sets()
    yield DatasetCatalog
    _forget_other_sets()


def _forget_other_sets():
    for name in set(DatasetCatalog.list()) - BUILTIN_SETS:
        DatasetCatalog.remove(name)
        if name in MetadataCatalog.list():
            MetadataCatalog.remove(name)


@pytest.fixture
def cfg():
    """Detectron2's defaults plus this package's nodes, without data sets."""
    config = get_cfg()
    add_efpn_config(config)
    config.DATASETS.TRAIN = config.DATASETS.TEST = ()
    return config


@pytest.fixture
def write_coco(tmp_path):
    """Writes a COCO JSON of one box below ``tmp_path``, and its image, of 8 x 8 pixels."""

    def write(name="signs", classes=("stop", "yield"), folder="mine", without=()):
        image_dir = tmp_path / folder / "images"
        write_image(image_dir / "a.jpg", 8, 8)
        annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4]}
        annotation |= {"area": 16, "iscrowd": 0}
        content = {
            "images": [{"id": 1, "file_name": "a.jpg", "width": 8, "height": 8}],
            "annotations": [{k: v for k, v in annotation.items() if k not in without}],
            # Not in the order of their ids, as some tools write them.
            "categories": [{"id": i, "name": n} for i, n in enumerate(classes, start=1)][::-1],
        }
        json_file = tmp_path / folder / f"{name}.json"
        json_file.write_text(json.dumps(content))
        return str(json_file), str(image_dir)

    return write
