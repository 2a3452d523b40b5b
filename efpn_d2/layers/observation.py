"""Who follows what runs: autograd and compilers, or someone's hooks."""

import torch
from torch import nn


def is_recorded() -> bool:
    """Whether autograd, a trace, a script or a compiler follows what runs.

    Where none does, maps may be changed in place and weights be replaced by equivalent ones.
    """
    if torch.jit.is_scripting():
        return True
    else:  # noqa: RET505  a script compiles no other form of this
        followed = torch.jit.is_tracing() or torch.compiler.is_compiling()
        return followed or torch.is_grad_enabled()


def is_watched(module: nn.Module, within: bool = True) -> bool:
    """Whether calls of a module, or of those within it, are more than its arithmetic.

    They are with forward hooks, with which ``torch.nn.utils.prune`` makes weights, too, and where
    ``forward`` was replaced in an instance. Such a module is to be called as written: once for each
    map, itself and not a copy, and what it returned may have been kept.
    """
    return any(
        m._forward_hooks or m._forward_pre_hooks or "forward" in m.__dict__
        for m in (module.modules() if within else [module])
    )
