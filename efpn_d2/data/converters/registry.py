"""Registry of the converters that ``tools/prepare_dataset.py`` offers."""

from efpn_d2.data.converters.aitod import AITOD
from efpn_d2.data.converters.coco_json import COCO
from efpn_d2.data.converters.source import Converter
from efpn_d2.data.converters.tt100k import TT100K
from efpn_d2.data.converters.visdrone import VISDRONE

#: Converters by name.
CONVERTERS = {converter.name: converter for converter in (TT100K, AITOD, VISDRONE, COCO)}


def register_converter(converter: Converter) -> Converter:
    """Add a converter.

    Raises:
        ValueError: if the name is taken.
    """
    if converter.name in CONVERTERS:
        raise ValueError(f"The converter '{converter.name}' already exists: choose another name.")
    CONVERTERS[converter.name] = converter
    return converter
