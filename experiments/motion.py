"""How do positions become velocity and acceleration, and what does noise do to them?

Velocity is the derivative of position and acceleration that of velocity, so samples of a position tell both. But a
difference quotient of order n divides the noise of the samples by h^n: with weights w and independent errors of
standard deviation σ it comes to σ √(Σ w²) / h^n, while truncation falls with h^p. So there is a best step, which for
noisy samples is far larger than the spacing of the samples, and larger for acceleration than for velocity.

The motion is simulated, that the truth be known: a damped swing, exp(-t / 4) cos 2t metres, sampled each millisecond
with an error of a tenth of a millimetre. Each step is a whole number of samples, and `grid_derivative` is applied to
every such subsequence.

    python experiments/motion.py            # some seconds

The numbers to expect (`EXPECTED`): the noise that is measured over the one predicted, least and greatest of all
formulas at the shortest step; the best step over the predicted one, likewise; and by how much the error of the
acceleration falls from the shortest step to the best.
"""

import dataclasses
import math
import sys

import numpy as np

import research

EXPECTED = {
    "noise_over_prediction_least": (0.9, 1.1),
    "noise_over_prediction_greatest": (0.9, 1.1),
    "step_over_prediction_least": (0.6, 1.7),
    "step_over_prediction_greatest": (0.6, 1.7),
    "acceleration_gain": (1e3, 1e6),
}

EXPONENT = complex(
    -0.25, 2.0
)  # Position is the real part of exp(EXPONENT t), so that derivatives multiply by it.
NAMES = {1: "velocity", 2: "acceleration"}
UNITS = {0: "m", 1: "m/s", 2: "m/s²"}
FORMULAS = tuple((order, accuracy) for order in NAMES for accuracy in (2, 4))


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    seconds: float = 10.0
    """How long the motion is observed."""
    spacing: float = 0.001
    """Between samples, in seconds."""
    noise: float = 1e-4
    """Standard deviation of each position, in metres."""
    seed: int = 0
    """Of the noise."""


FULL = Config(seconds=60.0)


def run(config, on_progress=None, checkpoints=None):
    """Differentiates the noisy positions at many steps, and holds the errors against the prediction."""
    del checkpoints  # It takes seconds.
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


def summary(config, arrays, rows):
    """The Result of the rows."""
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
    return research.runs.Result(answer(numbers), (table(rows),), arrays, numbers)


def check(config):
    """Raises ValueError for a config that cannot be run."""
    for field in ("seconds", "spacing", "noise"):
        value = getattr(config, field)
        if not 0 < value < math.inf:
            raise ValueError(f"{field} must be a positive number; got {field}={value}.")
    if config.seconds / config.spacing < 100:
        raise ValueError(
            f"spacing must leave at least 100 samples in {config.seconds} s; got spacing={config.spacing}."
        )


def motion(t, order=0):
    """The derivative of that order of the position, at times t."""
    return (EXPONENT**order * np.exp(EXPONENT * t)).real


def steps(samples):
    """Steps in samples, about ten a decade, of which a formula of five points fits ten times into the record."""
    return np.unique(np.round(np.logspace(0, np.log10(samples / 10), 31)).astype(int))


def differentiated(t, y, stride, order, accuracy):
    """(indices, derivative there), away from the ends, from samples that are a stride apart."""
    margin = 3  # Points from either end at which the formula is one-sided.
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


def error(t, y, stride, order, accuracy):
    """Root mean square of the error of the derivative."""
    places, values = differentiated(t, y, stride, order, accuracy)
    return float(np.sqrt(np.mean((values - motion(t[places], order)) ** 2)))


def stencil(order, accuracy):
    """Offsets and weights of the central formula, in units of the step."""
    reach = (order + accuracy - 1) // 2
    offsets = np.arange(-reach, reach + 1.0)
    return offsets, research.derivatives.fornberg_weights(offsets, 0.0, order)


def prediction(config, t, h, order, accuracy):
    """(noise, truncation), root mean square, at every step: σ √(Σ w²) / h^n, and C h^p times the next derivative."""
    offsets, weights = stencil(order, accuracy)
    noise = config.noise * math.sqrt(np.sum(weights**2)) / h**order
    power = order + accuracy
    constant = abs(np.sum(weights * offsets**power)) / math.factorial(power)
    return noise, constant * np.sqrt(np.mean(motion(t, power) ** 2)) * h**accuracy


def facts(h, found, noise, truncation, order, accuracy):
    """What one formula came to, as JSON; the predicted step is where noise² + truncation² is least."""
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


def answer(numbers):
    """Errors of velocity and acceleration at the spacing of the samples and at the best step."""
    said = []
    for row in (r for r in numbers["rows"] if r["accuracy"] == 2):
        unit = UNITS[row["order"]]
        said.append(
            f"the {NAMES[row['order']]} is off by {row['error_at_spacing']:.2g} {unit} between neighbouring samples and by "
            f"{row['error_at_best']:.2g} {unit} at the best step, {row['best_step']:.2g} s"
        )
    return (
        f"By difference quotients, which divide the noise by h and by h²: with {1e3 * numbers['noise']:g} mm of noise every "
        f"{1e3 * numbers['spacing']:g} ms {', and '.join(said)}. Noise is σ √(Σ w²) / h^n to within "
        f"{100 * largest_deviation(numbers):.1f} %, and best steps are {numbers['step_over_prediction_least']:.2f} to "
        f"{numbers['step_over_prediction_greatest']:.2f} times those predicted."
    )


def largest_deviation(numbers):
    """Of the noise from its prediction, as a share."""
    return max(
        abs(1 - numbers[f"noise_over_prediction_{end}"])
        for end in ("least", "greatest")
    )


def table(rows):
    """A row a formula."""
    return research.runs.Table(
        "Errors of velocity (m/s) and acceleration (m/s²)",
        (
            "derivative",
            "accuracy",
            "at the spacing",
            "over noise predicted",
            "best step (s)",
            "predicted (s)",
            "at the best step",
            "predicted",
        ),
        tuple(
            (
                NAMES[r["order"]],
                r["accuracy"],
                r["error_at_spacing"],
                r["noise_ratio"],
                r["best_step"],
                r["predicted_step"],
                r["error_at_best"],
                r["predicted_error"],
            )
            for r in rows
        ),
        "Root mean squares over the record, away from its ends. Predicted: from σ √(Σ w²) / h^n and the leading term of "
        "truncation, whose squares add up.",
    )


def draw(result):
    """The motion with its derivatives, and their errors against the step."""
    numbers = result.numbers
    seen, axes = research.figures.new_figure(3, 1, width=9, height=7.2, sharex=True)
    draw_motion(axes[:, 0], result)
    errors, axes = research.figures.new_figure(1, 2, width=11, height=4.4)
    for panel, order in zip(axes[0], NAMES, strict=True):
        draw_errors(panel, result, order)
    rows = [r for r in numbers["rows"] if r["accuracy"] == 2]
    falls = (
        f"The error of the {NAMES[r['order']]} falls from {r['error_at_spacing']:.2g} to {r['error_at_best']:.2g} "
        f"{UNITS[r['order']]}."
        for r in rows
    )
    caption = (
        f"Position, velocity and acceleration of a damped swing, from positions with {1e3 * numbers['noise']:g} mm of noise. "
        "Grey: differences between neighbouring samples, which for the acceleration fill the panel and more; blue: at the "
        "best step, away from the ends; dashed: the truth. " + " ".join(falls)
    )
    curve = (
        "Root mean square error against the step (dots), and what noise, which falls as 1 / h^n, and truncation, which grows "
        "as h^p, add up to (lines); dotted: the predicted best steps, "
        + ", ".join(
            f"{r['predicted_step']:.2g} s ({NAMES[r['order']]}, accuracy {r['accuracy']})"
            for r in numbers["rows"]
        )
        + "."
    )
    return {
        "motion": research.figures.Picture(
            "Position, velocity, acceleration", caption, seen
        ),
        "noise": research.figures.Picture(
            "What differentiation does to noise", curve, errors
        ),
    }


def draw_motion(panels, result):
    """Three panels: what is seen, and its two derivatives."""
    t, y, exact = (
        result.arrays["t"],
        result.arrays["positions"],
        research.figures.COLOURS["exact"],
    )
    panels[0].plot(t, y, color="#0072B2", lw=1.6, label="noisy positions")
    for order, panel in enumerate(panels):
        if order:
            row = next(
                r
                for r in result.numbers["rows"]
                if (r["order"], r["accuracy"]) == (order, 2)
            )
            stride = round(row["best_step"] / result.numbers["spacing"])
            for step, style in (
                (1, {"color": "#C3C7CC", "lw": 0.5}),
                (stride, {"color": "#0072B2", "lw": 1.8}),
            ):
                places, values = differentiated(t, y, step, order, 2)
                panel.plot(
                    t[places],
                    values,
                    **style,
                    label=f"step {step * result.numbers['spacing']:g} s",
                )
            reach = 1.6 * np.max(np.abs(motion(t, order)))
            panel.set_ylim(-reach, reach)
        panel.plot(
            t, motion(t, order), color=exact, lw=1.1, ls=(0, (4, 3)), label="truth"
        )
        panel.set_ylabel(f"{NAMES.get(order, 'position')} ({UNITS[order]})")
        panel.legend(loc="upper right", ncols=3, fontsize=9)
    panels[-1].set_xlabel("time (s)")


def draw_errors(axes, result, order):
    """Errors of one derivative against the step."""
    h = result.arrays["steps"]
    for accuracy, colour in ((2, "#0072B2"), (4, "#D55E00")):
        found, noise, truncation = (
            result.arrays[f"{NAMES[order]}/{accuracy}/{name}"]
            for name in ("error", "noise", "truncation")
        )
        axes.plot(
            h, found, "o", color=colour, markersize=4, label=f"accuracy {accuracy}"
        )
        axes.plot(h, np.hypot(noise, truncation), color=colour, lw=1.2)
        row = next(
            r
            for r in result.numbers["rows"]
            if (r["order"], r["accuracy"]) == (order, accuracy)
        )
        axes.axvline(row["predicted_step"], color=colour, lw=1.1, ls=":")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="step h (s)",
        ylabel=f"error ({UNITS[order]})",
    )
    axes.set_ylim(0.3 * found.min(), 4 * result.arrays[f"{NAMES[order]}/4/error"][0])
    axes.set_title(NAMES[order], loc="left")
    axes.legend(loc="upper center")


if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
