"""Freeze parts of a model in training."""

from torch import nn


def freeze_all_but(model: nn.Module, prefixes: tuple[str, ...]) -> None:
    """Freeze all parameters except those whose name begins with one of ``prefixes``.

    Raises:
        ValueError: if no trainable parameter is left.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(prefixes))
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError(
            f"The model has no parameters below {' or '.join(prefixes)}, so this stage would train "
            "nothing: use an EFPN backbone and EFPN heads with routing."
        )


def eval_frozen_modules(model: nn.Module) -> None:
    """Put every module whose parameters are all frozen into evaluation mode.

    Batch normalization of frozen parts then neither updates nor uses batch statistics, and a frozen
    RPN only proposes. A module without parameters, such as dropout, follows its parent.
    """
    trainable = [p.requires_grad for p in model.parameters()]
    if trainable and not any(trainable):
        model.eval()
        return
    for child in model.children():
        eval_frozen_modules(child)
