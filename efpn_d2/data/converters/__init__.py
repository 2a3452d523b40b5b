"""Converters from the formats of public datasets to COCO JSON."""
