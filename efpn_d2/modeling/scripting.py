"""Support for scripting with ``torch.jit.script``."""

import types
from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])


def renamed(function: Function, name: str) -> Function:
    """Copy a method of a base class so that a scripted subclass can override and call it.

    Scripts do not support ``super()``, and compile a method by its ``__name__``.

    Args:
        function: the method.
        name: the ``__name__`` of the copy, which must be the name of its attribute.

    Returns:
        The copy.
    """
    copy = types.FunctionType(
        function.__code__, function.__globals__, name, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = function.__annotations__
    return copy  # type: ignore[return-value]
