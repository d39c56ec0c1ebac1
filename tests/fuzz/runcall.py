"""Calls a function with arguments by name, those among them that can only be given by
place included.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any


def perform(function: Callable, arguments: dict[str, Any]) -> Any:
    """f(**arguments), where *args is given as a tuple under its name, and **named as a
    dict under its; generators are run.
    """
    places: list[Any] = []
    named: dict[str, Any] = dict(arguments)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in named:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            places = [
                named.pop(name)
                for name in list(named)
                if name in before(function, parameter.name)
            ]
            places += named.pop(parameter.name)
        elif parameter.kind is parameter.VAR_KEYWORD:
            named |= named.pop(parameter.name)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.name in named:
            places.append(named.pop(parameter.name))
    result = function(*places, **named)
    return list(result) if isinstance(result, Iterator) else result


def before(function: Callable, name: str) -> list[str]:
    """The parameters that stand before one."""
    parameters = list(inspect.signature(function).parameters)
    return parameters[: parameters.index(name)]
