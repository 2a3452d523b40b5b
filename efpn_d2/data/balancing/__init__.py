"""More images of rare classes: crops that are planned from the annotations, then written."""

from .crops import balance_dataset
from .plan import BalanceOptions, Crop, count_by_class, plan_crops

__all__ = ["BalanceOptions", "Crop", "balance_dataset", "count_by_class", "plan_crops"]
