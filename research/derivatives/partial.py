"""Partial derivatives with other arguments fixed, and total derivatives."""

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

MOST_PATHS = 1000  # Largest number of paths that a total derivative lists.


class DependencyPath(NamedTuple):
    """A path of variables from x to f.

    Each variable on the path is an argument of the function that computes the next
    variable. x is the variable with respect to which f is differentiated.

    Attributes:
      names: Names of the variables on the path, from x to f, such as ("x", "y", "f").
      value: Product of the derivatives of each variable with respect to the one before
        it, in the structure and shapes of the total derivative.
    """

    names: tuple[str, ...]
    value: Any


class TotalDerivative(NamedTuple):
    """The total derivative df/dx of a function f(x, ...), split into its parts.

    Attributes:
      direct: ∂f/∂x with all other arguments of f held fixed.
      via: Dict from the name y of an argument of f to ∂f/∂y · dy/dx, which is the
        effect of x through that argument. The dict has an entry for each argument of f
        that is a key of `dependencies` (see `total_derivative`).
      total: df/dx, which equals `direct` plus the sum of the values of `via`.
      paths: All paths from x to f, a tuple of `DependencyPath`. The value of a path is
        the product of the derivatives along it, and the sum of these values is `total`.
        If there are more than 1000 paths, the tuple is empty.
    """

    direct: Any
    via: dict[str, Any]
    total: Any
    paths: tuple[DependencyPath, ...]


def partial_derivative(
    f: Callable[..., Any], argument: int | str, /, *args: Any, **named: Any
) -> Any:
    """Return the partial derivative ∂f/∂argument, with all other arguments held fixed.

    Args:
      f: Function of several arguments.
      argument: Name of the argument that varies, or its position among `args`, from 0.
      *args, **named: Point of evaluation, as in f(*args, **named). The arguments that
        do not vary may have any type.
    Returns:
      The derivative with respect to the argument, as from `jacobian`. If f returns one
      number, the result is the gradient, in the structure and shapes of the argument.
      `chosen_mode` tells whether forward or reverse mode is used.
    Raises:
      ValueError: f has no such argument, no value is given for the argument, or the
        names of f's arguments cannot be read, as for some functions written in C.
      TypeError: argument is neither a name nor a position, or f cannot be called as
        f(*args, **named).
      NotInexactError: The argument or the value of f is not floating.
    Example:
      >>> ideal_gas = lambda n, T, V: n * 8.314 * T / V
      >>> # ∂p/∂V = -n R T / V²
      >>> float(
      ...     partial_derivative(ideal_gas, "V", 1.0, 300.0, 2.0)
      ... )
      -623.55
    """
    check_callable("f", f)
    if not isinstance(argument, str | int | np.integer) or isinstance(argument, bool):
        raise TypeError(
            "argument must be the name or position of one of f's arguments; got "
            f"argument={shown(argument)}."
        )
    parameters = _parameters(f)
    try:
        bound = inspect.signature(f).bind(*args, **named)
    except TypeError as error:
        raise TypeError(
            f"f={title(f)} cannot be called with these arguments: {error}."
        ) from None
    names = list(parameters)
    if isinstance(argument, int | np.integer):
        if not 0 <= argument < len(args):
            raise ValueError(
                "argument must be the place, from 0, of one of the "
                f"{len(args)} arguments that are given to {title(f)} by position; got "
                f"argument={argument}."
            )
        position = int(argument)
        return jacobian(
            lambda x: f(*args[:position], x, *args[position + 1 :], **named),
            floating(args[position], _name_at(position, parameters)),
        )
    if argument not in parameters:
        raise ValueError(
            f"argument must be one of the arguments of {title(f)}: {', '.join(names)}; "
            f"got argument={argument!r}."
        )
    if argument not in bound.arguments:
        raise ValueError(
            f"{title(f)} needs a value for {argument}, the point of the derivative; "
            "got none."
        )

    def varied(x: Any) -> Any:
        moved = inspect.BoundArguments(
            bound.signature, type(bound.arguments)(bound.arguments)
        )
        moved.arguments[argument] = x
        return f(*moved.args, **moved.kwargs)

    return jacobian(varied, floating(bound.arguments[argument], argument))


def _name_at(position: int, parameters: Mapping[str, inspect.Parameter]) -> str:
    """Return the name of an argument that is given by its position, for a message."""
    for place, (name, parameter) in enumerate(parameters.items()):
        if parameter.kind is parameter.VAR_POSITIONAL:
            return f"{name}[{position - place}]"
        if place == position:
            return name
    return f"argument {position}"


def total_derivative(
    f: Callable[..., Any], x: Any, dependencies: Mapping[str, Callable[..., Any]]
) -> TotalDerivative:
    """Return the total derivative df/dx if the other arguments of f depend on x.

    For f(x, y) with y = g(x), the formula is df/dx = ∂f/∂x + ∂f/∂y · dy/dx. The dict
    `dependencies` contains the function g of each variable y. This function may take
    other variables as arguments, but the variables must not form a cycle. The order of
    the dict does not matter. The result also contains the contribution of each path of
    variables from x to f.

    Args:
      f: Function whose first argument is x. Each other argument must be a key of
        `dependencies` or have a default. The default is used only if the argument is
        not a key. f returns one array.
      x: Point of evaluation, a floating array or pytree.
      dependencies: Dict from the name of a variable to the function that computes it.
        The arguments of this function are matched by name: an argument with the name of
        the first argument of f receives x, and an argument with the name of a variable
        receives this variable, even if the argument has a default. All other arguments
        must have defaults, which are used.
    Returns:
      The `TotalDerivative`. Each derivative in it has the structure of x. If f returns
      one number, the leaves have the shapes of the leaves of x. If f returns an array
      of shape s, each leaf of a derivative has the shape s + z.shape, where z is the
      corresponding leaf of x.
    Raises:
      ValueError: An argument of a function is not x, is not a dependency and has no
        default. Or the name of a dependency is the name of x. Or a dependency is not
        used, or the dependencies have a cycle. Or f has no arguments, or does not
        return one array.
      TypeError: f or a dependency is not callable, or `dependencies` is not a dict from
        names to functions.
      NotInexactError: A leaf of x, of a variable or of the value of f is not floating.
    References:
      Bauer, Computational graphs and rounding error, SIAM J. Numer. Anal. 11, 1974 (the
      sum over paths).
    Example:
      >>> area = lambda width, height: width * height
      >>> # With height = width², the area is width³.
      >>> result = total_derivative(area, 3.0, {"height": lambda width: width**2})
      >>> [
      ...     float(value)
      ...     for value in (result.direct, result.via["height"], result.total)
      ... ]
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
    parents = graph.parents[graph.target]
    return TotalDerivative(
        shaped(local[graph.target, graph.source]),
        {
            name: shaped(local[graph.target, name] @ total[name])
            for name in parents
            if name != graph.source
        },
        shaped(total[graph.target]),
        tuple(
            DependencyPath(names, shaped(value))
            for names, value in _paths(graph, local, total[graph.source])
        ),
    )


class _Graph(NamedTuple):
    """Dependencies between variables.

    Attributes:
      source: Name of x.
      target: Name of f.
      functions: Dict from a name to its function, for the dependencies and f.
      parents: Dict from a name to the names of the variables that its function uses.
      order: All names except x. Each variable comes before the variables that use it,
        and f is last.
    """

    source: str
    target: str
    functions: dict[str, Callable[..., Any]]
    parents: dict[str, tuple[str, ...]]
    order: tuple[str, ...]


def _graph(
    f: Callable[..., Any], dependencies: Mapping[str, Callable[..., Any]]
) -> _Graph:
    names = list(_parameters(f))
    if not names:
        raise ValueError(
            f"f={title(f)} must take x as its first argument; it has no arguments."
        )
    source, target = names[0], title(f)
    while target in dependencies or target == source:
        target += "'"
    if source in dependencies:
        raise ValueError(
            f"dependencies must not contain {source!r}, which is x, the first argument "
            f"of {title(f)}. Remove it."
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
            f"dependencies must be used; no function takes {unused[0]!r}. {title(f)} "
            f"takes {', '.join(names)}."
        )
    try:
        order = tuple(
            n for n in graphlib.TopologicalSorter(parents).static_order() if n != source
        )
    except graphlib.CycleError as error:
        circle = " -> ".join(error.args[1])
        raise ValueError(
            f"dependencies must not form a cycle; got {circle}. Solve for one of them "
            "first."
        ) from error
    return _Graph(source, target, functions, parents, order)


def _taken(
    name: str, g: Callable[..., Any], known: set[str], source: str, is_target: bool
) -> tuple[str, ...]:
    """Return the names of the variables that a function takes as arguments."""
    taken = []
    for parameter in _parameters(g).values():
        if parameter.name in known and parameter.kind is parameter.VAR_POSITIONAL:
            owner = title(g) if is_target else f"dependencies[{name!r}]"
            raise ValueError(
                f"{owner} must take {parameter.name!r} as one argument; it takes "
                f"{parameter}. Remove the *."
            )
        if parameter.name in known:
            taken.append(parameter.name)
        elif parameter.default is parameter.empty:
            owner = title(g) if is_target else f"dependencies[{name!r}]"
            choice = ", ".join(sorted(known - {source})) or "there are none"
            raise ValueError(
                f"{owner} takes {parameter.name!r}, which is neither {source} nor a "
                f"dependency ({choice}). Add {parameter.name!r} to dependencies, or "
                "give this argument a default."
            )
    return tuple(taken)


def _parameters(f: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(f).parameters)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the arguments of f={title(f)} have no readable names. Wrap it: lambda x, "
            "y: f(x, y)."
        ) from error


def _called(f: Callable[..., Any], values: dict[str, Any]) -> Any:
    """Call a function with arguments by name, or by position if it needs that.

    If an argument is given by position, all arguments before it must have a value. So
    their defaults are passed, too.
    """
    parameters = _parameters(f).values()
    by_place = [p for p in parameters if p.kind is p.POSITIONAL_ONLY]
    num_given = max(
        (i + 1 for i, p in enumerate(by_place) if p.name in values), default=0
    )
    by_position = [values.get(p.name, p.default) for p in by_place[:num_given]]
    places = {p.name for p in by_place}
    by_name = {name: value for name, value in values.items() if name not in places}
    return f(*by_position, **by_name)


def _values(graph: _Graph, x: Any) -> dict[str, Any]:
    values = {graph.source: x}
    for name in graph.order:
        parents = {parent: values[parent] for parent in graph.parents[name]}
        values[name] = _called(graph.functions[name], parents)
        values[name] = floating(
            values[name], title(graph.functions[name]) if name == graph.target else name
        )
    if not isinstance(values[graph.target], jax.Array):
        raise ValueError(
            f"{title(graph.functions[graph.target])} must return one array. Return a "
            "part of its value."
        )
    return values


def _local_derivatives(
    graph: _Graph, values: dict[str, Any]
) -> dict[tuple[str, str], jax.Array]:
    """Return a dict from (name, parent) to the Jacobian of a variable by its parent."""
    local = {}
    for name in graph.order:
        for parent in graph.parents[name]:
            flat, unravel = ravel_pytree(values[parent])
            others = {
                other: values[other] for other in graph.parents[name] if other != parent
            }

            def step(
                moved: jax.Array,
                name: str = name,
                parent: str = parent,
                others: dict[str, Any] = others,
                unravel: Callable[..., Any] = unravel,
            ) -> jax.Array:
                given = {**others, parent: unravel(moved)}
                return ravel_pytree(_called(graph.functions[name], given))[0]

            local[name, parent] = jacobian(step, flat)
    return local


def _paths(
    graph: _Graph, local: dict[tuple[str, str], jax.Array], start: jax.Array
) -> list[tuple[tuple[str, ...], Any]]:
    """Return all paths with their products, or [] if there are more than MOST_PATHS."""
    number = {graph.source: 1}
    for name in graph.order:
        number[name] = sum(number[parent] for parent in graph.parents[name])
    if number[graph.target] > MOST_PATHS:
        return []
    paths: dict[str, list[tuple[tuple[str, ...], Any]]] = {
        graph.source: [((graph.source,), start)]
    }
    for name in graph.order:
        paths[name] = [
            ((*names, name), local[name, parent] @ value)
            for parent in graph.parents[name]
            for names, value in paths[parent]
        ]
    return paths[graph.target]


def _shaped(
    matrix: jax.Array, shape: tuple[int, ...], unravel: Callable[..., Any]
) -> Any:
    """Convert a Jacobian, shape (outputs, inputs), to a pytree with the structure of x.

    `shape` is the shape of f(x). A leaf of x of shape s becomes an array of shape
    `shape` + s.
    """
    if not shape:
        return unravel(matrix[0])
    rows = jax.vmap(unravel)(matrix)
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), rows)
