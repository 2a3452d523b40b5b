"""P'2 at inference: only where it is read, or all of it part by part."""

from .build import LazyComputation, build_lazy_computation, queries_p2_prime
from .lazy_map import LazyP2Prime
from .parts import is_large, p2_prime_by_parts
from .profile import ExtensionProfile, ExtensionProfiler, profile_extension, profile_step
from .tiles import PyramidMaps

__all__ = [
    "ExtensionProfile",
    "ExtensionProfiler",
    "LazyComputation",
    "LazyP2Prime",
    "PyramidMaps",
    "build_lazy_computation",
    "is_large",
    "p2_prime_by_parts",
    "profile_extension",
    "profile_step",
    "queries_p2_prime",
]
