"""A function as a tape: its values, the equations between them, and the adjoints that the backward pass leaves."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, eq=False)
class Literal:
    """A constant that an equation was written with; equal only to itself."""

    value: Any


Operand = int | Literal  # A node by its number, or a constant.


@dataclasses.dataclass
class Equation:
    """One equation with its values.

    Attributes:
      primitive: Name of the primitive.
      inputs: Operands.
      outputs: Nodes.
      call: values of the inputs -> tuple of values of the outputs.
      params: What the primitive was told besides: exponent, axes, ...
      source: "file.py:12" of the user's line.
      scope: Names of the functions, rules, branches and steps it stands in, outermost first.
      calls: For each of these a number, which tells two calls of one function apart.
      is_active: Whether an adjoint may pass through it: not inside a function whose own rule stands beside it.
      is_rule: Whether it belongs to the derivative of a function that brings its own (custom_jvp, custom_vjp).
      pullback: Its reverse rule at these values, for active inputs alone: adjoints of the outputs -> shares. Kept, since
        the backward pass, local derivatives and paths all ask for it.
      contributions: What the backward pass found: for each input its share of the adjoint, None where it has none.
    """

    primitive: str
    inputs: tuple[Operand, ...]
    outputs: tuple[int, ...]
    call: Callable[[Sequence[Any]], tuple]
    params: dict[str, Any]
    source: str
    scope: tuple[str, ...]
    calls: tuple[int, ...]
    is_active: bool
    is_rule: bool
    pullback: Callable | None = None
    contributions: tuple[Any, ...] | None = None


@dataclasses.dataclass
class Link:
    """Adjoints that pass unchanged, of `outputs` to `inputs`, one each: into a rule of a function's own, and out of it."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclasses.dataclass
class OwnReverse:
    """A function with a reverse rule of its own (custom_vjp): its pullback, of active inputs alone.

    Attributes:
      inputs, outputs: Nodes.
      pullback: Adjoints of the outputs -> shares of the inputs.
      source, scope: As an equation's.
      arriving: The nodes at which its rule takes the adjoints of its outputs.
      entries: The equations of its rule, which stand at the end of the tape since they only run backwards.
      contributions: The share of each input; None where no adjoint arrives.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    pullback: Callable
    source: str
    scope: tuple[str, ...]
    arriving: tuple[int, ...] = ()
    entries: list["Entry"] = dataclasses.field(default_factory=list)
    contributions: tuple[Any, ...] | None = None


Entry = Equation | Link | OwnReverse


@dataclasses.dataclass(frozen=True)
class OwnRule:
    """A function with a derivative of its own, from its active inputs to its outputs.

    Attributes:
      name: The function's.
      inputs, outputs: Nodes.
      entries: The equations of its value.
      within: A node for each input, whose adjoint is what the rule gives it; None where an OwnReverse does.
      reverse: That OwnReverse; None where the rule goes forward.
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
      expand: What has a row per step: "scan" or nothing.
      values, active, adjoints: Of each node: its value, whether it depends on what is differentiated, and the derivative
        of the function by it, None where no adjoint has come.
      entries: The equations in order, and between them how adjoints get around them.
      rules: The functions with a derivative of their own.
      copies: Nodes that stand for another one, as a constant.
    """

    expand: frozenset[str] = frozenset()
    values: list[Any] = dataclasses.field(default_factory=list)
    active: list[bool] = dataclasses.field(default_factory=list)
    adjoints: list[Any] = dataclasses.field(default_factory=list)
    entries: list[Entry] = dataclasses.field(default_factory=list)
    rules: list[OwnRule] = dataclasses.field(default_factory=list)
    copies: dict[int, int] = dataclasses.field(default_factory=dict)

    def node(self, value: Any, active: bool) -> int:
        """A new node."""
        self.values.append(value)
        self.active.append(bool(active) and is_inexact(value))
        self.adjoints.append(None)
        return len(self.values) - 1

    def value(self, operand: Operand) -> Any:
        """The value of an operand."""
        return operand.value if isinstance(operand, Literal) else self.values[operand]

    def is_active(self, operand: Operand) -> bool:
        """Whether an operand depends on what is differentiated."""
        return not isinstance(operand, Literal) and self.active[operand]

    def equations(self) -> list[Equation]:
        """The equations alone, in order."""
        return [entry for entry in self.entries if isinstance(entry, Equation)]


def is_inexact(value: Any) -> bool:
    """Whether a value is floating or complex."""
    return jnp.issubdtype(jnp.result_type(value), jnp.inexact)


def is_key(value: Any) -> bool:
    """Whether a value is a PRNG key, which is no number."""
    return jnp.issubdtype(
        getattr(value, "dtype", None) or jnp.result_type(value), jax.dtypes.prng_key
    )
