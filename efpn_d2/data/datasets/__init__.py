"""Data sets: registered on request, never at import.

A training or evaluation script calls :func:`register_datasets` once its config is complete; one
with a command line adds :func:`add_dataset_arguments` and :func:`apply_dataset_arguments`.
"""

from .arguments import add_dataset_arguments, apply_dataset_arguments
from .registration import register_coco_sets, register_datasets, register_synthetic

__all__ = [
    "add_dataset_arguments",
    "apply_dataset_arguments",
    "register_coco_sets",
    "register_datasets",
    "register_synthetic",
]
