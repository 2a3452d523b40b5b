"""Detect whether autograd, a compiler or hooks observe a computation."""

import torch
from torch import nn


def is_recorded() -> bool:
    """Return whether autograd, tracing, scripting or a compiler records the computation.

    Otherwise features may be modified in place and weights replaced by equivalent ones.
    """
    if torch.jit.is_scripting():
        return True
    else:  # noqa: RET505  TorchScript compiles only this form
        followed = torch.jit.is_tracing() or torch.compiler.is_compiling()
        return followed or torch.is_grad_enabled()


def is_watched(module: nn.Module, within: bool = True) -> bool:
    """Return whether calling a module, or one within it, does more than its arithmetic.

    This is the case with forward hooks, which ``torch.nn.utils.prune`` also uses to compute
    weights, and if ``forward`` is replaced on an instance. Such a module must be called as written:
    once per input, itself and not a copy, and its output must not be modified.
    """
    return any(
        m._forward_hooks or m._forward_pre_hooks or "forward" in m.__dict__
        for m in (module.modules() if within else [module])
    )
