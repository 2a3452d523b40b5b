"""Repeat factors that balance the classes seen in training."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch


def count_instances(records: Sequence[dict[str, Any]]) -> Counter[int]:
    """Count the objects of each class in Detectron2's dataset dicts, without crowds."""
    return Counter(
        annotation["category_id"]
        for record in records
        for annotation in record.get("annotations", ())
        if not annotation.get("iscrowd", 0)
    )


def class_balance_factors(
    records: Sequence[dict[str, Any]], instances: int, max_repeat: float
) -> torch.Tensor:
    """Compute repeat factors such that each class has about ``instances`` objects per epoch.

    A class with n objects needs the factor instances / n, clamped to [1, ``max_repeat``]; an image
    gets the largest factor of its classes. Classes that often share images with rarer ones are
    therefore seen more often than ``instances``.

    Args:
        records: N dataset dicts in Detectron2's format.
        instances: target number of objects per class and epoch.
        max_repeat: maximum factor of an image, against memorization.

    Returns:
        (N,) float factors, 1 for images without objects.

    Raises:
        ValueError: if a value is out of range.
    """
    if instances < 1 or max_repeat < 1:
        raise ValueError(
            f"DATA.BALANCE_INSTANCES is {instances} and DATA.BALANCE_MAX_REPEAT {max_repeat}: both "
            "must be at least 1."
        )
    factors = {
        category: min(max(instances / number, 1.0), max_repeat)
        for category, number in count_instances(records).items()
    }
    return torch.tensor(
        [max((factors[c] for c in count_instances([record])), default=1.0) for record in records]
    )
