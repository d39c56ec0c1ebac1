"""How does descent find the line through the data?

Disease progression on body mass index: two parameters, a slope and an intercept, so that all of descent can be seen. One
update rule is fed by three samplers from one starting point, and every step is kept. Because the index is standardised,
f - f* = ((intercept - a)² + (slope - b)²) / 2 exactly, for a and b of the least-squares line: descent walks on a round
bowl, and what tells the three apart is the noise of their gradients. The rates are small, for the walk to be seen (here a
full-batch rate of 1 would arrive in one step): which regime is the cheapest is another experiment's question.

    python experiments/fit_a_line.py            # some seconds

The numbers to expect (`EXPECTED`): how far from the exact line full-batch descent ends, as a share of it; and its
passes to within 1 %, which are the first whole number from log(1 / 100) / log(1 - η) on.
"""

import dataclasses
import math
import sys

import numpy as np

import research

EXPECTED = {"full_batch_error": (0.0, 1e-9), "full_batch_passes": (44, 44)}

WORKLOAD = "diabetes_bmi"
CLOSE = 0.01  # Within one per cent of the exact slope, and of the exact intercept.
SHOWN_PASSES = (0, 0.1, 0.3, 1, 3, 10, 30)  # Whose lines the still shows.
FRAMES, MOVING_PASSES = 48, 50  # Of the motion: how many, and until when.
LABELS = {"x": "body mass index, standard deviations from its mean", "y": "disease progression after a year"}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    passes: int = 200
    """Budget of each training, in epochs."""
    batch_size: int = 32
    """Of the mini-batch regime."""
    full_batch_rate: float = 0.1
    """Learning rate of the full batch."""
    minibatch_rate: float = 0.05
    """Learning rate of the mini-batch regime."""
    stochastic_rate: float = 0.002
    """Learning rate of the stochastic regime."""
    seed: int = 0
    """Of the starting point and of the order of the examples."""


FULL = Config(passes=1000)


def run(config, on_progress=None):
    """Trains under each regime from one starting point, and holds each step against the exact line."""
    workload = research.workloads.make_workload(WORKLOAD)
    exact = np.array([workload.optimum.params["intercept"], workload.optimum.params["weights"][0]])
    arrays = {"x": np.asarray(workload.train.x[:, 0]), "y": np.asarray(workload.train.y), "exact": exact}
    regimes = {}
    plans = plan(config, len(workload.train.y))
    for done, (name, sampler, rate) in enumerate(plans):
        if on_progress:
            on_progress(done, len(plans), name)
        lines = train(workload, sampler, rate, config)
        passes = np.arange(len(lines)) * sampler.batch_size / len(workload.train.y)
        arrays |= {f"{name}/passes": passes, f"{name}/lines": lines}
        regimes[name] = facts(passes, lines, exact, rate, sampler)
    if on_progress:
        on_progress(len(plans), len(plans), "done")
    full = regimes["full batch"]
    numbers = {
        "n": len(workload.train.y),
        "exact": {"intercept": float(exact[0]), "slope": float(exact[1]), "solver": workload.optimum.solver},
        "regimes": regimes,
        "full_batch_error": full["error"],
        "full_batch_passes": full["passes"],
    }
    return research.runs.Result(answer(numbers), (table(numbers),), arrays, numbers)


def plan(config, n):
    """(name, sampler, rate) of each regime, checked."""
    rates = (config.full_batch_rate, config.minibatch_rate, config.stochastic_rate)
    for field, value in zip(("full_batch_rate", "minibatch_rate", "stochastic_rate"), rates, strict=True):
        if not 0 < value < math.inf:
            raise ValueError(f"{field} must be a positive number; got {field}={value}.")
    if config.passes < 1:
        raise ValueError(f"passes must be a positive integer; got passes={config.passes}.")
    names = ("full batch", f"mini-batch {config.batch_size}", "stochastic")
    samplers = research.samplers
    feeds = (samplers.full_batch(n), samplers.minibatch(n, config.batch_size), samplers.stochastic(n))
    return tuple(zip(names, feeds, rates, strict=True))


def train(workload, sampler, rate, config):
    """One training; (intercept, slope) before the first step and after each, shape (steps + 1, 2)."""
    import jax
    import jax.numpy as jnp

    key_init, key_epochs = (jax.random.fold_in(jax.random.key(config.seed), child) for child in range(2))
    rule = research.update_rules.find_rule("gradient_descent")(rate)
    step = research.descent.make_step(workload.objective, rule, workload.train, rate)

    def watched(state, draw):
        state, _ = step(state, draw)
        return state, jnp.array([state.params["intercept"], state.params["weights"][0]])

    @jax.jit
    def every_step(state):
        def epoch(state, number):
            indices = sampler.indices(jax.random.fold_in(key_epochs, number))
            return jax.lax.scan(watched, state, research.descent.Draw(indices), length=sampler.num_batches)

        return jax.lax.scan(epoch, state, jnp.arange(config.passes))[1].reshape(-1, 2)

    params = workload.init(key_init)
    first = np.array([[params["intercept"], params["weights"][0]]])
    return np.concatenate([first, every_step(research.descent.start(rule, params))])


def relative_errors(lines, exact):
    """The larger of the relative errors of intercept and slope, of each line: shape (steps + 1,)."""
    return np.max(np.abs(lines - exact) / np.abs(exact), axis=-1)


def facts(passes, lines, exact, rate, sampler):
    """What one regime came to, as JSON; "passes" is to the first line within CLOSE, and null where there is none."""
    errors = relative_errors(lines, exact)
    close = np.flatnonzero(errors <= CLOSE)
    last = passes >= passes[-1] - 1
    return {
        "batch_size": sampler.batch_size,
        "rate": rate,
        "intercept": float(lines[-1, 0]),
        "slope": float(lines[-1, 1]),
        "error": float(errors[-1]),
        "largest_error_in_last_pass": float(errors[last].max()),
        "error_after_one_pass": float(errors[np.searchsorted(passes, 1.0, side="right") - 1]),
        "passes": float(passes[close[0]]) if len(close) else None,
        "steps": int(close[0]) if len(close) else None,
    }


def answer(numbers):
    """The line, what each regime needed for it, and which of them stays on it."""
    regimes = numbers["regimes"]
    costs = [f"{name} (rate {found['rate']:g}) {cost(found)}" for name, found in regimes.items()]
    strays = [f"{name} {found['largest_error_in_last_pass']:.1g}" for name, found in regimes.items()]
    return (
        "It steps against the gradient of the mean squared error until the line no longer moves. To come within 1 % of the "
        f"least-squares line {line(numbers['exact'])}, {', '.join(costs)}. Only exact gradients stay there: in the last "
        f"pass the largest relative error is {', '.join(strays)}."
    )


def cost(found):
    """Passes and steps to within 1 %, in words."""
    if found["passes"] is None:
        return "needs more than its budget"
    return f"takes {found['passes']:.3g} passes of {found['steps'] / found['passes']:.3g} steps"


def line(found):
    """The equation of a line."""
    return f"{found['intercept']:.2f} + {found['slope']:.2f} x"


def table(numbers):
    """Every regime's line against the exact one."""
    rows = [
        (name, f["rate"], f["intercept"], f["slope"], f["error"], f["error_after_one_pass"], f["passes"], f["steps"])
        for name, f in numbers["regimes"].items()
    ]
    exact = ("least squares", None, numbers["exact"]["intercept"], numbers["exact"]["slope"], 0.0, None, None, None)
    return research.runs.Table(
        "The line that each regime finds",
        ("regime", "rate", "intercept", "slope", "error", "after one pass", "passes to 1 %", "steps to 1 %"),
        (*map(tuple, rows), exact),
        "Error: the larger of the relative errors of intercept and slope, at the end of the budget; passes and steps are "
        "to the first line at which it is at most 1 %.",
    )


def draw(result):
    """The lines among the data, still and moving, and the same walk among all lines."""
    arrays, numbers = result.arrays, result.numbers
    regimes = numbers["regimes"]
    lines_figure, axes = research.figures.new_figure(1, len(regimes), width=11, height=4.3, sharey=True)
    for panel, (name, found) in zip(axes[0], regimes.items(), strict=True):
        draw_data(panel, arrays, f"{name}, rate {found['rate']:g}")
        draw_still_lines(panel, arrays, name)
    walk_figure, axes = research.figures.new_figure(1, 2, width=11, height=4.8)
    draw_walk(axes[0, 0], arrays, regimes)
    draw_errors(axes[0, 1], arrays, regimes)
    motion = research.figures.animate([draw_frame(arrays, regimes, k / (FRAMES - 1)) for k in range(FRAMES)], dpi=80)
    pictures = {
        "lines": ("The line through the data, by passes over them", lines_caption(numbers), lines_figure, motion),
        "walk": ("The same walk, in the plane of all lines", walk_caption(numbers), walk_figure),
    }
    return {key: research.figures.Picture(*picture) for key, picture in pictures.items()}


def lines_caption(numbers):
    """What the first figure shows."""
    regimes = numbers["regimes"]
    after_one = ", ".join(f"{100 * f['error_after_one_pass']:.0f} % ({name})" for name, f in regimes.items())
    return (
        f"Disease progression against body mass index of {numbers['n']} people (grey), the least-squares line "
        f"{line(numbers['exact'])} (dashed) and the line of each regime after the passes that are written at its end, "
        f"from pale to full colour. All start from the flat line near 0. After one pass the error is still {after_one}: "
        "the full batch has then made one step, the others many. In the motion, time runs ever faster."
    )


def walk_caption(numbers):
    """What the second figure shows."""
    regimes = numbers["regimes"]
    passes = ", ".join(f"{name} {cost(f)}" for name, f in regimes.items())
    stray = ", ".join(f"{100 * f['largest_error_in_last_pass']:.1g} % ({name})" for name, f in regimes.items())
    return (
        "Left: each point is a line, by intercept and slope; circles join lines of equal f, the cross is the exact one. "
        "The full batch walks straight, the noisy regimes wander around that path. Right: the larger of the relative "
        f"errors of intercept and slope. To reach 1 % (dashed), {passes}. The full batch falls by the factor 1 - η "
        f"each step without end; the largest error of the last pass is {stray}."
    )


def draw_data(axes, arrays, title):
    """The examples and the exact line."""
    colours = research.figures.COLOURS
    axes.plot(arrays["x"], arrays["y"], "o", color=colours["data"], markersize=3.2, alpha=0.45, markeredgewidth=0)
    ends = np.array([-2.0, 3.5])
    axes.plot(ends, arrays["exact"] @ [np.ones(2), ends], color=colours["exact"], lw=1.3, ls=(0, (5, 3)), zorder=5)
    axes.set(xlim=(-2.0, 4.3), ylim=(-25, 360), title=title, xlabel=LABELS["x"])
    axes.set_ylabel(LABELS["y"] if axes.get_subplotspec().is_first_col() else "")


def draw_line(axes, line_params, colour, width):
    """One line, from one end of the data to the other; its height at the right end."""
    ends = np.array([-2.0, 3.5])
    heights = line_params @ [np.ones(2), ends]
    axes.plot(ends, heights, color=colour, lw=width, solid_capstyle="round", zorder=4)
    return heights[1]


def draw_still_lines(axes, arrays, name):
    """The lines after SHOWN_PASSES, from pale to full colour, each with its passes where there is room."""
    colour, taken = research.figures.colour(name), []
    passes, lines = arrays[f"{name}/passes"], arrays[f"{name}/lines"]
    for shade, shown in zip(np.linspace(0.3, 1.0, len(SHOWN_PASSES)), SHOWN_PASSES, strict=True):
        index = np.searchsorted(passes, shown + 1e-9, side="right") - 1
        if taken and index == taken[-1][0]:
            continue  # No step since.
        height = draw_line(axes, lines[index], pale(colour, shade), 1.3 + shade)
        if all(abs(height - other) > 14 for _, other in taken):
            axes.text(3.58, height, f"{shown:g}", color=pale(colour, max(shade, 0.6)), va="center", fontsize=9)
        taken.append((index, height))


def pale(colour, share):
    """A colour mixed with white."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return tuple(1 - share * (1 - channels))


def draw_frame(arrays, regimes, share):
    """One frame of the motion; its time grows as the cube of its place, so that first steps and last ones are seen."""
    now = MOVING_PASSES * share**3
    figure, axes = research.figures.new_figure(1, len(regimes), width=11, height=4.3, sharey=True)
    for panel, name in zip(axes[0], regimes, strict=True):
        passes, lines = arrays[f"{name}/passes"], arrays[f"{name}/lines"]
        index = np.searchsorted(passes, now + 1e-9, side="right") - 1
        draw_data(panel, arrays, name)
        for shade, back in ((0.2, 3), (0.35, 2), (0.5, 1)):
            earlier = MOVING_PASSES * max(share - back / (FRAMES - 1), 0) ** 3
            index_then = np.searchsorted(passes, earlier + 1e-9, side="right") - 1
            draw_line(panel, lines[index_then], pale(research.figures.colour(name), shade), 1.6)
        draw_line(panel, lines[index], research.figures.colour(name), 2.6)
        text = f"{now:.2f} passes, {index:,} steps\n{lines[index, 0]:.1f} + {lines[index, 1]:.1f} x"
        panel.text(0.03, 0.97, text, transform=panel.transAxes, va="top", fontsize=10)
    return figure


def draw_walk(axes, arrays, regimes):
    """Each regime's path in the plane of intercept and slope, on the circles of equal f."""
    exact = arrays["exact"]
    angle = np.linspace(0, 2 * np.pi, 200)
    for radius in np.linalg.norm(exact) * np.array([0.05, 0.2, 0.4, 0.6, 0.8, 1.0]):
        circle = exact[:, None] + radius * np.array([np.cos(angle), np.sin(angle)])
        axes.plot(*circle, color="#D5D8DC", lw=0.9, zorder=1)
    for name in reversed(regimes):
        lines = arrays[f"{name}/lines"][: np.searchsorted(arrays[f"{name}/passes"], MOVING_PASSES)]
        marker = {"marker": "o", "markersize": 3.2} if name == "full batch" else {}
        width = 0.6 if name == "stochastic" else 1.2
        axes.plot(*lines.T, color=research.figures.colour(name), lw=width, label=name, zorder=3, **marker)
    axes.plot(*exact, "+", color=research.figures.COLOURS["exact"], markersize=14, markeredgewidth=2, zorder=5)
    axes.set(xlabel="intercept", ylabel="slope", title=f"All lines: the first {MOVING_PASSES} passes")
    axes.set_aspect("equal")
    axes.set(xlim=(-8, 185), ylim=(-22, 92))
    axes.legend(loc="upper left")


def draw_errors(axes, arrays, regimes):
    """The relative error of each regime against passes, every step of it."""
    for name in reversed(regimes):
        errors = relative_errors(arrays[f"{name}/lines"], arrays["exact"])
        width = 0.5 if name == "stochastic" else 1.1
        axes.plot(arrays[f"{name}/passes"], errors, color=research.figures.colour(name), lw=width, label=name)
    axes.axhline(CLOSE, color=research.figures.COLOURS["exact"], lw=1.2, ls=(0, (4, 3)))
    axes.set_yscale("log")
    axes.set(xlabel="passes over the data", title="Relative error of the line")
    axes.set(xlim=(0, 100), ylim=(1e-5, 2))


if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
