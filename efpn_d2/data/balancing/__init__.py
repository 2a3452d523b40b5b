"""Class balancing: crops around objects of rare classes, planned from annotations and written."""

from efpn_d2.data.balancing.crops import balance_dataset
from efpn_d2.data.balancing.plan import BalanceOptions, Crop, count_by_class, plan_crops

__all__ = ["BalanceOptions", "Crop", "balance_dataset", "count_by_class", "plan_crops"]
