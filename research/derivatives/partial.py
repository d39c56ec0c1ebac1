"""Partial and total derivatives: one argument with the others held, or with the others following it."""

import graphlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from research.checks import check_callable, check_mapping, shown
from research.derivatives.exact import jacobian
from research.derivatives.exact.arguments import floating, title

MOST_PATHS = 1000


class Path(NamedTuple):
    """One way on which x acts on f.

    Attributes:
      names: From x to f, such as ("x", "y", "f").
      value: The product of the local derivatives along it, in the shape of the total.
    """

    names: tuple[str, ...]
    value: Any


class TotalDerivative(NamedTuple):
    """The total derivative of f, and what it is the sum of.

    Attributes:
      direct: ∂f/∂x, everything else held.
      via: name -> ∂f/∂name · d name/dx, what reaches f through that variable last; names that f does not take are not here.
      total: df/dx = direct + the sum of via.
      paths: Every path from x to f with its product; they too sum to the total. Empty beyond 1000 paths.
    """

    direct: Any
    via: dict[str, Any]
    total: Any
    paths: tuple[Path, ...]


def partial_derivative(
    f: Callable, argument: int | str, /, *args: Any, **named: Any
) -> Any:
    """∂f/∂argument with all other arguments held where they are.

    Args:
      f: Function of several arguments.
      argument: The one that varies: its position from 0 on, or its name.
      args, named: Where, as in f(*args, **named). Arguments that are held may be anything that f takes.
    Returns:
      For an f with one real value, the gradient in that argument, in its structure and shape; else the Jacobian,
      forward or reverse by `chosen_mode`.
    Raises:
      ValueError: f has no such argument, or it is not given.
      NotInexactError: The argument, or what f gives, is no floating number.
    Example:
      >>> ideal_gas = lambda n, T, V: n * 8.314 * T / V
      >>> float(partial_derivative(ideal_gas, "V", 1.0, 300.0, 2.0))  # ∂p/∂V = -n R T / V²
      -623.55
    """
    check_callable("f", f)
    if not isinstance(argument, str | int | np.integer) or isinstance(argument, bool):
        raise TypeError(
            f"argument must be the name or the place of one of f's arguments; got argument={shown(argument)}."
        )
    parameters = _parameters(f)
    try:
        bound = inspect.signature(f).bind(*args, **named)
    except TypeError as error:
        raise TypeError(
            f"f={title(f)} cannot be called with the arguments that were given: {error}."
        ) from None
    names = list(parameters)
    if isinstance(argument, int | np.integer) and not isinstance(argument, bool):
        if not 0 <= argument < len(args):
            raise ValueError(
                f"{title(f)} was given {len(args)} arguments by position; got argument={argument}."
            )
        position = int(argument)
        return jacobian(
            lambda x: f(*args[:position], x, *args[position + 1 :], **named),
            args[position],
        )
    if argument not in parameters:
        raise ValueError(
            f"{title(f)} has no argument {argument!r}; it has {', '.join(names)}."
        )
    if argument not in bound.arguments:
        raise ValueError(
            f"{title(f)} was given no {argument}; a derivative needs the place where it is taken."
        )

    def varied(x: Any) -> Any:
        moved = inspect.BoundArguments(
            bound.signature, type(bound.arguments)(bound.arguments)
        )
        moved.arguments[argument] = x
        return f(*moved.args, **moved.kwargs)

    return jacobian(varied, bound.arguments[argument])


def total_derivative(
    f: Callable, x: Any, dependencies: Mapping[str, Callable]
) -> TotalDerivative:
    """df/dx where f's other arguments follow x: the chain rule on a graph, split by path.

    With y = g(x): df/dx = ∂f/∂x + ∂f/∂y · dy/dx. The dependencies may use each other, in any order without a cycle.

    Args:
      f: Function of x, its first argument, and of variables named in dependencies.
      x: A floating array or pytree.
      dependencies: name -> function that gives the variable of that name, from x (by f's own name for it) and from
        other variables, all by the names of its arguments. Arguments with defaults that are no variables keep these.
    Returns:
      TotalDerivative; each derivative is the gradient in x's structure where f gives one number, else has the shape
      f(x).shape + x.shape (in each leaf of x).
    Raises:
      ValueError: A function takes a name that is neither x nor a dependency, a dependency has x's own name or is used
        by nothing, or the dependencies go in a circle.
      NotInexactError: A leaf of x, or a variable, is no floating number.
    References:
      Bauer, Computational graphs and rounding error, SIAM J. Numer. Anal. 11, 1974 (the sum over paths).
    Example:
      >>> area = lambda width, height: width * height
      >>> found = total_derivative(area, 3.0, {"height": lambda width: width**2})  # So the area is width³.
      >>> [float(value) for value in (found.direct, found.via["height"], found.total)]
      [9.0, 18.0, 27.0]
    """
    check_callable("f", f)
    x = floating(x, "x")
    check_mapping("dependencies", dependencies, "names to functions")
    for name, dependency in dependencies.items():
        check_callable(f"dependencies[{name!r}]", dependency)
    graph = _graph(f, dependencies)
    values = _values(graph, x)
    local = _local_derivatives(graph, values)
    flat, unravel = ravel_pytree(x)
    total = {graph.source: jnp.eye(flat.size, dtype=flat.dtype)}
    for name in graph.order:
        zero = jnp.zeros((ravel_pytree(values[name])[0].size, flat.size), flat.dtype)
        total[name] = sum(
            (local[name, parent] @ total[parent] for parent in graph.parents[name]),
            zero,
        )
    shape = jnp.shape(values[graph.target])
    shaped = lambda matrix: _shaped(matrix, shape, unravel)
    nothing = jnp.zeros_like(total[graph.target])
    parents = graph.parents[graph.target]
    return TotalDerivative(
        shaped(local.get((graph.target, graph.source), nothing)),
        {
            name: shaped(local[graph.target, name] @ total[name])
            for name in parents
            if name != graph.source
        },
        shaped(total[graph.target]),
        tuple(
            Path(names, shaped(value))
            for names, value in _paths(graph, local, total[graph.source])
        ),
    )


class _Graph(NamedTuple):
    """Who takes whom: source is x's name, target f's; order has every dependency before whatever takes it, f last."""

    source: str
    target: str
    functions: dict[str, Callable]
    parents: dict[str, tuple[str, ...]]
    order: tuple[str, ...]


def _graph(f: Callable, dependencies: Mapping[str, Callable]) -> _Graph:
    names = list(_parameters(f))
    if not names:
        raise ValueError(f"{title(f)} takes nothing; its first argument must be x.")
    source, target = names[0], title(f)
    while target in dependencies or target == source:
        target += "'"
    if source in dependencies:
        raise ValueError(
            f"dependencies gives {source!r}, but that is x, the first argument of {title(f)}: it depends on nothing."
        )
    functions = {**dependencies, target: f}
    known = {source, *dependencies}
    parents = {
        name: _taken(name, g, known, source, name == target)
        for name, g in functions.items()
    }
    used = {parent for taken in parents.values() for parent in taken}
    unused = [name for name in dependencies if name not in used]
    if unused:
        raise ValueError(
            f"dependencies gives {unused[0]!r}, which nothing takes; {title(f)} takes {', '.join(names)}."
        )
    try:
        order = tuple(
            n for n in graphlib.TopologicalSorter(parents).static_order() if n != source
        )
    except graphlib.CycleError as error:
        circle = " -> ".join(error.args[1])
        raise ValueError(
            f"dependencies must have no cycle; got {circle}. Solve it for one of them first."
        ) from error
    return _Graph(source, target, functions, parents, order)


def _taken(
    name: str, g: Callable, known: set[str], source: str, is_target: bool
) -> tuple[str, ...]:
    """Which variables a function takes."""
    taken = []
    for parameter in _parameters(g).values():
        if parameter.name in known:
            taken.append(parameter.name)
        elif parameter.default is parameter.empty:
            owner = title(g) if is_target else f"dependencies[{name!r}]"
            choice = ", ".join(sorted(known - {source}))
            raise ValueError(
                f"{owner} takes {parameter.name!r}, which is neither {source} nor a dependency ({choice})."
            )
    return tuple(taken)


def _parameters(f: Callable) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(f).parameters)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{title(f)} does not tell the names of its arguments; wrap it: lambda x, y: f(x, y)."
        ) from error


def _values(graph: _Graph, x: Any) -> dict[str, Any]:
    values = {graph.source: x}
    for name in graph.order:
        values[name] = graph.functions[name](
            **{parent: values[parent] for parent in graph.parents[name]}
        )
        values[name] = floating(
            values[name], title(graph.functions[name]) if name == graph.target else name
        )
    if not isinstance(values[graph.target], jax.Array):
        raise ValueError(
            f"{title(graph.functions[graph.target])} must give one array; choose a part of what it gives."
        )
    return values


def _local_derivatives(
    graph: _Graph, values: dict[str, Any]
) -> dict[tuple[str, str], jax.Array]:
    """(name, parent) -> the Jacobian of one step, as a matrix."""
    local = {}
    for name in graph.order:
        for parent in graph.parents[name]:
            flat, unravel = ravel_pytree(values[parent])
            others = {
                other: values[other] for other in graph.parents[name] if other != parent
            }

            def step(moved, name=name, parent=parent, others=others, unravel=unravel):
                return ravel_pytree(
                    graph.functions[name](**{**others, parent: unravel(moved)})
                )[0]

            local[name, parent] = jacobian(step, flat)
    return local


def _paths(
    graph: _Graph, local: dict[tuple[str, str], jax.Array], start: jax.Array
) -> list[tuple[tuple[str, ...], Any]]:
    """Every path with its product; none where there are more than MOST_PATHS."""
    number = {graph.source: 1}
    for name in graph.order:
        number[name] = sum(number[parent] for parent in graph.parents[name])
    if number[graph.target] > MOST_PATHS:
        return []
    found: dict[str, list] = {graph.source: [((graph.source,), start)]}
    for name in graph.order:
        found[name] = [
            ((*names, name), local[name, parent] @ value)
            for parent in graph.parents[name]
            for names, value in found[parent]
        ]
    return found[graph.target]


def _shaped(matrix: jax.Array, shape: tuple[int, ...], unravel: Callable) -> Any:
    """A matrix of derivatives (outputs by inputs) in the shape of f(x) and the structure of x."""
    if not shape:
        return unravel(matrix[0])
    rows = jax.vmap(unravel)(matrix)
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), rows)
