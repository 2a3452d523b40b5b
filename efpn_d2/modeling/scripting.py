"""What a script needs that a module does without."""

import types
from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])


def renamed(function: Function, name: str) -> Function:
    """A method of a base class for a subclass that overrides it and calls it in scripts, too.

    Scripts have no ``super()``, and compile a method by its ``__name__``.

    Args:
        function: the method.
        name: of the attribute that it becomes.

    Returns:
        A copy of it with that ``__name__``.
    """
    copy = types.FunctionType(
        function.__code__, function.__globals__, name, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = function.__annotations__
    return copy  # type: ignore[return-value]
