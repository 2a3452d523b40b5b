"""Training of a part of a model."""

from torch import nn


def freeze_all_but(model: nn.Module, prefixes: tuple[str, ...]) -> None:
    """Let only the parameters whose name begins with one of ``prefixes`` be trained.

    Raises:
        ValueError: no parameter would be left to train.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(prefixes))
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError(
            f"The model has no parameter below {' or '.join(prefixes)}, so this stage would train "
            "nothing: use an EFPN backbone and EFPN heads with routing."
        )


def eval_frozen_modules(model: nn.Module) -> None:
    """Put every module of which all parameters are frozen into evaluation mode.

    So batch normalisation of frozen parts neither updates nor uses batch statistics, and a frozen
    RPN only proposes. A module without parameters, such as dropout, goes with the one it is in.
    """
    trainable = [p.requires_grad for p in model.parameters()]
    if trainable and not any(trainable):
        model.eval()
        return
    for child in model.children():
        eval_frozen_modules(child)
