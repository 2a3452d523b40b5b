"""Converters from the formats of public datasets to COCO JSON."""

from efpn_d2.data.converters.registry import CONVERTERS, register_converter
from efpn_d2.data.converters.source import Converter, Option, RawDataset, Selection

__all__ = ["CONVERTERS", "Converter", "Option", "RawDataset", "Selection", "register_converter"]
