"""How does descent find the line through the data?

Disease progression on body mass index: two parameters, a slope and an intercept, so that all of descent can be seen.
One update rule is fed by three samplers from one starting point, and every step is kept. Because the index is
standardised, f - f* = ((intercept - a)² + (slope - b)²) / 2 exactly, for a and b of the least-squares line: descent walks
on a round bowl, and what tells the three apart is the noise of their gradients. The rates are small, for the walk to be
seen (a full-batch rate of 1 would arrive in one step): which regime is the cheapest is another experiment's question.

    python experiments/fit_a_line.py            # some seconds

The numbers to expect (`EXPECTED`): how far from the exact line full-batch descent ends, as a share of it; and its
passes to within 1 %, the first whole number from log(1 / 100) / log(1 - η) on.
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
FRAMES, MOVING_PASSES = 40, 50  # Of the motion: how many, and until when.
ENDS = (
    -2.0,
    3.5,
)  # Where the drawn lines begin and end, in standard deviations of body mass index.


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


def run(config, on_progress=None, checkpoints=None):
    """Trains under each regime from one starting point, and holds each step against the exact line."""
    del checkpoints  # It takes seconds.
    workload = research.workloads.make_workload(WORKLOAD)
    arrays = problem(workload)
    n, regimes = len(arrays["y"]), {}
    plans = plan(config, n)
    for done, (name, sampler, rate) in enumerate(plans):
        if on_progress:
            on_progress(done, len(plans), name)
        lines = train(workload, sampler, rate, config)
        passes = np.arange(len(lines)) * sampler.batch_size / n
        arrays |= {f"{name}/passes": passes, f"{name}/lines": lines}
        regimes[name] = facts(passes, lines, arrays["exact"], rate, sampler)
    if on_progress:
        on_progress(len(plans), len(plans), "done")
    numbers = {
        "n": n,
        "exact": dict(
            zip(("intercept", "slope"), arrays["exact"].tolist(), strict=True)
        ),
        "regimes": regimes,
        "full_batch_error": regimes["full batch"]["error"],
        "full_batch_passes": regimes["full batch"]["passes"],
    }
    return research.runs.Result(answer(numbers), (table(numbers),), arrays, numbers)


def problem(workload):
    """The examples, each of shape (n,), and the exact (intercept, slope)."""
    exact = workload.optimum.params
    return {
        "x": np.asarray(workload.train.x[:, 0]),
        "y": np.asarray(workload.train.y),
        "exact": np.array([exact["intercept"], exact["weights"][0]]),
    }


def plan(config, n):
    """(name, sampler, rate) of each regime, checked."""
    rates = (config.full_batch_rate, config.minibatch_rate, config.stochastic_rate)
    for field, value in zip(
        ("full_batch_rate", "minibatch_rate", "stochastic_rate"), rates, strict=True
    ):
        if not 0 < value < math.inf:
            raise ValueError(f"{field} must be a positive number; got {field}={value}.")
    if config.passes < 1:
        raise ValueError(
            f"passes must be a positive integer; got passes={config.passes}."
        )
    names = ("full batch", f"mini-batch {config.batch_size}", "stochastic")
    samplers = research.samplers
    feeds = (
        samplers.full_batch(n),
        samplers.minibatch(n, config.batch_size),
        samplers.stochastic(n),
    )
    return tuple(zip(names, feeds, rates, strict=True))


def train(workload, sampler, rate, config):
    """One training; (intercept, slope) before the first step and after each, shape (steps + 1, 2)."""
    import jax
    import jax.numpy as jnp

    key_init, key_epochs = (
        jax.random.fold_in(jax.random.key(config.seed), child) for child in range(2)
    )
    rule = research.update_rules.find_rule("gradient_descent")(rate)
    init, step = research.descent.build(workload.objective, rule, workload.train)

    def line(state, info):
        del info
        return jnp.array([state.params["intercept"], state.params["weights"][0]])

    @jax.jit
    def every_step(state):
        epochs = jnp.arange(config.passes)
        _, info = research.descent.run(
            step, state, sampler, key_epochs, epochs, observe=line
        )
        return info.steps.reshape(-1, 2)

    params = workload.init(key_init)
    first = np.array([[params["intercept"], params["weights"][0]]])
    lines = np.concatenate([first, every_step(init(params))])
    bad = np.flatnonzero(~np.isfinite(lines).all(axis=1))
    if len(bad):
        raise ValueError(
            f"a learning rate of {rate} diverges: step {bad[0]} is not finite. Choose a smaller one."
        )
    return lines


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
        "steps_per_epoch": sampler.num_batches,
        "rate": rate,
        "intercept": float(lines[-1, 0]),
        "slope": float(lines[-1, 1]),
        "error": float(errors[-1]),
        "largest_error_in_last_pass": float(errors[last].max()),
        "error_after_one_pass": float(
            errors[np.searchsorted(passes, 1.0, side="right") - 1]
        ),
        "passes": float(passes[close[0]]) if len(close) else None,
        "steps": int(close[0]) if len(close) else None,
    }


def answer(numbers):
    """The line, what each regime needed for it, and which of them stays on it."""
    costs = [
        f"{name} (rate {found['rate']:g}) {cost(found)}"
        for name, found in numbers["regimes"].items()
    ]
    return (
        "It steps against the gradient of the mean squared error until the line no longer moves. To come within 1 % of "
        f"the least-squares line {line(numbers['exact'])}, {', '.join(costs)}. {staying(numbers)} the largest relative "
        f"error of the last pass is {strays(numbers)}."
    )


def staying(numbers):
    """Who stays within 1 %, said only where it is so."""
    staying = [
        name
        for name, f in numbers["regimes"].items()
        if f["largest_error_in_last_pass"] <= CLOSE
    ]
    return (
        "Only the exact gradients of the full batch stay there:"
        if staying == ["full batch"]
        else "At the end"
    )


def strays(numbers):
    """How far the lines of the last pass are off, in words."""
    regimes = numbers["regimes"].items()
    return ", ".join(
        f"{found['largest_error_in_last_pass']:.1g} ({name})" for name, found in regimes
    )


def cost(found):
    """Passes and steps to within 1 %, in words."""
    if found["passes"] is None:
        return "needs more than its budget"
    return f"takes {found['passes']:.3g} passes ({found['steps']:,} steps)"


def line(found):
    """The equation of a line."""
    return f"{found['intercept']:.2f} + {found['slope']:.2f} x"


def table(numbers):
    """Every regime's line against the exact one."""
    rows = [
        (
            name,
            f["rate"],
            f["intercept"],
            f["slope"],
            f["error"],
            f["error_after_one_pass"],
            f["passes"],
            f["steps"],
        )
        for name, f in numbers["regimes"].items()
    ]
    exact = (
        "least squares",
        None,
        numbers["exact"]["intercept"],
        numbers["exact"]["slope"],
        0.0,
        None,
        None,
        None,
    )
    exact = research.runs.dashed(exact)  # It is solved for, at no rate and in no pass.
    return research.runs.Table(
        "The line that each regime finds",
        (
            "regime",
            "rate",
            "intercept",
            "slope",
            "error",
            "after one pass",
            "passes to 1 %",
            "steps to 1 %",
        ),
        (*map(tuple, rows), exact),
        "Error: the larger of the relative errors of intercept and slope, at the end of the budget; passes and steps "
        "are to the first line at which it is at most 1 %.",
    )


def draw(result):
    """The lines among the data, still and moving, and the same walk among all lines."""
    arrays, numbers = result.arrays, result.numbers
    regimes = numbers["regimes"]
    still, axes = research.figures.new_figure(
        1, len(regimes), width=11, height=4.3, sharey=True
    )
    for panel, (name, found) in zip(axes[0], regimes.items(), strict=True):
        draw_data(panel, arrays, f"{name}, rate {found['rate']:g}")
        draw_still_lines(panel, arrays, name)
    walk, axes = research.figures.new_figure(1, 2, width=11, height=4.3)
    draw_walk(axes[0, 0], arrays, regimes)
    draw_errors(axes[0, 1], arrays, regimes)
    pictures = {
        "lines": (
            "The line through the data",
            lines_caption(numbers),
            still,
            draw_motion(arrays, regimes),
        ),
        "walk": (
            "The same walk in the plane of all lines",
            walk_caption(numbers),
            walk,
        ),
    }
    return {
        key: research.figures.Picture(*picture) for key, picture in pictures.items()
    }


def lines_caption(numbers):
    """What the first figure shows."""
    after_one = ", ".join(
        f"{100 * f['error_after_one_pass']:.0f} % ({n})"
        for n, f in numbers["regimes"].items()
    )
    return (
        f"Disease progression after a year against body mass index, {numbers['n']} people (grey), with the least-squares "
        f"line {line(numbers['exact'])} (dashed) and the line of each regime after as many passes as are written at its "
        f"end, from pale to full colour. All start flat, near 0. After one pass the error is still {after_one}: by then "
        "the full batch has made one step, the others many. In the motion, time runs ever faster."
    )


def walk_caption(numbers):
    """What the second figure shows."""
    costs = ", ".join(
        f"{name} {cost(found)}" for name, found in numbers["regimes"].items()
    )
    return (
        "Left: each point is a line, by its intercept and slope; circles join lines of equal f, and the cross is the "
        "exact one. The full batch walks straight, a dot a step; the others wander about that path. Right: the larger of "
        f"the relative errors of intercept and slope after each pass. To reach 1 % (dashed), {costs}. The error of the "
        "full batch changes by the factor 1 - η at each step; those of the others tremble: the largest error in the last "
        f"pass is {strays(numbers)}."
    )


def draw_data(axes, arrays, title):
    """The examples and the exact line."""
    colours = research.figures.COLOURS
    axes.plot(
        arrays["x"],
        arrays["y"],
        "o",
        color=colours["data"],
        markersize=3.2,
        alpha=0.45,
        markeredgewidth=0,
    )
    axes.plot(
        ENDS,
        heights(arrays["exact"]),
        color=colours["exact"],
        lw=1.3,
        ls=(0, (5, 3)),
        zorder=5,
    )
    axes.set(xlim=(-2.0, 4.8), ylim=(-25, 360), xlabel="body mass index (standardised)")
    axes.set_title(title, loc="left")
    axes.set_ylabel(
        "disease progression" if axes.get_subplotspec().is_first_col() else ""
    )


def heights(line_params):
    """Where a line (intercept, slope) stands at its two ends."""
    return line_params[0] + line_params[1] * np.array(ENDS)


def place(passes, now):
    """The index of the last step that is taken within so many passes."""
    return int(np.searchsorted(passes, now + 1e-9, side="right")) - 1


def pale(colour, share):
    """A colour mixed with white."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return tuple(1 - share * (1 - channels))


def draw_still_lines(axes, arrays, name):
    """The lines after SHOWN_PASSES, from pale to full colour, each with its passes where there is room."""
    colour, taken, labelled = research.figures.colour(name), [], []
    passes, lines = arrays[f"{name}/passes"], arrays[f"{name}/lines"]
    for shade, shown in zip(
        np.linspace(0.3, 1.0, len(SHOWN_PASSES)), SHOWN_PASSES, strict=True
    ):
        index = place(passes, shown)
        if index in taken:
            continue  # No step since.
        taken.append(index)
        height = heights(lines[index])
        axes.plot(ENDS, height, color=pale(colour, shade), lw=1.3 + shade, zorder=4)
        if all(abs(height[1] - other) > 12 for other in labelled):
            text = (
                f"{shown:g} pass{'es' if shown != 1 else ''}"
                if shown in (0, 1)
                else f"{shown:g}"
            )
            axes.text(
                ENDS[1] + 0.08,
                height[1],
                text,
                color=pale(colour, max(shade, 0.65)),
                va="center",
                fontsize=9,
            )
            labelled.append(height[1])


def draw_motion(arrays, regimes):
    """The lines move, each with a short trail; time grows as the cube of the frame, so that first and last are seen."""
    from research.figures import motion

    figure, axes = research.figures.new_figure(
        1, len(regimes), width=11, height=4.0, sharey=True
    )
    moving = {}
    for panel, name in zip(axes[0], regimes, strict=True):
        draw_data(panel, arrays, name)
        colour = research.figures.colour(name)
        shades = ((0.2, 1.6), (0.35, 1.6), (0.5, 1.6), (1.0, 2.8))
        trail = [
            panel.plot(ENDS, (0, 0), color=pale(colour, shade), lw=width, zorder=4)[0]
            for shade, width in shades
        ]
        moving[name] = (
            trail,
            panel.text(
                0.03, 0.97, "", transform=panel.transAxes, va="top", fontsize=10
            ),
        )

    def show(k):
        for name, (trail, text) in moving.items():
            passes, lines = arrays[f"{name}/passes"], arrays[f"{name}/lines"]
            times = [
                MOVING_PASSES * (max(k - back, 0) / (FRAMES - 1)) ** 3
                for back in (3, 2, 1, 0)
            ]
            for artist, time in zip(trail, times, strict=True):
                artist.set_ydata(heights(lines[place(passes, time)]))
            index = place(passes, times[-1])
            equation = f"{lines[index, 0]:.0f} + {lines[index, 1]:.0f} x".replace(
                "+ -", "- "
            )
            text.set_text(f"{times[-1]:.1f} passes, {index:,} steps\ny = {equation}")

    return motion.record(figure, show, FRAMES)


def draw_walk(axes, arrays, regimes):
    """Each regime's path in the plane of intercept and slope, on the circles of equal f."""
    exact = arrays["exact"]
    angle = np.linspace(0, 2 * np.pi, 200)
    axes.grid(False)
    for radius in np.linalg.norm(exact) * np.array([0.05, 0.2, 0.4, 0.6, 0.8, 1.0]):
        axes.plot(
            *(exact[:, None] + radius * np.array([np.cos(angle), np.sin(angle)])),
            color="#D5D8DC",
            lw=0.9,
        )
    for name in reversed(regimes):
        lines = arrays[f"{name}/lines"][
            : place(arrays[f"{name}/passes"], MOVING_PASSES) + 1
        ]
        style = {
            "full batch": {"marker": "o", "markersize": 3.2, "lw": 0.8},
            "stochastic": {"lw": 0.6},
        }
        axes.plot(
            *lines.T,
            color=research.figures.colour(name),
            label=name,
            **style.get(name, {"lw": 1.3}),
        )
    axes.plot(
        *exact,
        "+",
        color=research.figures.COLOURS["exact"],
        markersize=14,
        markeredgewidth=1.6,
        zorder=5,
    )
    axes.set(xlabel="intercept", ylabel="slope", xlim=(-21, 190), ylim=(-50, 109))
    axes.set_aspect("equal")
    axes.set_title(f"The first {MOVING_PASSES} passes", loc="left")
    axes.legend(loc="upper left", frameon=True, framealpha=1, edgecolor="none")


def draw_errors(axes, arrays, regimes):
    """The relative error of each regime after each pass."""
    for name in reversed(regimes):
        stride = slice(None, None, regimes[name]["steps_per_epoch"])
        errors = relative_errors(arrays[f"{name}/lines"][stride], arrays["exact"])
        axes.plot(
            arrays[f"{name}/passes"][stride],
            errors,
            color=research.figures.colour(name),
            lw=1.4,
            label=name,
        )
    axes.axhline(CLOSE, color=research.figures.COLOURS["exact"], lw=1.2, ls=(0, (4, 3)))
    axes.set_yscale("log")
    axes.set(
        xlabel="passes over the data",
        ylabel="relative error",
        xlim=(0, 2 * MOVING_PASSES),
        ylim=(1e-5, 2),
    )
    axes.set_title("How far from the exact line", loc="left")


if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
