"""P'2 at inference only where it is read."""

from efpn_d2.modeling.lazy.build import LazyComputation, build_lazy_computation, queries_p2_prime
from efpn_d2.modeling.lazy.lazy_map import LazyP2Prime
from efpn_d2.modeling.lazy.profile import ExtensionProfile, profile_extension, profile_step
from efpn_d2.modeling.lazy.tiles import PyramidMaps

__all__ = [
    "ExtensionProfile",
    "LazyComputation",
    "LazyP2Prime",
    "PyramidMaps",
    "build_lazy_computation",
    "profile_extension",
    "profile_step",
    "queries_p2_prime",
]
