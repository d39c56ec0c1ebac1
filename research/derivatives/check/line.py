"""Values and derivatives of a function along lines, in float64 where possible."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from research.derivatives.check.rounding import NUDGE, Nudge, rounding_of
from research.derivatives.check.slopes import (
    NUDGED_OFFSETS,
    OFFSETS,
    root_mean_square,
)
from research.derivatives.check.staircases import is_rounded_to_float32
from research.derivatives.check.underflow import Underflow
from research.derivatives.costs.jaxprs import inner, precisions, traced
from research.derivatives.errors import NotInexactError
from research.derivatives.exact.arguments import title
from research.tracing import LOOKS_AT_VALUES

POINTS = 12  # Number of values that show the precision of an f that is not traced.
BATCH = 2**22  # Largest number of array entries that are evaluated at a time.
# If f's largest array has at most this size, compiling takes longer than running. The
# second number is for an f with a loop, of which the size of one step is known.
SMALL, SMALL_IN_A_LOOP = 2**15, 2**12
# Number of perturbed evaluations of a derivative, and a factor of larger perturbations.
DRAWS, WIDE = 8, 2.0**12
UNOPTIMIZED = (("xla_backend_optimization_level", 0),)
NO_RULE = (TypeError, ValueError, NotImplementedError)
NARROWER = (jnp.bfloat16, np.float16, np.float32)  # From the largest spacing down.


class Leaf(NamedTuple):
    """One leaf of the pytree x at which a derivative is checked.

    Attributes:
      name: Name of the leaf.
      start: Index of the leaf's first entry in the flattened x.
      size: Number of entries of the leaf.
      scale: Root mean square of the entries, or 1 if the root mean square is 0 or not
        finite.
    """

    name: str
    start: int
    size: int
    scale: float


def lift(f: Callable[..., Any], x: Any) -> tuple[Any, Any]:
    """Convert x to float64, and find the least precise dtype in which f computes.

    Returns:
      (x in float64, least precise dtype in which f computes). If JAX cannot trace f,
      the dtype is estimated from values of f near x. If f calls a Python function by
      `jax.pure_callback`, the dtype is the less precise of two: this estimate, and the
      least precise dtype in the program that JAX traces. If f does not accept float64,
      the result is x unchanged and the dtype of the least precise leaf of x.
    """
    lifted = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)), x)
    try:
        # f may keep a constant for its next call, which must not be a tracer.
        with jax.ensure_compile_time_eval():
            jaxpr = traced(f, lifted)
    except LOOKS_AT_VALUES:
        return lifted, _precision_of_values(f, lifted)
    except NO_RULE:
        return x, least_precise(x)
    found = precisions(jaxpr)
    if _has(jaxpr, "pure_callback"):
        # Without jit, each call would compile the loops in f again.
        found.add(_precision_of_values(jax.jit(f), lifted))
    return lifted, max(found, key=lambda dtype: jnp.finfo(dtype).eps)


def least_precise(x: Any) -> Any:
    """Return the dtype of the least precise leaf of x."""
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(x)]
    return max(dtypes, key=lambda dtype: jnp.finfo(dtype).eps)


def _is_floating(value: Any) -> bool:
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating)


def _precision_of_values(f: Callable[..., Any], x: Any) -> np.dtype:
    """Return the lowest precision in which f computes, according to its values near x.

    A function that computes in float32 returns values that float32 can represent, even
    if it converts them to float64. If f returns float64, and the values are integers or
    only few of them differ, the result is float64. The reason is that steps and counts
    are exact in every dtype. If only float64 can represent the values, parts of f may
    still be rounded to float32. `is_rounded_to_float32` tests this.
    """
    random = np.random.default_rng(0)
    shifts = random.uniform(-1, 1, POINTS) / 16
    near = lambda shift: _moved(x, shift)
    try:
        found = [f(near(shift)) for shift in shifts]
    except (ArithmeticError, ValueError):  # math.acos(1.1): x is near an edge.
        return np.dtype(np.float64)
    if not all(map(_is_floating, found)):  # `Line` refuses such an f.
        return np.dtype(np.float64)
    if found[0].dtype != np.float64:
        return np.dtype(found[0].dtype)
    values = np.concatenate([np.ravel(np.asarray(v, np.float64)) for v in found])
    values = np.unique(values[np.isfinite(values)])
    if len(values) > POINTS / 2 and (values != np.round(values)).any():
        for dtype in map(np.dtype, NARROWER):
            with np.errstate(over="ignore"):
                if np.array_equal(values, values.astype(dtype).astype(np.float64)):
                    return dtype
        if all(_is_rounded_to_float32(f, x, random) for _ in range(2)):
            return np.dtype(np.float32)
    return np.dtype(np.float64)


def _is_rounded_to_float32(
    f: Callable[..., Any], x: Any, random: np.random.Generator
) -> bool:
    """Return whether f looks rounded to float32 along a random direction."""
    ways = jax.tree.map(
        lambda leaf: (
            random.choice([-1.0, 1.0], leaf.shape) * random.uniform(0.5, 1, leaf.shape)
        ),
        x,
    )

    def along(t: float) -> np.ndarray:
        shift = jax.tree.map(lambda way: t * way, ways)
        return np.ravel(np.asarray(f(_moved(x, shift)), np.float64))

    return is_rounded_to_float32(along, sum(leaf.size for leaf in jax.tree.leaves(x)))


def _moved(x: Any, shift: Any) -> Any:
    """Return x times 1 + shift, or the shift where x is 0.

    `shift` is a number, or a pytree of arrays like x.
    """
    shifts = shift if jax.tree.structure(shift) == jax.tree.structure(x) else None
    if shifts is None:
        shifts = jax.tree.map(lambda leaf: shift, x)
    return jax.tree.map(
        lambda leaf, shift: jnp.where(leaf == 0, shift, (1 + shift) * leaf), x, shifts
    )


class ValuesOfJax:
    """A wrapper of f that returns NumPy values and Python floats of f as JAX arrays."""

    def __init__(self, f: Callable[..., Any]):
        self.f, self.__name__ = f, title(f)

    def __call__(self, x: Any) -> Any:
        """Return f(x), converted to a JAX array if it is a NumPy value or a float."""
        value = self.f(x)
        is_other = isinstance(value, np.ndarray | np.generic | float)
        return jnp.asarray(value) if is_other else value


def is_partial_of_jax(f: Callable[..., Any], x: Any) -> bool:
    """Return whether f is a `jax.tree_util.Partial` that JAX can trace."""
    if not isinstance(f, jax.tree_util.Partial):
        return False
    try:
        value = jax.eval_shape(f, x)
    except Exception:  # What f raises when it meets a tracer.
        return False
    return isinstance(value, jax.ShapeDtypeStruct)


class Line:
    """Evaluation of f, and of its derivative, along lines through x.

    The methods use these terms:

    - v: Direction of a line through x.
    - h: Step along the line, to the point x + h v.
    - w: Weights of the outputs of f.
    - ⟨w, f⟩: Sum of the outputs of f, each times its weight.
    - Tested derivative: The derivative that the user gave, or JAX's derivative if the
      user gave none.

    The arguments of the constructor are:

    - f: The function.
    - x: The point, a pytree of arrays.
    - derivative: Function that returns the derivative to test, as the user gave it.
      None means JAX's derivatives.
    - is_lifted: Whether x was converted to float64.

    If f is a `jax.tree_util.Partial`, JAX compiles it once and uses the program again
    for other values of the bound arguments. Any other f is compiled again for each
    instance, because f may use outside data that have changed.

    Attributes:
      flat: x as one vector.
      value: f(x).
      shape: Shape of f(x).
      leaves: List with a `Leaf` for each leaf of x.
      scales: For each entry of x, the scale of the leaf that contains the entry. Steps
        in this entry are measured in units of the scale.
    """

    def __init__(
        self,
        f: Callable[..., Any],
        x: Any,
        derivative: Callable[..., Any] | None,
        is_lifted: bool = False,
    ):
        self.f, self.x, self.given, self.is_lifted = f, x, derivative, is_lifted
        self.flat = np.asarray(ravel_pytree(x)[0], np.float64)
        self.value = self._value_at_x()
        if not _is_floating(self.value):
            got = getattr(self.value, "dtype", type(self.value).__name__)
            is_numpys = isinstance(self.value, np.ndarray | np.generic)
            if is_numpys:
                got = f"a value of NumPy ({got})"
            if is_numpys or isinstance(self.value, float):
                got += (
                    ", which JAX cannot differentiate. Use jax.numpy in it, or pass "
                    "the derivative to check"
                )
            raise NotInexactError(
                f"{title(f)} must return one real floating array; got {got}."
            )
        self.shape = self.value.shape
        if not self.value.size:
            raise ValueError(
                f"{title(f)} must return at least one number; it returned an array of "
                f"shape {self.shape}."
            )
        self.leaves = list(_leaves(x))
        self.scales = np.concatenate(
            [np.full(leaf.size, leaf.scale) for leaf in self.leaves]
        )
        # As far as is known, _pushed and _pulled can be traced.
        self._is_pushed = self._is_pulled = True
        self._pushed, self._sampled = (
            _program(_push, f, self._quick),
            _program(_sample, f, self._quick, static_argnames="largest"),
        )

    @functools.cached_property
    def jaxpr(self) -> Any:
        """Jaxpr of f, or None if f cannot be traced because it inspects its values."""
        return self._traced[0]

    @functools.cached_property
    def _traced(self) -> tuple[Any, bool]:
        """Return (`jaxpr`, whether f returned an array of JAX while it was traced)."""
        is_of_jax = []

        def watched(x: Any) -> Any:
            value = self.f(x)
            is_of_jax.append(isinstance(value, jax.Array))
            return value

        try:
            with jax.ensure_compile_time_eval():  # As in `lift`.
                return jax.make_jaxpr(watched)(self.x).jaxpr, is_of_jax[-1]
        except LOOKS_AT_VALUES:
            return None, False

    def _value_at_x(self) -> Any:
        """Return f(x), by one program if JAX can trace f.

        A call of f would compile each of its operations, which takes longer.
        """
        try:
            by_one_program = self._traced[1]
        except Exception:  # If a call raises the error too, it comes from f's line.
            by_one_program = False
        if not by_one_program:
            return self.f(self.x)
        return _program(_evaluate, self.f, self._quick)(self.x)

    @functools.cached_property
    def has_float16(self) -> bool:
        """Whether f computes in float16 in places. False if JAX cannot trace f."""
        return self.jaxpr is not None and np.dtype(np.float16) in precisions(self.jaxpr)

    @functools.cached_property
    def _largest(self) -> int:
        return _largest(self.jaxpr)

    @functools.cached_property
    def _nudged(self) -> Callable:
        static = ("largest", "kind")
        return _program(_nudge, self.f, self._quick, static_argnames=static)

    @property
    def chooses(self) -> bool:
        """Whether f computes two values and selects one of them, as `where` does."""
        return self.jaxpr is not None and _has(self.jaxpr, "select_n")

    def sampled(
        self, v: np.ndarray, w: np.ndarray, point: np.ndarray | None = None
    ) -> np.ndarray:
        """Evaluate ⟨w, f(x + h v)⟩ at each step h in OFFSETS.

        OFFSETS are the numbers 0, ±1, ±1/2, ..., ±2^-26 in ascending order. v is the
        direction of the line, w are the weights of the outputs, and ⟨w, f⟩ is the
        weighted sum of the outputs. If `point` is not None, it takes the place of x.
        """
        if self.jaxpr is None:
            point = self.flat if point is None else point
            return self._called(point, v, w)
        x = self.x if point is None else self._like(point)
        return np.asarray(self._sampled(x, self._like_x(v), w, largest=self._largest))

    def _called(self, point: np.ndarray, v: np.ndarray, w: np.ndarray) -> np.ndarray:
        """Evaluate ⟨w, f⟩ as `sampled` does, but call f, which JAX cannot trace."""
        f = self.f.f if isinstance(self.f, ValuesOfJax) else self.f
        at_a_time = max(1, BATCH // self.flat.size)
        values = []
        for first in range(0, len(OFFSETS), at_a_time):
            # One transfer of several points takes less time than one of each.
            offsets = OFFSETS[first : first + at_a_time]
            some = [self._in_numpy(point + h * v) for h in offsets]
            for x in jax.device_put(some):
                try:
                    values.append(np.sum(w * np.asarray(f(x), np.float64)))
                except (ArithmeticError, ValueError):  # math.log(-1.0)
                    values.append(np.nan)
        return np.array(values)

    def rounding(
        self,
        v: np.ndarray,
        w: np.ndarray,
        seed: int,
        values: np.ndarray,
        nudge: float = NUDGE,
        point: np.ndarray | None = None,
        kind: type[Nudge] = Nudge,
    ) -> np.ndarray:
        """Measure the rounding errors of ⟨w, f(x + h v)⟩ at some of the steps h.

        ⟨w, f⟩ is the weighted sum of the outputs. The steps are NUDGED_OFFSETS, the
        numbers ±1, ±1/16, ..., ±2^-24 in ascending order. At each step, f is evaluated
        again with random perturbations. They change the input of f, and the result of
        each operation that rounds, by about `nudge` times the rounding error of the
        number. The measured error is the change of ⟨w, f⟩ divided by `nudge`. The
        errors are NaN if f cannot be traced.

        Args:
          v: Direction of the line.
          w: Weights of the outputs.
          seed: Seed of the perturbations.
          values: Unperturbed values, as returned by `sampled`.
          nudge: Size of the perturbations, in units of the relative spacing of the
            floats; for `Underflow`, in units of the smallest normal number.
          point: Point that takes the place of x. None means x.
          kind: Class of the perturbations. `Underflow` perturbs only numbers that are
            so small that they may underflow.
        """
        count = len(NUDGED_OFFSETS)
        if self.jaxpr is None:
            return np.full(count, np.nan)
        seeds = float(seed * count + 1) + np.arange(count, dtype=float)
        x = self.x if point is None else self._like(point)
        drawn = self._like_x(v), w, seeds, nudge
        nudged = np.asarray(self._nudged(x, *drawn, largest=self._largest, kind=kind))
        return np.abs(nudged - values[np.isin(OFFSETS, NUDGED_OFFSETS)]) / nudge

    def rounding_of_rate(
        self, v: np.ndarray, w: np.ndarray, seed: int, kind: type[Nudge] = Nudge
    ) -> float:
        """Measure the rounding error of the derivative of ⟨w, f⟩ along v.

        ⟨w, f⟩ is the weighted sum of the outputs. The derivative is evaluated at x with
        random perturbations. They change x, and the result of each operation that
        rounds, by about s times the rounding error of the number. The size s is 8 in
        eight evaluations, and 2^15 in eight others. For each size, the quotient is the
        root mean square of the changes of the derivative, divided by s. The error is
        the smaller of the two quotients.

        A change by rounding grows in proportion to s, so its two quotients are about
        equal. But if f has a kink at x, a perturbation may move the point across the
        kink. The derivative then jumps by the same amount for both sizes. So the
        quotient for the larger size hardly contains the jump.

        If the user gave the derivative, the result is the error of this derivative.
        Otherwise it is the larger of the errors of forward and reverse mode. If no
        derivative can be traced, the result is 0.

        Args:
          v: Direction.
          w: Weights of the outputs.
          seed: Seed of the perturbations.
          kind: Class of the perturbations, as in `rounding`. For `Underflow`, s is 1 in
            all evaluations.
        """
        seeds = float(seed * DRAWS) + np.arange(2.0 * DRAWS)
        sizes = np.repeat([NUDGE, WIDE * NUDGE], DRAWS)
        if kind is Underflow:  # Larger ones would be cut to half of a number.
            sizes = np.ones(2 * DRAWS)
        errors = [0.0]
        given = self.x, self._like(v), jnp.asarray(w), seeds, sizes
        for evaluate in list(self._nudged_rates):
            try:
                moved = evaluate(*given, kind=kind)
            except (*NO_RULE, *LOOKS_AT_VALUES):
                self._nudged_rates.remove(evaluate)  # No other v can be traced either.
                continue
            off = np.asarray(moved[1:], np.float64) - float(moved[0])
            errors_of_each = (off / sizes).reshape(2, DRAWS)
            finite = np.where(np.isfinite(errors_of_each), errors_of_each, 0.0)
            errors.append(float(np.min(root_mean_square(finite.T))))
        return max(errors)

    @functools.cached_property
    def _nudged_rates(self) -> list[Callable]:
        if (given := self.given) is not None:
            run = functools.partial(_nudge_given, given)
            return [jax.jit(run, static_argnames="kind")]
        return [
            _program(run, self.f, UNOPTIMIZED, static_argnames="kind")
            for run in (_nudge_push, _nudge_pull)
        ]

    def reverse(self, w: np.ndarray) -> np.ndarray | None:
        """Return Jᵀ w as a vector, or None if f has no rule for reverse mode.

        w are the weights of the outputs. J is the derivative that the user gave, or
        JAX's Jacobian of f. If f has no rule for forward mode either, the error of
        reverse mode is raised, because a custom rule of f may contain a mistake.
        """
        if self.given is not None:
            return _contracted(self._given_at_x, self, w)
        try:
            pulled = self._pulled_along(self.x, jnp.asarray(w, self.value.dtype))
        except LOOKS_AT_VALUES:
            raise
        except NO_RULE:
            if not self._has_forward_mode:
                raise
            return None
        return np.asarray(ravel_pytree(pulled)[0], np.float64)

    @functools.cached_property
    def _has_forward_mode(self) -> bool:
        try:
            self._pushed_along(self.x, self._like(self.flat))
        except NO_RULE:
            return False
        return True

    @property
    def is_differentiable(self) -> bool:
        """Whether there is a derivative to test: by forward or by reverse mode."""
        try:
            return self.of_mean is not None or self._has_forward_mode
        except NO_RULE:
            return False

    @functools.cached_property
    def of_mean(self) -> np.ndarray | None:
        """Gradient of the mean of the outputs of f, or None without reverse mode."""
        return self.reverse(np.full(self.shape, 1 / max(self.value.size, 1)))

    @functools.cached_property
    def _given_at_x(self) -> Any:
        return None if self.given is None else self.given(self.x)

    @functools.cached_property
    def eps_of_given(self) -> np.ndarray:
        """Relative spacing of the floats in which the user's derivative is returned.

        The result has one number for each entry of x. The number is 0 where the
        derivative is returned in float64, as integers or as booleans. All numbers are 0
        if the user gave no derivative.
        """
        spacings = np.zeros(self.flat.size)
        if self.given is None:
            return spacings
        for leaf, own in zip(
            jax.tree.leaves(self._given_at_x), self.leaves, strict=True
        ):
            dtype = jnp.result_type(leaf)
            if jnp.issubdtype(dtype, jnp.floating) and dtype != np.float64:
                part = slice(own.start, own.start + own.size)
                spacings[part] = float(jnp.finfo(dtype).eps)
        return spacings

    @property
    def has_finite_derivative(self) -> bool:
        """Whether every entry of Jᵀ w is finite, if all weights w are 1.

        J is the derivative that the user gave, or JAX's Jacobian of f. The property is
        False if the user gave no derivative, and f has no rule for reverse mode.
        """
        gradient = self.reverse(np.ones(self.shape))
        return gradient is not None and bool(np.isfinite(gradient).all())

    def forward(self, v: np.ndarray, w: np.ndarray) -> float:
        """Return ⟨w, J v⟩ by forward mode, or NaN if there is no forward mode to test.

        J is JAX's Jacobian of f, v is the direction, and w are the weights of the
        outputs. The result is NaN if f has no rule for forward mode, or if the user
        gave the derivative. It is infinity if the product is not finite.
        """
        if self.given is not None:
            return float("nan")
        try:
            pushed = self._pushed_along(self.x, self._like(v))
        except NO_RULE:
            return float("nan")
        rate = float(np.sum(w * np.asarray(pushed, np.float64)))
        return rate if np.isfinite(rate) else float("inf")

    def _pushed_along(self, x: Any, tangent: Any) -> Any:
        """Return JAX's derivative of f along a tangent, compiled if f can be traced."""
        if self.jaxpr is not None and self._is_pushed:
            try:
                return self._pushed(x, tangent)
            except LOOKS_AT_VALUES:  # A rule inside f looks at its values.
                self._is_pushed = False
        return jax.jvp(self.f, (x,), (tangent,))[1]

    def _pulled_along(self, x: Any, w: jax.Array) -> Any:
        """Return JAX's gradient of ⟨w, f⟩, compiled if f can be traced."""
        if self.jaxpr is not None and self._is_pulled:
            try:
                return self._pulled(x, w)
            except Exception:  # A rule inside f may need values, as to print them.
                self._is_pulled = False
        return _pull(self.f, x, w)

    def is_steady(self, v: np.ndarray, w: np.ndarray, eps: float) -> bool:
        """Return whether the rate of change along v is nearly constant close to x.

        The rate is the tested derivative along v of ⟨w, f⟩, the weighted sum of the
        outputs. The rate is computed at x and at four random points. Each entry of such
        a point is the entry of x times a number between 1 - 4 eps and 1 + 4 eps, where
        `eps` is the relative spacing of the floats. The result is True if the largest
        and the smallest rate differ by at most 10 % of the largest absolute rate.
        """
        random = np.random.default_rng(0)
        rates = []
        for spread in (0.0, *(4 * eps,) * 4):
            moved = self.flat * (1 + spread * random.uniform(-1, 1, self.flat.shape))
            rates.append(self._rate(self._like(moved), v, w))
        return bool(np.ptp(rates) <= 0.1 * np.max(np.abs(rates)))

    def smooth_entries(
        self, v: np.ndarray, w: np.ndarray, random: np.random.Generator
    ) -> np.ndarray:
        """Return for each entry of x whether JAX's gradient of ⟨w, f⟩ does not jump.

        ⟨w, f⟩ is the weighted sum of the outputs. For h = 2^-20 and for h = 2^-24, the
        gradient is computed at x, at x ± h v and at six random points about as close to
        x. The range of an entry of the gradient is its largest value minus its smallest
        value at these points. The entry jumps if its range for the smaller h is more
        than half of its range for the larger h. Where f is smooth, the range is
        proportional to h, and so 16 times smaller for the smaller h. At a kink, the
        points lie on both sides of the kink for each h, so the range does not shrink.
        There are two exceptions:

        - A range of at most 1e-6 times the largest absolute entry of the gradients is
          not a jump, because it may come from rounding errors.
        - The result is False for an entry whose range is not finite, and for all
          entries if JAX cannot compute one of the gradients.
        """
        ways = [v, *(random.normal(size=v.shape) * self.scales for _ in range(3))]
        ranges, largest = [], 0.0
        for h in (2.0**-20, 2.0**-24):
            points = [0 * v, *(sign * h * way for way in ways for sign in (1, -1))]
            gradients = [self.pulled_at(self.flat + point, w) for point in points]
            known = [gradient for gradient in gradients if gradient is not None]
            if len(known) < len(points):
                return np.zeros(v.shape, bool)
            ranges.append(np.ptp(np.stack(known), axis=0))
            largest = float(np.max(np.abs(known)))
        # Rounding errors of the gradients do not shrink either.
        jumps = (ranges[1] > 0.5 * ranges[0]) & (ranges[1] > 1e-6 * largest)
        return ~jumps & np.isfinite(ranges[1])

    def pulled_at(self, point: np.ndarray, w: np.ndarray) -> np.ndarray | None:
        """Return JAX's gradient of ⟨w, f⟩ at a point, or None if JAX has no gradient.

        ⟨w, f⟩ is the sum of the outputs of f with the weights w.
        """
        try:
            pulled = self._pulled(self._like(point), jnp.asarray(w, self.value.dtype))
        except (*NO_RULE, *LOOKS_AT_VALUES):
            return None
        return np.asarray(ravel_pytree(pulled)[0], np.float64)

    @functools.cached_property
    def _pulled(self) -> Callable:
        return _program(_pull, self.f, self._quick)

    def rates_around(
        self, v: np.ndarray, w: np.ndarray, distances: np.ndarray
    ) -> np.ndarray:
        """Return the mean of the rates of change at x + h v and at x - h v, for each h.

        The rate is the tested derivative along v of ⟨w, f⟩, the weighted sum of the
        outputs. The distances are the numbers h.
        """
        points = self.flat + np.outer([*distances, *-distances], v)
        return np.mean(self.rates_at(points, v, w).reshape(2, -1), axis=0)

    def rates_at(
        self, points: Float[np.ndarray, "points n"], v: np.ndarray, w: np.ndarray
    ) -> Float[np.ndarray, "points"]:
        """Return the tested derivative of ⟨w, f⟩ along v at each of some points.

        ⟨w, f⟩ is the sum of the outputs of f with the weights w.
        """
        try:  # All rates by one program.
            found = self._rates_of_points(self._like(points), self._like(v), w)
            return np.asarray(found, np.float64)
        except (*NO_RULE, *LOOKS_AT_VALUES):
            return np.array([self._rate(self._like(x), v, w) for x in points])

    def rates_of_f(
        self, v: np.ndarray, w: np.ndarray, distances: np.ndarray
    ) -> np.ndarray:
        """Return JAX's derivative of ⟨w, f⟩ along v at x + h v, for each distance h.

        ⟨w, f⟩ is the sum of the outputs of f with the weights w. If JAX cannot trace f,
        the derivative that the user gave is used instead. If the user gave none, the
        result is then NaN.
        """
        points = self.flat + np.outer(distances, v)
        if self.jaxpr is None and self.given is None:
            return np.full(len(points), np.nan)
        if self.jaxpr is None:
            return np.array([self._rate(self._like(x), v, w) for x in points])
        try:
            found = self._pushed_at_points(self._like(points), self._like(v), w)
            return np.asarray(found, np.float64)
        except (*NO_RULE, *LOOKS_AT_VALUES):
            pulled = [self.pulled_at(x, w) for x in points]
            return np.array([np.nan if g is None else g @ v for g in pulled])

    @functools.cached_property
    def _rates_of_points(self) -> Callable:
        if self.given is None:
            return self._pushed_at_points
        run = functools.partial(_map_given, self.given)
        return jax.jit(run, compiler_options=dict(self._quick))

    @functools.cached_property
    def _pushed_at_points(self) -> Callable:
        return _program(_map_push, self.f, self._quick)

    @functools.cached_property
    def _quick(self) -> tuple[Any, ...]:
        """Options of the compiler: fewer optimisations if f is small."""
        if self.jaxpr is None:
            return ()
        has_loop = any(_has(self.jaxpr, loop) for loop in ("scan", "while"))
        is_small = self._largest <= (SMALL_IN_A_LOOP if has_loop else SMALL)
        return UNOPTIMIZED if is_small else ()

    def _rate(self, x: Any, v: np.ndarray, w: np.ndarray) -> float:
        """Return the tested derivative of ⟨w, f⟩ along v at another point x."""
        if self.given is not None:
            return float(_contracted(self.given(x), self, w) @ v)
        try:
            pushed = self._pushed_along(x, self._like(v))
            return float(np.sum(w * np.asarray(pushed, np.float64)))
        except NO_RULE:
            pulled = self._pulled_along(x, jnp.asarray(w, self.value.dtype))
            return float(np.asarray(ravel_pytree(pulled)[0], np.float64) @ v)

    def _like(self, v: np.ndarray) -> Any:
        """Convert a vector to the structure and the dtypes of x.

        The last axis of v has the entries of x. Other axes stay in front.
        """
        return jax.device_put(self._in_numpy(v))

    def _in_numpy(self, v: np.ndarray) -> Any:
        """Convert a vector to the structure and the dtypes of x, with NumPy's arrays.

        NumPy needs no compilation, and less time than JAX for small arrays.
        """
        convert = lambda part, leaf: part.astype(leaf.dtype)
        return jax.tree.map(convert, self._like_x(v), self.x)

    def _like_x(self, v: np.ndarray) -> Any:
        """Convert a vector to the structure of x, in float64."""
        leaves, structure = jax.tree.flatten(self.x)
        pairs = zip(self.leaves, leaves, strict=True)
        parts = [
            v[..., own.start : own.start + own.size].reshape(
                v.shape[:-1] + np.shape(leaf)
            )
            for own, leaf in pairs
        ]
        return jax.tree.unflatten(structure, parts)


def _program(
    run: Callable[..., Any],
    f: Callable[..., Any],
    compiler: tuple[Any, ...] = (),
    **options: Any,
) -> Callable:
    if isinstance(f, jax.tree_util.Partial):
        return functools.partial(_compiled_for_all(run, compiler, **options), f)
    return jax.jit(
        functools.partial(run, f), compiler_options=dict(compiler), **options
    )


@functools.cache
def _compiled_for_all(run: Callable, compiler: tuple, **options: Any) -> Callable:
    return jax.jit(run, compiler_options=dict(compiler), **options)


def _evaluate(f: Callable, x: Any) -> Any:
    return f(x)


def _push(f: Callable, x: Any, v: Any) -> Any:
    return jax.jvp(f, (x,), (v,))[1]


def _pull(f: Callable, x: Any, w: Any) -> Any:
    return jax.vjp(f, x)[1](w)[0]


def _sample(f: Callable, x: Any, v: Any, w: Any, largest: int) -> Any:
    return _mapped(lambda h: _at(f, x, v, w, h), jnp.asarray(OFFSETS), largest)


def _nudge(
    f: Callable,
    x: Any,
    v: Any,
    w: Any,
    seeds: Any,
    size: Any,
    largest: int,
    kind: type[Nudge],
) -> Any:
    """Evaluate ⟨w, f(x + h v)⟩ with perturbed operations, at each of NUDGED_OFFSETS.

    The perturbations have the given size, in units of ε.
    """
    evaluate = rounding_of(jax.make_jaxpr(f)(x), kind)
    nudged = lambda seed: lambda moved: evaluate(seed, jax.tree.leaves(moved), size)[0]
    at = lambda given: _at(nudged(given[1]), x, v, w, given[0])
    return _mapped(at, (jnp.asarray(NUDGED_OFFSETS), seeds), largest)


def _map_push(f: Callable, points: Any, v: Any, w: Any) -> Any:
    return jax.lax.map(lambda x: jnp.sum(w * _push(f, x, v).astype(float)), points)


def _map_given(given: Callable, points: Any, v: Any, w: Any) -> Any:
    return jax.lax.map(lambda x: _inner(_pulled(given, x, w), v), points)


def _pulled(given: Callable, x: Any, w: Any) -> Any:
    """Contract the leaves of a derivative with the weights of the outputs."""
    return jax.tree.map(lambda leaf: jnp.tensordot(w, leaf, w.ndim), given(x))


def _nudge_push(
    f: Callable, x: Any, v: Any, w: Any, *drawn: Any, kind: type[Nudge]
) -> Any:
    return _nudged_rate(lambda x: jnp.sum(w * _push(f, x, v)), x, kind, *drawn)


def _nudge_pull(
    f: Callable, x: Any, v: Any, w: Any, *drawn: Any, kind: type[Nudge]
) -> Any:
    pull = lambda x: jax.vjp(lambda x: jnp.sum(w * f(x)), x)[1](1.0)[0]
    return _nudged_rate(lambda x: _inner(pull(x), v), x, kind, *drawn)


def _nudge_given(
    given: Callable, x: Any, v: Any, w: Any, *drawn: Any, kind: type[Nudge]
) -> Any:
    return _nudged_rate(lambda x: _inner(_pulled(given, x, w), v), x, kind, *drawn)


def _nudged_rate(
    rate: Callable, x: Any, kind: type[Nudge], seeds: Any, sizes: Any
) -> Any:
    """Evaluate a rate at x, first unperturbed, then with each seed's perturbations."""
    evaluate = rounding_of(jax.make_jaxpr(rate)(x), kind)
    at = lambda given: evaluate(given[0], jax.tree.leaves(x), given[1])[0]
    return jax.lax.map(at, (jnp.append(0.0, seeds), jnp.append(0.0, sizes)))


def _inner(one: Any, other: Any) -> Any:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return sum(jnp.vdot(a, b) for a, b in pairs)


def _at(f: Callable, x: Any, v: Any, w: Any, h: Any) -> Any:
    moved = jax.tree.map(
        lambda leaf, d: (leaf.astype(float) + h * d).astype(leaf.dtype), x, v
    )
    return jnp.sum(w * jnp.asarray(f(moved)).astype(float))


def _mapped(at: Callable, given: Any, largest: int) -> Any:
    """Map a function over offsets, in equal batches that fit into memory."""
    count = len(jax.tree.leaves(given)[0])
    at_a_time = max(
        b
        for b in range(1, count + 1)
        if count % b == 0 and (b == 1 or b * largest <= BATCH)
    )
    try:
        return (
            jax.vmap(at)(given)
            if at_a_time == count
            else jax.lax.map(at, given, batch_size=at_a_time)
        )
    except NotImplementedError:  # jax.pure_callback without a vmap_method.
        return jax.lax.map(at, given)


def _largest(jaxpr: Any) -> int:
    """Return the number of entries of the largest array in a jaxpr."""
    own = [v for equation in jaxpr.eqns for v in equation.outvars]
    sizes = [int(np.prod(getattr(v.aval, "shape", ()))) for v in (*jaxpr.invars, *own)]
    return max(
        [
            1,
            *sizes,
            *(_largest(held) for equation in jaxpr.eqns for held in inner(equation)),
        ]
    )


def _has(jaxpr: Any, primitive: str) -> bool:
    return any(
        equation.primitive.name == primitive
        or any(_has(held, primitive) for held in inner(equation))
        for equation in jaxpr.eqns
    )


def _leaves(x: Any) -> Iterator[Leaf]:
    start = 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(x)[0]:
        values = np.asarray(leaf, np.float64)
        scale = _root_mean_square(values)
        yield Leaf(
            "x" + jax.tree_util.keystr(path),
            start,
            values.size,
            scale if 0 < scale < np.inf else 1.0,
        )
        start += values.size


def _root_mean_square(values: np.ndarray) -> float:
    """Return √(mean of the squares), also where the squares over- or underflow."""
    with np.errstate(over="ignore", under="ignore"):
        plain = float(np.sqrt(np.mean(values**2))) if values.size else 0.0
    if 1e-150 < plain < np.inf or not values.any():
        return plain
    top = float(np.max(np.abs(values)))
    if top == np.inf:
        return top
    return top * float(np.sqrt(np.mean((values / top) ** 2)))


def _contracted(jacobian: Any, line: Line, w: np.ndarray) -> np.ndarray:
    """Compute wᵀ J as a vector, for a given Jacobian."""
    shapes = [line.shape + leaf.shape for leaf in jax.tree.leaves(line.x)]
    got = [np.shape(leaf) for leaf in jax.tree.leaves(jacobian)]
    if jacobian is None:
        raise ValueError(
            "derivative must return the derivative of f at x; it returned None. Does "
            "it lack a return?"
        )
    structure, wanted = jax.tree.structure(jacobian), jax.tree.structure(line.x)
    if structure != wanted:
        raise ValueError(
            f"derivative must return the structure of x, {wanted}; it returned "
            f"{structure}. If x is a list of numbers, pass one array."
        )
    if any(np.iscomplexobj(leaf) for leaf in jax.tree.leaves(jacobian)):
        raise ValueError(
            "derivative must return real numbers; it returned complex ones."
        )
    if got != shapes:
        raise ValueError(
            f"derivative must return the structure of x with leaves of shape {shapes} "
            f"(f's shape, then the leaf's); got leaves of shape {got}."
        )
    parts = [
        np.tensordot(w, np.asarray(leaf, np.float64), w.ndim).ravel()
        for leaf in jax.tree.leaves(jacobian)
    ]
    return np.concatenate(parts)
