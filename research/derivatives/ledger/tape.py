"""Record of the evaluation of a function: values, equations and adjoints."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, eq=False)
class Literal:
    """A constant in the record of a function, for example an input of an `Equation`.

    Two literals are equal only if they are the same object.
    """

    value: Any


Operand = int | Literal  # The number of a node, or a constant.


@dataclasses.dataclass
class Equation:
    """One operation in the record of the evaluation of a function.

    This record is called the tape. A node is the index of a value on the tape. The
    adjoint of a node is the derivative of the function with respect to the node's
    value. An input of an equation is active if it depends on a differentiated input of
    the function.

    Attributes:
      primitive: Name of the operation, a JAX primitive.
      inputs: For each input of the equation, its node, or a `Literal` if the input is a
        constant.
      outputs: Nodes of the values that the equation computes.
      call: Function from the values of the inputs to a tuple of the values of the
        outputs.
      params: Parameters of the primitive, such as an exponent or axes.
      source: Line of the user's code, such as "file.py:12".
      scope: Names of the enclosing functions, derivative rules, branches and steps of
        loops, outermost first.
      calls: A number for each name in `scope`. Two calls of the same function have
        different numbers.
      is_active: Whether an adjoint may pass through the equation. False if no input is
        active. Also False for the equations that compute the value of a function with a
        custom derivative rule, because adjoints pass through the rule instead.
      is_rule: Whether the equation is part of a custom derivative rule (custom_jvp,
        custom_vjp), and not of the function's value.
      pullback: Function for the backward pass through this equation. It computes the
        new adjoints of the active inputs from the adjoints of the outputs and the
        existing adjoints of the active inputs. It is stored because it is used three
        times: in the backward pass, for local derivatives and for paths.
        None if it is not computed yet, or if no adjoint may pass through the equation.
      contributions: For each input, what the backward pass adds to the adjoint of the
        input because of this equation. None if the backward pass does not reach the
        equation.
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
    """Entry of the tape that passes adjoints unchanged from its outputs to its inputs.

    The tape is the record of the evaluation of a function. A link connects a custom
    derivative rule with the equations around the rule. A node is the index of a value
    on the tape.

    Attributes:
      inputs: Nodes that receive the adjoints.
      outputs: Nodes that send the adjoints.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclasses.dataclass
class OwnReverse:
    """Call of a function with a custom reverse rule (custom_vjp).

    The tape is the record of the evaluation of a function. A node is the index of a
    value on the tape. The adjoint of a node is the derivative of the function with
    respect to the node's value.

    Attributes:
      inputs: Nodes of the active inputs, those that depend on a differentiated input.
      outputs: Nodes of the outputs.
      pullback: Function of the adjoints of the outputs. It returns what the call
        contributes to the adjoint of each active input.
      source: Line of the user's code.
      scope: Names as in the field `scope` of an `Equation`, outermost first. The last
        name is that of the rule.
      arriving: Nodes whose values are the adjoints of the outputs. The equations of the
        rule start from these nodes.
      entries: Equations of the rule. They are at the end of the tape, because they are
        evaluated only in the backward pass.
      contributions: Contribution to the adjoint of each active input. None if the
        backward pass does not reach the call.
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
    """Call of a function with a custom derivative rule, forward or reverse.

    The tape is the record of the evaluation of a function. A node is the index of a
    value on the tape.

    Attributes:
      name: Name of the function.
      inputs: Nodes of the active inputs, those that depend on a differentiated input.
      outputs: Nodes of the outputs.
      entries: Equations that compute the value of the function.
      within: For a forward rule, a second node for each active input, used only inside
        the rule. This node collects the adjoint that the rule contributes, but not the
        contributions of other equations to the same input. None for a reverse rule.
      reverse: The reverse rule, or None for a forward rule.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    entries: tuple["Entry", ...]
    within: tuple[int, ...] | None = None
    reverse: OwnReverse | None = None

    def contributions(self, adjoints: Sequence[Any]) -> Sequence[Any]:
        """Return what the rule contributes to the adjoint of each input.

        A contribution may be None. The result is empty if no contribution is recorded.

        Args:
          adjoints: Adjoint of each node of the tape.
        """
        if self.reverse:
            return self.reverse.contributions or ()
        return [adjoints[node] for node in self.within or ()]


@dataclasses.dataclass
class Tape:
    """Record of the evaluation of a function.

    A node is the index of a recorded value. An operand is a node or a constant.

    Attributes:
      expand: {"scan"} if each step of a scan is recorded, otherwise an empty set.
      values: Value of each node.
      active: For each node, whether it depends on a differentiated input.
      adjoints: For each node, the derivative of the function with respect to the node's
        value. None before the backward pass, and for a node that the backward pass does
        not reach.
      entries: Equations in the order of evaluation, including those of custom forward
        rules. The list also contains the calls of functions with a custom reverse rule,
        and the `Link`s that connect a custom rule with the equations around the rule.
      rules: Calls of functions with a custom derivative rule.
      copies: Dict from the copy of a node to the original node, for each copy. Inside a
        custom rule for forward mode, the inputs are copied to new nodes that are not
        differentiated.
    """

    expand: frozenset[str] = frozenset()
    values: list[Any] = dataclasses.field(default_factory=list)
    active: list[bool] = dataclasses.field(default_factory=list)
    adjoints: list[Any] = dataclasses.field(default_factory=list)
    entries: list[Entry] = dataclasses.field(default_factory=list)
    rules: list[OwnRule] = dataclasses.field(default_factory=list)
    copies: dict[int, int] = dataclasses.field(default_factory=dict)

    def node(self, value: Any, active: bool) -> int:
        """Add a value to the tape, and return its index, the node.

        `active` says whether the value depends on a differentiated input. A value that
        is neither floating nor complex is recorded as not active.
        """
        self.values.append(value)
        self.active.append(bool(active) and is_inexact(value))
        self.adjoints.append(None)
        return len(self.values) - 1

    def value(self, operand: Operand) -> Any:
        """Return the value of an operand, which is a node or a constant."""
        return operand.value if isinstance(operand, Literal) else self.values[operand]

    def is_active(self, operand: Operand) -> bool:
        """Return whether an operand depends on a differentiated input."""
        return not isinstance(operand, Literal) and self.active[operand]

    def equations(self) -> list[Equation]:
        """Return the entries of the tape that are equations, in order of evaluation."""
        return [entry for entry in self.entries if isinstance(entry, Equation)]


def is_inexact(value: Any) -> bool:
    """Return whether a value is floating or complex."""
    return jnp.issubdtype(jnp.result_type(value), jnp.inexact)


def is_key(value: Any) -> bool:
    """Return whether a value is a typed PRNG key, as `jax.random.key` returns it."""
    return jnp.issubdtype(
        getattr(value, "dtype", None) or jnp.result_type(value), jax.dtypes.prng_key
    )
