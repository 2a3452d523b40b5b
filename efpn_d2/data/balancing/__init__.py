"""More images of rare classes: crops that are planned from the annotations, then written."""

from efpn_d2.data.balancing.crops import balance_dataset
from efpn_d2.data.balancing.plan import BalanceOptions, Crop, count_by_class, plan_crops

__all__ = ["BalanceOptions", "Crop", "balance_dataset", "count_by_class", "plan_crops"]
