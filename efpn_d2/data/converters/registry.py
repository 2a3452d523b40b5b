"""The formats of data sets that can be converted: what ``tools/prepare_dataset.py`` offers."""

from efpn_d2.data.converters.aitod import AITOD
from efpn_d2.data.converters.coco_json import COCO
from efpn_d2.data.converters.source import Converter
from efpn_d2.data.converters.tt100k import TT100K
from efpn_d2.data.converters.visdrone import VISDRONE

#: By name.
CONVERTERS = {converter.name: converter for converter in (TT100K, AITOD, VISDRONE, COCO)}


def register_converter(converter: Converter) -> Converter:
    """Add a format.

    Raises:
        ValueError: there is one of that name.
    """
    if converter.name in CONVERTERS:
        raise ValueError(f"There is a converter '{converter.name}' already: choose another name.")
    CONVERTERS[converter.name] = converter
    return converter
