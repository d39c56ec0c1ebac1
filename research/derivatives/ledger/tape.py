"""A recorded function: its values, equations and adjoints."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, eq=False)
class Literal:
    """A constant of an equation, equal only to itself."""

    value: Any


Operand = int | Literal  # The number of a node, or a constant.


@dataclasses.dataclass
class Equation:
    """One equation with its values.

    Attributes:
      primitive: Name of the primitive.
      inputs: Operands.
      outputs: Nodes.
      call: values of the inputs -> tuple of values of the outputs.
      params: Parameters of the primitive, such as the exponent or axes.
      source: "file.py:12", the line of the user's code.
      scope: Names of the enclosing functions, rules, branches and steps, outermost
        first.
      calls: For each of these a number, which distinguishes two calls of a function.
      is_active: Whether an adjoint may pass through it. False inside a function with
        its own rule.
      is_rule: Whether it belongs to the derivative rule of a function with its own
        (custom_jvp, custom_vjp).
      pullback: Reverse rule at these values for the active inputs: adjoints of the
        outputs -> contributions. It is stored because the backward pass, local
        derivatives and paths all use it.
      contributions: Contribution to each input's adjoint, from the backward pass; None
        if there is none.
    """

    primitive: str
    inputs: tuple[Operand, ...]
    outputs: tuple[int, ...]
    call: Callable[[Sequence[Any]], tuple[Any, ...]]
    params: dict[str, Any]
    source: str
    scope: tuple[str, ...]
    calls: tuple[int, ...]
    is_active: bool
    is_rule: bool
    pullback: Callable[..., Any] | None = None
    contributions: tuple[Any, ...] | None = None


@dataclasses.dataclass
class Link:
    """Adjoints that pass unchanged from outputs to inputs, into or out of a rule."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclasses.dataclass
class OwnReverse:
    """A function with its own reverse rule (custom_vjp), for its active inputs.

    Attributes:
      inputs, outputs: Nodes.
      pullback: Adjoints of the outputs -> contributions to the inputs.
      source, scope: As in an equation.
      arriving: Nodes of the adjoints of its outputs.
      entries: Equations of the rule. They are at the end of the tape, because they only
        run backwards.
      contributions: Contribution to each input, or None.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    pullback: Callable[..., Any]
    source: str
    scope: tuple[str, ...]
    arriving: tuple[int, ...] = ()
    entries: list["Entry"] = dataclasses.field(default_factory=list)
    contributions: tuple[Any, ...] | None = None


Entry = Equation | Link | OwnReverse


@dataclasses.dataclass(frozen=True)
class OwnRule:
    """A function with its own derivative, from its active inputs to its outputs.

    Attributes:
      name: Name of the function.
      inputs, outputs: Nodes.
      entries: Equations of its value.
      within: For each input a node whose adjoint is the rule's contribution; None for a
        reverse rule.
      reverse: The reverse rule; None for a forward rule.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    entries: tuple["Entry", ...]
    within: tuple[int, ...] | None = None
    reverse: OwnReverse | None = None


@dataclasses.dataclass
class Tape:
    """A recorded function.

    Attributes:
      expand: {"scan"} to record each step of a scan, else empty.
      values, active, adjoints: For each node: its value, whether it depends on a
        differentiated input, and the derivative of the function with respect to it
        (None if no adjoint has arrived).
      entries: The equations in order, and the links between them.
      rules: Functions with their own derivative.
      copies: Nodes that stand for another node, as a constant.
    """

    expand: frozenset[str] = frozenset()
    values: list[Any] = dataclasses.field(default_factory=list)
    active: list[bool] = dataclasses.field(default_factory=list)
    adjoints: list[Any] = dataclasses.field(default_factory=list)
    entries: list[Entry] = dataclasses.field(default_factory=list)
    rules: list[OwnRule] = dataclasses.field(default_factory=list)
    copies: dict[int, int] = dataclasses.field(default_factory=dict)

    def node(self, value: Any, active: bool) -> int:
        """Add a node and return its number."""
        self.values.append(value)
        self.active.append(bool(active) and is_inexact(value))
        self.adjoints.append(None)
        return len(self.values) - 1

    def value(self, operand: Operand) -> Any:
        """Return the value of an operand."""
        return operand.value if isinstance(operand, Literal) else self.values[operand]

    def is_active(self, operand: Operand) -> bool:
        """Whether an operand depends on a differentiated input."""
        return not isinstance(operand, Literal) and self.active[operand]

    def equations(self) -> list[Equation]:
        """Return the equations in order, without links."""
        return [entry for entry in self.entries if isinstance(entry, Equation)]


def is_inexact(value: Any) -> bool:
    """Whether a value is floating or complex."""
    return jnp.issubdtype(jnp.result_type(value), jnp.inexact)


def is_key(value: Any) -> bool:
    """Whether a value is a PRNG key rather than a number."""
    return jnp.issubdtype(
        getattr(value, "dtype", None) or jnp.result_type(value), jax.dtypes.prng_key
    )
