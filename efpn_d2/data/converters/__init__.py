"""Data sets in their own formats, converted to COCO JSON."""
