"""Can descent on the validation loss choose a penalty, instead of a grid search?

The weights w(θ) that minimise a penalised training loss are a function of the penalties
e^θ. The implicit function theorem gives the derivative of w(θ), so the validation loss
of w(θ) has a gradient, and descent can choose θ. A grid search can choose one penalty.
Descent can choose a penalty for each feature.

    python experiments/learn_the_penalty.py            # under a minute

The problems are ridge regression on the diabetes data and logistic regression on the
breast cancer data. The derivative is compared with a closed form (ridge), with reverse
mode through all steps of a gradient descent, and with optimistix if it is installed.
The experiment compares error, memory, and seconds, which are measured in turns.

Expected numbers (`EXPECTED`): the largest relative error of the gradient of the
validation loss; the validation loss with one learnt penalty, divided by the best of a
grid; the validation loss with a penalty for each feature, divided by that with one; and
the memory of reverse mode through all steps, divided by that of the implicit
derivative. Many penalties can overfit the validation part, so the loss on the test part
is reported, too.
"""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import research

EXPECTED = {
    "gradient_error": (0.0, 1e-9),
    "ridge_learnt_over_grid": (0.9, 1.0001),
    "logistic_learnt_over_grid": (0.9, 1.0001),
    "ridge_many_over_one": (0.5, 1.0),
    "logistic_many_over_one": (0.1, 1.0),
    "unrolled_bytes_over_implicit": (5.0, 1e4),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    steps: int = 150
    """Steps of Adam on the logarithms of the penalties."""
    rate: float = 0.1
    """Learning rate of Adam."""
    grid: int = 25
    """Number of penalties in the grid, which goes from e^-12 to e^2."""
    unrolled: int = 1500
    """Steps of the gradient descent that reverse mode differentiates for comparison."""
    repeats: int = 15
    """Number of times that each gradient is timed."""
    seed: int = 0
    """Seed of the division into training, validation and test part."""


FULL = Config(steps=600, grid=101, repeats=51)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._peers import peer
from experiments._timing import seconds_and_ratios
from research.cli.progress import OnProgress
from research.types import Checkpoints

LOGS = (-12.0, 2.0)  # Ends of the grid of log penalties.
START = -4.0  # Where descent on the log penalties begins.
TOLERANCE = 1e-12
IMPLICIT, UNROLLED, OPTIMISTIX = "implicit_minimum", "through all steps", "optimistix"
PROBLEMS = {"ridge": "diabetes", "logistic": "breast_cancer"}

# These numbers depend on what is installed. `reproduce` does not judge them.
VARIES = {"peer_installed": None, "peer_bytes": None, "peer_error": None}

Parts = tuple[tuple[jax.Array, jax.Array], ...]


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Learn the penalties of both problems, and compare ways to differentiate."""
    del checkpoints  # The experiment takes a minute, so no checkpoint is saved.
    for field in ("steps", "rate", "grid", "unrolled", "repeats"):
        if not getattr(config, field) > 0:
            raise ValueError(
                f"{field} must be positive; got {field}={getattr(config, field)}."
            )
    arrays: dict[str, np.ndarray] = {}
    numbers: dict[str, Any] = {"problems": {}}
    for done, name in enumerate(PROBLEMS):
        if on_progress:
            on_progress(done, len(PROBLEMS) + 1, name)
        found, of_problem = _learnt(name, config)
        arrays |= {f"{name}/{key}": value for key, value in of_problem.items()}
        numbers["problems"][name] = found
        numbers[f"{name}_learnt_over_grid"] = found["one"] / found["grid"]
        numbers[f"{name}_many_over_one"] = found["many"] / found["one"]
    if on_progress:
        on_progress(len(PROBLEMS), len(PROBLEMS) + 1, "ways to differentiate")
    return research.runs.Findings(arrays, numbers | _ways(config))


def data(name: str, seed: int) -> Parts:
    """Return (x, y) of the training, validation and test part, standardised."""
    loaded = research.datasets.load(PROBLEMS[name])
    parts = research.datasets.split(loaded.x, loaded.y, seed, (0.5, 0.25, 0.25))
    xs = research.datasets.standardise(*(x for x, _ in parts))
    ys = [np.asarray(y, float) for _, y in parts]
    if name == "ridge":
        mean, deviation = ys[0].mean(), ys[0].std()
        ys = [(y - mean) / deviation for y in ys]
    return tuple((jnp.asarray(x), jnp.asarray(y)) for x, y in zip(xs, ys, strict=True))


def loss(name: str, w: jax.Array, part: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Return the mean loss of a linear model without intercept on a part."""
    x, y = part
    if name == "ridge":
        return 0.5 * jnp.mean((x @ w - y) ** 2)
    return jnp.mean(jax.nn.softplus(x @ w) - y * (x @ w))


def penalised(name: str, part: tuple[jax.Array, jax.Array]) -> Callable[..., Any]:
    """Return the objective (w, θ) -> loss + Σ e^θ w² / 2."""
    return lambda w, theta: loss(name, w, part) + 0.5 * jnp.sum(jnp.exp(theta) * w**2)


def minimum(name: str, parts: Parts) -> Callable[[jax.Array], jax.Array]:
    """Return θ -> w(θ), differentiable by the implicit function theorem."""
    objective, rule = penalised(name, parts[0]), research.update_rules.newton()
    start = jnp.zeros(parts[0][0].shape[1])
    return lambda theta: (
        research.descent.implicit_minimum(
            objective, start, theta, rule=rule, tolerance=TOLERANCE
        ).params
    )


def _learnt(name: str, config: Config) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Choose the penalties by a grid, and by descent: one, and one for each feature."""
    parts = data(name, config.seed)
    weights, count = minimum(name, parts), parts[0][0].shape[1]
    valid = lambda theta: loss(name, weights(theta), parts[1])
    test = lambda theta: loss(name, weights(theta), parts[2])
    both = jax.jit(lambda theta: (valid(theta), test(theta)))
    slope = jax.jit(jax.value_and_grad(valid))
    shared = lambda theta: jnp.full(count, theta)
    grid = np.linspace(*LOGS, config.grid)
    on_grid = np.array([both(shared(theta)) for theta in grid])
    best = int(np.argmin(on_grid[:, 0]))
    # With one penalty, the derivative is the sum over the features.
    one, one_path = _descend(slope, jnp.full(count, START), config, tied=True)
    many, many_path = _descend(slope, one, config, tied=False)
    found = {
        "features": count,
        "grid": float(on_grid[best, 0]),
        "grid_test": float(on_grid[best, 1]),
        "grid_log_penalty": float(grid[best]),
        "one": float(both(one)[0]),
        "one_test": float(both(one)[1]),
        "one_log_penalty": float(one[0]),
        "many": float(both(many)[0]),
        "many_test": float(both(many)[1]),
    }
    return found, {
        "grid": grid,
        "grid_losses": on_grid,
        "one": one_path,
        "many": many_path,
        "penalties": np.asarray(many),
    }


def _descend(
    slope: Callable[..., Any], theta: Any, config: Config, *, tied: bool
) -> tuple[jax.Array, np.ndarray]:
    """Descend the validation loss by Adam with a rate that falls to 0.

    Returns:
      The θ with the lowest loss, and the losses of all steps.
    """
    rule = research.update_rules.adam(
        lambda t: 0.5 * config.rate * (1 + jnp.cos(jnp.pi * t / config.steps))
    )
    state, best, losses = rule.init(theta), theta, []
    for _ in range(config.steps):
        value, grads = slope(theta)
        losses.append(float(value))
        best = theta if losses[-1] <= min(losses) else best
        grads = jnp.full_like(grads, jnp.sum(grads)) if tied else grads
        updates, state = rule.update(grads, state, theta)
        theta = optax.apply_updates(theta, updates)
    return best, np.array(losses)


def closed_form(parts: Parts, theta: jax.Array) -> np.ndarray:
    """Return the gradient of the validation loss of ridge regression, by NumPy.

    w = A⁻¹ Xᵀy / n with A = XᵀX / n + diag(e^θ), so ∂w/∂θ_j = -A⁻¹ e_j e^θ_j w_j.
    """
    (x, y), (x_valid, y_valid) = (tuple(map(np.asarray, part)) for part in parts[:2])
    scale = np.exp(np.asarray(theta))
    matrix = x.T @ x / len(x) + np.diag(scale)
    w = np.linalg.solve(matrix, x.T @ y / len(x))
    slope = x_valid.T @ (x_valid @ w - y_valid) / len(x_valid)
    return -np.linalg.solve(matrix, slope) * scale * w


def _ways(config: Config) -> dict[str, Any]:
    """Compare the ways to differentiate ridge regression: error, bytes and seconds."""
    parts = data("ridge", config.seed)
    thetas = [jnp.linspace(low, low + 2, parts[0][0].shape[1]) for low in (-6, -3, 0)]
    exact = [closed_form(parts, theta) for theta in thetas]
    weights = {
        IMPLICIT: minimum("ridge", parts),
        UNROLLED: _unrolled(parts, config.unrolled),
    }
    installed = peer("optimistix") is not None
    if installed:
        weights[OPTIMISTIX] = _by_optimistix(parts)
    gradients = {
        way: jax.jit(jax.grad(lambda theta, w=w: loss("ridge", w(theta), parts[1])))
        for way, w in weights.items()
    }
    rows: dict[str, Any] = {}
    for way, gradient in gradients.items():
        apart = [
            np.max(np.abs(gradient(theta) - truth)) / np.max(np.abs(truth))
            for theta, truth in zip(thetas, exact, strict=True)
        ]
        memory: Any = gradient.lower(thetas[0]).compile().memory_analysis()
        rows[way] = {
            "error": float(max(apart)),
            "bytes": int(memory.temp_size_in_bytes),
        }
    calls = {way: lambda g=g: g(thetas[1]) for way, g in gradients.items()}
    by_peer = rows.pop(OPTIMISTIX, {})
    return {
        "ways": rows,
        "peer_installed": installed,
        "peer_error": by_peer.get("error"),
        "peer_bytes": by_peer.get("bytes"),
        "seconds": seconds_and_ratios(calls, config.repeats),
        "gradient_error": rows[IMPLICIT]["error"],
        "unrolled_bytes_over_implicit": rows[UNROLLED]["bytes"]
        / rows[IMPLICIT]["bytes"],
    }


def _unrolled(parts: Parts, steps: int) -> Callable[[jax.Array], jax.Array]:
    """Return θ -> the last iterate of gradient descent, whose steps are all stored."""
    slope = jax.grad(penalised("ridge", parts[0]))
    x = parts[0][0]
    largest = float(jnp.linalg.norm(x, 2) ** 2 / len(x))

    def weights(theta: jax.Array) -> jax.Array:
        rate = 1.0 / (largest + jnp.max(jnp.exp(theta)))
        step = lambda w, _: (w - rate * slope(w, theta), None)
        return jax.lax.scan(step, jnp.zeros(x.shape[1]), None, steps)[0]

    return weights


def _by_optimistix(parts: Parts) -> Callable[[jax.Array], jax.Array]:
    """Return θ -> w(θ) by optimistix's BFGS and its implicit derivative."""
    optimistix, objective = peer("optimistix"), penalised("ridge", parts[0])
    start = jnp.zeros(parts[0][0].shape[1])
    solver = optimistix.BFGS(rtol=TOLERANCE, atol=TOLERANCE)
    return lambda theta: (
        optimistix.minimise(objective, solver, start, args=theta, max_steps=1000).value
    )
