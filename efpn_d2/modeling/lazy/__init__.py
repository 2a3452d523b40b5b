"""Lazy P'2: at inference, compute P'2 only where it is read."""

from .build import LazyComputation, build_lazy_computation, queries_p2_prime
from .lazy_map import LazyP2Prime
from .profile import ExtensionProfile, profile_extension, profile_step
from .tiles import PyramidMaps

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
