"""Data sets: registered on request, never at import.

A training or evaluation script calls :func:`register_datasets` once its config is complete, and
:func:`check_files_exist` to fail before the work and not after it; one with a command line adds
:func:`add_dataset_arguments` and :func:`apply_dataset_arguments`.
"""

from efpn_d2.data.datasets.arguments import add_dataset_arguments, apply_dataset_arguments
from efpn_d2.data.datasets.checks import check_files_exist, suspicions
from efpn_d2.data.datasets.registration import (
    register_coco_sets,
    register_datasets,
    register_synthetic,
)

__all__ = [
    "add_dataset_arguments",
    "apply_dataset_arguments",
    "check_files_exist",
    "register_coco_sets",
    "register_datasets",
    "register_synthetic",
    "suspicions",
]
