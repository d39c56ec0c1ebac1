"""How do positions become velocity and acceleration, and what does noise do to them?

Velocity is the derivative of position, and acceleration the derivative of velocity, so
samples of a position determine both. But a difference quotient of order n divides the
noise of the samples by h^n. If the quotient has weights w and the samples have
independent errors of standard deviation σ, the noise of the quotient is σ √(Σ w²) /
h^n. Its truncation error is proportional to h^p. So there is a best step h. For noisy
samples, the best step is much larger than the spacing of the samples, and it is larger
for acceleration than for velocity.

The motion is simulated so that the truth is known. It is a damped swing, exp(-t / 4)
cos 2t metres, sampled each millisecond with an error of a tenth of a millimetre. Each
step is a multiple s of the spacing, and `grid_derivative` is applied to all
subsequences of every s-th sample.

    python experiments/motion.py            # some seconds

Expected numbers (`EXPECTED`): over all formulas, the smallest and the largest ratio of
the measured to the predicted noise at the shortest step; the same ratios for the best
step; and the error of the acceleration at the shortest step, divided by its error at
the best step.
"""

import dataclasses
import math
import sys
from collections.abc import Sequence
from typing import Any

import research

EXPECTED = {
    "noise_over_prediction_least": (0.9, 1.1),
    "noise_over_prediction_greatest": (0.9, 1.1),
    "step_over_prediction_least": (0.6, 1.7),
    "step_over_prediction_greatest": (0.6, 1.7),
    "acceleration_gain": (1e3, 1e6),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    seconds: float = 10.0
    """Duration of the motion in seconds."""
    spacing: float = 0.001
    """Seconds between samples."""
    noise: float = 1e-4
    """Standard deviation of each position, in metres."""
    seed: int = 0
    """Seed of the noise."""


FULL = Config(seconds=60.0)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import numpy as np

from research.cli.progress import OnProgress
from research.types import Checkpoints

# The position is Re exp(EXPONENT t). Each derivative multiplies it by EXPONENT.
EXPONENT = complex(-0.25, 2.0)
MOST_SAMPLES, LEAST_NOISE = 1_000_000, 1e-10
NAMES = {1: "velocity", 2: "acceleration"}
FORMULAS = tuple((order, accuracy) for order in NAMES for accuracy in (2, 4))


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Differentiate noisy positions with many steps, and predict the errors."""
    del checkpoints  # The experiment takes seconds, so no checkpoint is saved.
    check(config)
    t = config.spacing * np.arange(round(config.seconds / config.spacing) + 1)
    positions = motion(t) + config.noise * np.random.default_rng(config.seed).normal(
        size=len(t)
    )
    strides = steps(len(t))
    arrays = {"t": t, "positions": positions, "steps": config.spacing * strides}
    rows = []
    for done, (order, accuracy) in enumerate(FORMULAS):
        if on_progress:
            on_progress(done, len(FORMULAS), f"{NAMES[order]}, accuracy {accuracy}")
        found = np.array(
            [error(t, positions, stride, order, accuracy) for stride in strides]
        )
        noise, truncation = prediction(config, t, arrays["steps"], order, accuracy)
        key = f"{NAMES[order]}/{accuracy}"
        arrays |= {
            f"{key}/error": found,
            f"{key}/noise": noise,
            f"{key}/truncation": truncation,
        }
        rows.append(facts(arrays["steps"], found, noise, truncation, order, accuracy))
    if on_progress:
        on_progress(len(FORMULAS), len(FORMULAS), "done")
    return summary(config, arrays, rows)


def summary(
    config: Config, arrays: dict[str, np.ndarray], rows: Sequence[dict[str, Any]]
):
    """Return the Findings, from the arrays and from the rows of the table."""
    ratios = {
        "noise": [r["noise_ratio"] for r in rows],
        "step": [r["step_ratio"] for r in rows],
    }
    gains = [
        r["error_at_spacing"] / r["error_at_best"] for r in rows if r["order"] == 2
    ]
    numbers = {
        f"{name}_over_prediction_least": min(values) for name, values in ratios.items()
    }
    numbers |= {
        f"{name}_over_prediction_greatest": max(values)
        for name, values in ratios.items()
    }
    numbers |= {
        "acceleration_gain": min(gains),
        "rows": rows,
        "noise": config.noise,
        "spacing": config.spacing,
    }
    return research.runs.Findings(arrays, numbers)


def check(config: Config):
    """Raise ValueError if the config cannot be run."""
    for field in ("seconds", "spacing", "noise"):
        value = getattr(config, field)
        if not 0 < value < math.inf:
            raise ValueError(f"{field} must be a positive number; got {field}={value}.")
    if not 100 <= config.seconds / config.spacing <= MOST_SAMPLES:
        raise ValueError(
            f"spacing must leave 100 to {MOST_SAMPLES:,} samples in seconds="
            f"{config.seconds}; got spacing={config.spacing}."
        )
    if not LEAST_NOISE <= config.noise <= 1:
        raise ValueError(
            f"noise must lie between {LEAST_NOISE:g}, far above rounding, and 1, the "
            f"height of the swing; got noise={config.noise}."
        )


def motion(t: np.ndarray, order: int = 0):
    """Return the position at the times t, differentiated `order` times."""
    return (EXPONENT**order * np.exp(EXPONENT * t)).real


def steps(samples: int):
    """Return steps, in numbers of samples, about ten per decade.

    The largest step is a tenth of the record. A subsequence with this step has about
    ten samples.
    """
    return np.unique(np.round(np.logspace(0, np.log10(samples / 10), 31)).astype(int))


def differentiated(
    t: np.ndarray, y: np.ndarray, stride: int, order: int, accuracy: int
):
    """Return indices, and the derivative at these indices.

    The derivative is computed from samples that are `stride` apart. Points near the
    ends are left out.
    """
    margin = 3  # Number of points at either end where the formula is one-sided.
    places, values = [], []
    for offset in range(stride):
        part = slice(offset, None, stride)
        if len(t[part]) > 2 * margin + 1:
            places.append(np.arange(len(t))[part][margin:-margin])
            values.append(
                research.derivatives.grid_derivative(y[part], t[part], order, accuracy)[
                    margin:-margin
                ]
            )
    order_of_time = np.argsort(np.concatenate(places))
    return np.concatenate(places)[order_of_time], np.concatenate(values)[order_of_time]


def error(t: np.ndarray, y: np.ndarray, stride: int, order: int, accuracy: int):
    """Return the root mean square error of the derivative."""
    places, values = differentiated(t, y, stride, order, accuracy)
    return float(np.sqrt(np.mean((values - motion(t[places], order)) ** 2)))


def stencil(order: int, accuracy: int):
    """Return the offsets and weights of the central formula, in units of the step."""
    reach = (order + accuracy - 1) // 2
    offsets = np.arange(-reach, reach + 1.0)
    return offsets, research.derivatives.fornberg_weights(offsets, 0.0, order)


def prediction(config: Config, t: np.ndarray, h: np.ndarray, order: int, accuracy: int):
    """Return the predicted root mean square errors (noise, truncation) at every step.

    The error from noise is σ √(Σ w²) / h^n. The truncation error is C h^p times the
    root mean square of the derivative in the first neglected term.
    """
    offsets, weights = stencil(order, accuracy)
    noise = config.noise * math.sqrt(np.sum(weights**2)) / h**order
    power = order + accuracy
    constant = abs(np.sum(weights * offsets**power)) / math.factorial(power)
    return noise, constant * np.sqrt(np.mean(motion(t, power) ** 2)) * h**accuracy


def facts(
    h: np.ndarray,
    found: np.ndarray,
    noise: np.ndarray,
    truncation: np.ndarray,
    order: int,
    accuracy: int,
):
    """Return the results of one formula, as JSON.

    The predicted step minimises noise² + truncation².
    """
    at_one = noise[0] * h[0] ** order, truncation[0] / h[0] ** accuracy
    best_step = (order * at_one[0] ** 2 / (accuracy * at_one[1] ** 2)) ** (
        1 / (2 * (order + accuracy))
    )
    best = int(np.argmin(found))
    return {
        "order": order,
        "accuracy": accuracy,
        "error_at_spacing": float(found[0]),
        "noise_ratio": float(found[0] / noise[0]),
        "best_step": float(h[best]),
        "predicted_step": float(best_step),
        "step_ratio": float(h[best] / best_step),
        "error_at_best": float(found[best]),
        "predicted_error": float(
            np.hypot(at_one[0] / best_step**order, at_one[1] * best_step**accuracy)
        ),
    }
