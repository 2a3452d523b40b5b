"""How often images are repeated so that rare classes are seen as often as others."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch


def count_instances(records: Sequence[dict[str, Any]]) -> Counter[int]:
    """Objects of each class in records of Detectron2's format; crowds do not count."""
    return Counter(
        annotation["category_id"]
        for record in records
        for annotation in record.get("annotations", ())
        if not annotation.get("iscrowd", 0)
    )


def class_balance_factors(
    records: Sequence[dict[str, Any]], instances: int, max_repeat: float
) -> torch.Tensor:
    """Per image, how often an epoch shows it so that each class has about ``instances`` objects.

    A class with n objects needs the factor instances / n, but at least 1 and at most
    ``max_repeat``; an image gets the largest of its classes. So the number of a class that is often
    in images of a rarer one comes out larger.

    Args:
        records: N records of Detectron2's format.
        instances: objects per class and epoch to reach.
        max_repeat: no image is shown more often, for a network would learn it by heart.

    Returns:
        (N,) float factors, 1 for images without objects.

    Raises:
        ValueError: a number is out of its range.
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
