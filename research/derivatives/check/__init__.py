"""Is a derivative right? The slope of the Taylor remainder, the dot-product test, and what would have been caught."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.checks import check_callable, check_key
from research.derivatives.check.line import Line, in_float64, lift
from research.derivatives.check.report import CheckReport, Probe, explained
from research.derivatives.check.slopes import remainder_slope, slope_at_middle, spread
from research.derivatives.exact.arguments import floating, title

__all__ = ["CheckReport", "Probe", "check_derivative"]

RANDOM = 8  # Directions. All of eight standard normal numbers lie within ±1.01 once in twenty draws.
WITHIN = 1.01
SAFETY = 5  # Times the error that the differences answer for.
ROUNDINGS = 20  # That the derivative may be off by.
RESOLVED = 1e-2  # A check that could not have caught an error of one per cent has found nothing out.


def check_derivative(f: Callable, x: Any, key: jax.Array, derivative: Callable | None = None) -> CheckReport:
    """Holds the derivative of f at x against the values of f around x.

    Along eight random directions v, along the gradient, and for each leaf of x along one within it, f(x + h v) is
    sampled at h = ±1, ±1/2, ..., ±2^-26, in units of the size of each leaf. Central differences, extrapolated, give a
    slope with an error that they answer for; a derivative that is further off than that (and than rounding) is wrong.
    Errors are relative to the length of the gradient, so that no scale of f or x matters, and no tolerance is asked
    for: the report prints what it would have caught. An f with many outputs is checked as ⟨w, f⟩ for a random w in
    each direction. A kink is told from a bug by one-sided slopes that differ however small h is; a leaf without
    one is still held to its derivative, and one with it to lie between the two slopes.

    f and its derivative are evaluated in float64 where f traces in it: also for an x of lower precision, and also when
    float64 is off (it is turned on for the check alone). Code that sets a lower precision itself is checked in that,
    and the report says what can be seen in it.

    Args:
      f: Function of one pytree of floating arrays that gives a floating array.
      x: Where.
      key: Draws the directions.
      derivative: What is checked: a function of x that gives f's gradient (for an f with one value) or Jacobian, as
        `gradient` and `jacobian` do. By default JAX's derivatives of f, forward and reverse, with f's own rules.
    Returns:
      CheckReport; `print(report.text())`.
    Raises:
      NotInexactError: A leaf of x, or what f gives, is no floating number.
      ValueError: derivative gives another structure or shape than the gradient or Jacobian has.
    References:
      Ridders, Accurate computation of F'(x) and F'(x) F''(x), Adv. Eng. Softw. 4, 1982 (the extrapolation); Griewank &
      Walther, Evaluating derivatives, 2nd ed., 2008, section 3 (forward and reverse as adjoints).
    Example:
      >>> f, key = lambda x: jnp.sum(jnp.sin(x) ** 2), jax.random.key(0)
      >>> report = check_derivative(f, jnp.ones(3), key)
      >>> report.verdict, report.smallest_error < 1e-8
      ('right', True)
      >>> check_derivative(f, jnp.ones(3), key, lambda x: 2.0002 * jnp.sin(x) * jnp.cos(x)).verdict
      'wrong'
    """
    check_callable("f", f, "x")
    check_key("key", key)
    if derivative is not None:
        check_callable("derivative", derivative, "x")
    x = floating(x, "x")
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
    own = None if all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(x)) else Line(f, x, derivative)
    of_own = own.reverse(np.ones(own.shape)) if own else None
    with in_float64():
        lifted, lowest = lift(f, x)
        line = Line(f, lifted, derivative)
        found = [_probe(line, float(jnp.finfo(lowest).eps), direction) for direction in _directions(line, random)]
        in_full = line.reverse(np.ones(line.shape)) if of_own is not None and lowest == np.float64 else None
    gap = float("nan") if in_full is None or of_own is None else _relative(of_own - in_full, in_full)
    return _report(tuple(found), line, _precision(x, lowest, own is not None), gap)


class _Direction(NamedTuple):
    """v in x's space, w in f's, the gradient of ⟨w, f⟩ (None without reverse mode), and the size of a rate along v."""

    name: str
    v: np.ndarray
    w: np.ndarray
    gradient: np.ndarray | None
    scale: float


def _directions(line: Line, random: np.random.Generator) -> list[_Direction]:
    once = line.reverse(np.ones(())) if not line.shape else None

    def direction(name: str, v: np.ndarray, part: slice) -> _Direction:
        w = random.normal(size=line.shape) if line.shape else np.ones(())
        gradient = line.reverse(w) if line.shape else once
        scale = float("nan") if gradient is None else float(np.linalg.norm((line.scales * gradient)[part]))
        return _Direction(name, v, w, gradient, scale)

    whole, drawn = slice(None), []
    for i in range(RANDOM):
        drawn.append(direction(f"random {i + 1}", random.normal(size=line.flat.shape) * line.scales, whole))
    gradient = drawn[-1].gradient
    if gradient is not None and np.isfinite(gradient).all() and gradient.any():
        drawn.append(drawn[-1]._replace(name="gradient", v=line.scales * _unit(line.scales * gradient)))
    for leaf in line.leaves if len(line.leaves) > 1 else ():
        part, v = slice(leaf.start, leaf.start + leaf.size), np.zeros(line.flat.shape)
        v[part] = random.normal(size=leaf.size) * leaf.scale
        drawn.append(direction(f"leaf {leaf.name}", v, part))
    return drawn


def _unit(v: np.ndarray) -> np.ndarray:
    largest = np.max(np.abs(v))
    return v / largest / np.linalg.norm(v / largest)


def _relative(difference: np.ndarray, whole: np.ndarray) -> float:
    return float(np.linalg.norm(difference) / max(np.linalg.norm(whole), np.finfo(float).tiny))


def _probe(line: Line, eps: float, direction: _Direction) -> Probe:
    name, v, w, gradient, scale = direction
    with np.errstate(all="ignore"):
        backward = float("nan") if gradient is None else _finite(float(gradient @ v))
        forward = line.forward(v, w)
        values = line.sampled(v, w)
        terms = float(np.sum(np.abs(w * np.asarray(line.value, np.float64))))
        moved = 0.0 if gradient is None else float(np.abs(gradient) @ np.abs(line.flat))
        own = abs(forward) if gradient is None else float(np.abs(gradient) @ np.abs(v))
        slope = slope_at_middle(values, eps * (terms + moved))
        floor = SAFETY * slope.error + ROUNDINGS * eps * (terms + moved + own)
        remainder = remainder_slope(values, backward if np.isfinite(backward) else forward, slope.noise)
        scale = abs(slope.value) if np.isnan(scale) else scale
        if not scale > floor:  # The gradient vanishes: relative to how f changes over a step.
            scale = spread(values) or max(terms, 1.0)
    return Probe(name, forward, backward, slope.value, floor, scale, remainder, slope.jump, slope.left, slope.right)


def _finite(rate: float) -> float:
    """The rate; infinity for NaN, which stands for a mode that is not there."""
    return rate if np.isfinite(rate) else float("inf")


def _report(probes: tuple[Probe, ...], line: Line, precision: str, own_gap: float) -> CheckReport:
    smallest = max(2 * p.floor / p.scale for p in probes if p.name.startswith("random")) / WITHIN
    is_finite = bool(np.isfinite(np.asarray(line.value, np.float64)).all())
    verdict = _verdict(probes, smallest, is_finite)
    slopes = [p.taylor_slope for p in probes if np.isfinite(p.taylor_slope) and p.name.startswith("random")]
    return CheckReport(
        verdict,
        float("inf") if verdict == "nan" else max(smallest, float(np.finfo(float).eps)),
        max(p.gap / p.scale for p in probes),
        float(np.median(slopes)) if slopes else float("nan"),
        max(p.dot_product_gap for p in probes),
        probes,
        precision,
        own_gap,
        explained(verdict, probes, title(line.f), is_finite),
    )


def _verdict(probes: tuple[Probe, ...], smallest: float, is_finite: bool) -> str:
    rates = [rate for p in probes for rate in (p.forward, p.reverse) if not np.isnan(rate)]
    if not rates or not np.isfinite(rates).all() or not is_finite:
        return "nan"
    if any(p.is_kink for p in probes):
        return "wrong" if any(p.is_off_beside_kinks for p in probes) else "kink"
    if any(p.is_off for p in probes):
        return "wrong"
    return "right" if smallest < RESOLVED else "unresolved"


def _precision(x: Any, lowest: Any, is_lifted: bool) -> str:
    dtypes = ", ".join(sorted({str(leaf.dtype) for leaf in jax.tree.leaves(x)}))
    eps = float(jnp.finfo(lowest).eps)
    if lowest == np.float64:
        return "Evaluated in float64" + (f", to which f was lifted from {dtypes}." if is_lifted else ".")
    return f"f keeps to {lowest} in places, whatever x is: evaluated so, with ε = {eps:.1e}."
