"""Where does logistic regression draw the line, and how does it get there?

Benign or malignant, from two measurements of a tumour's nuclei. The model is P(benign) = 1 / (1 + exp(-z)) with the score
z = wᵀx + b, so the boundary, where the probability is one half, is the straight line z = 0; it is known exactly, for the
optimum is found without descent (Newton's method). Descent does two things at two speeds: where the boundary lies is
nearly settled after one step, which sorts the test set as well as the last; the length of w, which says how sharply the
probability changes across the boundary, takes a hundred.

    python experiments/decision_boundary.py            # some seconds

The numbers to expect (`EXPECTED`): the test accuracy after one epoch and at the end, the epoch from which |w| is within
1 % of its exact length, and at the end f - f* and the angle to the exact boundary, in degrees.
"""

import dataclasses
import math
import sys

import numpy as np

import research

EXPECTED = {
    "accuracy_after_one": (0.93, 0.96),
    "accuracy": (0.92, 0.94),
    "epochs_to_length": (95, 115),
    "gap": (-1e-15, 1e-9),
    "angle": (0.0, 1e-2),
}

WORKLOAD = "breast_cancer_two_features"
FEATURES = (
    "size of the largest nuclei (standardised)",
    "dents of the largest nuclei (standardised)",
)
CLASSES = {1: ("benign", "first class"), 0: ("malignant", "second class")}
LENGTH_CLOSE = 0.01  # |w| within one per cent of the exact length.
SHOWN_EPOCHS = (0, 1, 5, 25)  # Whose boundaries the still shows beside the last.
FRAMES, MOVING_EPOCHS = 36, 150  # Of the motion: how many, and until when.
BINS = 8  # Of equally many examples, in which the predicted probability is held against the share of benign ones.
X_RANGE, Y_RANGE, SCORE_RANGE = (-2.1, 4.4), (-2.1, 3.1), (-14.0, 9.0)


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    epochs: int = 400
    """Budget of the training."""
    learning_rate: float = 1.0
    """Learning rate of gradient descent."""
    batch_size: int = 0
    """Examples in a batch; 0 is the full batch."""
    seed: int = 0
    """Of the starting point, and of the order of the examples where there are batches."""


FULL = Config(epochs=2000)


def run(config, on_progress=None, checkpoints=None):
    """Trains, and holds the boundary of every epoch against the exact one."""
    del checkpoints  # It takes seconds.
    if not 0 < config.learning_rate < math.inf:
        raise ValueError(
            f"learning_rate must be a positive number; got learning_rate={config.learning_rate}."
        )
    if config.epochs < 1:
        raise ValueError(
            f"epochs must be a positive integer; got epochs={config.epochs}."
        )
    if on_progress:
        on_progress(0, 1, WORKLOAD)
    workload = research.workloads.make_workload(WORKLOAD)
    arrays = measure(workload, config)
    numbers = facts(config, arrays, workload)
    if on_progress:
        on_progress(1, 1, WORKLOAD)
    return research.runs.Result(answer(numbers), (table(numbers),), arrays, numbers)


def measure(workload, config):
    """The examples, and the boundary of each epoch, (w1, w2, b), beside the exact one."""
    seen, optimum = train(workload, config), workload.optimum
    exact = np.array([*optimum.params["weights"], optimum.params["intercept"]])
    params = np.stack([seen["w1"], seen["w2"], seen["b"]], axis=1)
    return {
        "x": np.asarray(workload.train.x),
        "y": np.asarray(workload.train.y),
        "exact": exact,
        "params": params,
        "gaps": seen["f"] - optimum.value,
        "accuracies": seen["accuracy"],
        "angles": angles(params, exact),
        "lengths": np.hypot(params[:, 0], params[:, 1]) / np.hypot(exact[0], exact[1]),
    }


def train(workload, config):
    """One training; what is evaluated before it and after each epoch, each of shape (epochs + 1,)."""
    import jax
    import jax.numpy as jnp

    key_init, key_epochs = (
        jax.random.fold_in(jax.random.key(config.seed), child) for child in range(2)
    )
    n, samplers = len(workload.train.y), research.samplers
    sampler = (
        samplers.minibatch(n, config.batch_size)
        if config.batch_size
        else samplers.full_batch(n)
    )
    rule = research.update_rules.find_rule("gradient_descent")(config.learning_rate)
    init, step = research.descent.build(workload.objective, rule, workload.train)

    def evaluate(params):
        weights = params["weights"]
        accuracy = workload.metric(params, workload.test).astype(weights.dtype)
        f = workload.objective(params, workload.train)
        return {
            "w1": weights[0],
            "w2": weights[1],
            "b": params["intercept"],
            "f": f,
            "accuracy": accuracy,
        }

    @jax.jit
    def whole(params):
        state, epochs = init(params), jnp.arange(config.epochs)
        _, info = research.descent.run(
            step, state, sampler, key_epochs, epochs, evaluate=evaluate
        )
        return evaluate(params), jax.tree.map(
            lambda leaf: leaf[:, -1], info.evaluations
        )

    first, later = whole(workload.init(key_init))
    seen = {
        name: np.concatenate([np.asarray(first[name])[None], later[name]])
        for name in first
    }
    bad = np.flatnonzero(~np.isfinite(seen["f"]))
    if len(bad):
        raise ValueError(
            f"learning_rate={config.learning_rate} diverges: f is not finite after epoch {bad[0]}. Choose a smaller one."
        )
    return seen


def angles(params, exact):
    """Degrees between each (w1, w2) and the exact one; by atan2, which keeps its digits at small angles."""
    across = params[:, 0] * exact[1] - params[:, 1] * exact[0]
    along = params[:, 0] * exact[0] + params[:, 1] * exact[1]
    return np.degrees(np.abs(np.arctan2(across, along)))


def probability(params, x):
    """P(benign) at each point x, shape (..., 2)."""
    return 1 / (1 + np.exp(-(x @ params[:2] + params[2])))


def boundary(params, reach=10.0):
    """Two points at which the probability is one half, `reach` to either side of the one nearest to the centre."""
    weights = params[:2]
    square = weights @ weights
    across = np.array([-weights[1], weights[0]]) / np.sqrt(square)
    return -params[2] * weights / square + np.outer([-reach, reach], across)


def facts(config, arrays, workload):
    """What the training came to, as JSON."""
    close = np.abs(arrays["lengths"] - 1) <= LENGTH_CLOSE
    last_far = np.flatnonzero(~close)[-1]
    return {
        "n": len(arrays["y"]),
        "n_test": len(workload.test.y),
        "epochs": config.epochs,
        "learning_rate": config.learning_rate,
        "regime": f"mini-batch {config.batch_size}"
        if config.batch_size
        else "full batch",
        "weights": arrays["params"][-1, :2].tolist(),
        "intercept": float(arrays["params"][-1, 2]),
        "exact": {
            "weights": arrays["exact"][:2].tolist(),
            "intercept": float(arrays["exact"][2]),
        },
        "solver": workload.optimum.solver,
        "angle_at_start": float(arrays["angles"][0]),
        "angle_after_one": float(arrays["angles"][1]),
        "angle": float(arrays["angles"][-1]),
        "length_after_one": float(arrays["lengths"][1]),
        "length": float(arrays["lengths"][-1]),
        "epochs_to_length": None if last_far == config.epochs else int(last_far + 1),
        "initial_gap": float(arrays["gaps"][0]),
        "gap": float(arrays["gaps"][-1]),
        "accuracy_at_start": float(arrays["accuracies"][0]),
        "accuracy_after_one": float(arrays["accuracies"][1]),
        "accuracy": float(arrays["accuracies"][-1]),
        "exact_accuracy": float(
            workload.metric(workload.optimum.params, workload.test)
        ),
    }


def equation(found):
    """The boundary as an equation."""
    (first, second), intercept = found["weights"], found["intercept"]
    return f"{first:.2f} x1 {'+-'[second < 0]} {abs(second):.2f} x2 {'+-'[intercept < 0]} {abs(intercept):.2f} = 0"


def sharpness(numbers):
    """How long w takes to grow to its length, in words."""
    if numbers["epochs_to_length"] is None:
        return f"is not within 1 % of it after {numbers['epochs']} epochs"
    return f"is within 1 % of it from epoch {numbers['epochs_to_length']} on"


def answer(numbers):
    """Where the boundary is, and the two speeds."""
    return (
        f"On the line {equation(numbers)}, where P(benign) = 1/2; {100 * numbers['accuracy']:.1f} % of "
        f"{numbers['n_test']} test examples lie on their side of it. {two_speeds(numbers)}. After {numbers['epochs']} "
        f"epochs f - f* = {numbers['gap']:.1e} and the angle is {numbers['angle']:.1e}°."
    )


def two_speeds(numbers):
    """What one epoch settles and what it does not, in words."""
    settled = (
        numbers["accuracy_after_one"] >= numbers["accuracy"]
        and numbers["length_after_one"] < 0.5
    )
    return (
        f"{'Where it lies is settled first: one' if settled else 'One'} epoch turns it from "
        f"{numbers['angle_at_start']:.0f}° to {numbers['angle_after_one']:.0f}° off the exact one, and test accuracy from "
        f"{100 * numbers['accuracy_at_start']:.1f} % to {100 * numbers['accuracy_after_one']:.1f} %, while |w|, the "
        f"sharpness of the probability, has {100 * numbers['length_after_one']:.0f} % of its exact length and "
        f"{sharpness(numbers)}"
    )


def table(numbers):
    """Descent's boundary beside the exact one."""
    columns = ("", "w1", "w2", "b", "angle to the exact, °", "f - f*", "test accuracy")
    found = (
        *numbers["weights"],
        numbers["intercept"],
        numbers["angle"],
        numbers["gap"],
        numbers["accuracy"],
    )
    exact = (
        *numbers["exact"]["weights"],
        numbers["exact"]["intercept"],
        0.0,
        0.0,
        numbers["exact_accuracy"],
    )
    return research.runs.Table(
        "The boundary w1 x1 + w2 x2 + b = 0",
        columns,
        (("gradient descent", *found), (numbers["solver"], *exact)),
        f"{numbers['regime'].capitalize()}, rate {numbers['learning_rate']:g}, {numbers['epochs']} epochs; "
        f"{numbers['n']} training and {numbers['n_test']} test examples.",
    )


def draw(result):
    """The boundary in the plane of the data, still and moving, and its way to the exact one."""
    arrays, numbers = result.arrays, result.numbers
    still, axes = research.figures.new_figure(
        1, 2, width=11, height=4.6, width_ratios=(1.15, 1)
    )
    draw_field(axes[0, 0], arrays, -1)
    draw_points(axes[0, 0], arrays)
    draw_boundaries(axes[0, 0], arrays)
    draw_sigmoid(axes[0, 1])
    draw_scores(axes[0, 1], arrays, -1)
    way, axes = research.figures.new_figure(1, 3, width=11, height=3.4)
    draw_way(axes[0], arrays)
    pictures = {
        "boundary": (
            "The boundary and the probability",
            boundary_caption(numbers),
            still,
            draw_motion(arrays),
        ),
        "way": ("First the place, then the confidence", way_caption(numbers), way),
    }
    return {
        key: research.figures.Picture(*picture) for key, picture in pictures.items()
    }


def boundary_caption(numbers):
    """What the first figure shows."""
    return (
        f"Left: {numbers['n']} tumours by two measurements, benign (blue) and malignant (orange). The field is P(benign) "
        "in steps of a tenth; the lines are where it is one half, after as many epochs as the legend says, and the last "
        f"one, {equation(numbers)}, is {numbers['angle']:.1e}° off the exact one. Right: the same tumours by their score "
        "z = wᵀx + b, about the curve that makes it a probability (each class is spread in height to be seen); circles "
        f"are the share of benign ones in {BINS} groups of equal size. In the motion the line turns at once; then w "
        "grows, the field sharpens and the scores spread."
    )


def way_caption(numbers):
    """What the second figure shows."""
    return (
        f"Three quantities after each epoch (dots: the start, and the first). {two_speeds(numbers)}. f - f* falls from "
        f"{numbers['initial_gap']:.2g} to {numbers['gap']:.1e}, and the angle to {numbers['angle']:.1e}°."
    )


def draw_field(axes, arrays, epoch):
    """P(benign) as ten bands of colour; returned, so that a motion can replace it."""
    from matplotlib.colors import LinearSegmentedColormap

    # Those of the classes, mixed with white: transparent bands would show their seams.
    shades = LinearSegmentedColormap.from_list(
        "probability", ["#F5D89A", "#FFFFFF", "#9BC5E0"]
    )
    x, y = np.meshgrid(np.linspace(*X_RANGE, 160), np.linspace(*Y_RANGE, 160))
    field = probability(arrays["params"][epoch], np.stack([x, y], axis=-1))
    return axes.contourf(x, y, field, np.linspace(0, 1, 11), cmap=shades, zorder=0)


def draw_points(axes, arrays):
    """The examples by class."""
    for label, (name, colour) in CLASSES.items():
        points = arrays["x"][arrays["y"] == label]
        style = {
            "markersize": 4.2,
            "markeredgecolor": "white",
            "markeredgewidth": 0.4,
            "zorder": 3,
        }
        axes.plot(
            *points.T, "o", color=research.figures.COLOURS[colour], label=name, **style
        )
    axes.grid(False)
    axes.set(xlim=X_RANGE, ylim=Y_RANGE, xlabel=FEATURES[0], ylabel=FEATURES[1])


def draw_boundaries(axes, arrays):
    """The boundary after SHOWN_EPOCHS and at the end, from grey to black."""
    last = len(arrays["params"]) - 1
    shown = [epoch for epoch in SHOWN_EPOCHS if epoch < last] + [last]
    for shade, epoch in zip(np.linspace(0.68, 0.0, len(shown)), shown, strict=True):
        style = (
            {"lw": 2.6, "ls": "-"} if epoch == last else {"lw": 1.5, "ls": (0, (5, 2))}
        )
        label = f"after {epoch} epochs" if epoch != 1 else "after 1 epoch"
        axes.plot(
            *boundary(arrays["params"][epoch]).T,
            color=str(shade),
            label=label,
            zorder=4,
            **style,
        )
    axes.set_title("Where P(benign) is one half", loc="left")
    axes.legend(
        loc="lower right", frameon=True, framealpha=0.92, edgecolor="none", fontsize=9
    )


def draw_sigmoid(axes):
    """The curve from score to probability."""
    score = np.linspace(*SCORE_RANGE, 400)
    axes.plot(
        score,
        1 / (1 + np.exp(-score)),
        color=research.figures.COLOURS["exact"],
        lw=1.6,
        zorder=4,
    )
    axes.axvline(
        0, color=research.figures.COLOURS["exact"], lw=1, ls=(0, (4, 3)), zorder=1
    )
    axes.set(
        xlim=SCORE_RANGE,
        ylim=(-0.17, 1.17),
        xlabel="score z = wᵀx + b",
        ylabel="P(benign)",
    )
    axes.set_title("From score to probability", loc="left")


def draw_scores(axes, arrays, epoch):
    """The examples by score, and the share of benign ones in groups of equal size; returned, to be moved."""
    artists = {}
    for label, (_, colour) in CLASSES.items():
        style = {
            "color": research.figures.COLOURS[colour],
            "markersize": 3.4,
            "alpha": 0.6,
            "markeredgewidth": 0,
        }
        artists[label] = axes.plot(
            *scored(arrays, epoch, label), "o", zorder=2, **style
        )[0]
    style = {
        "markerfacecolor": "white",
        "markeredgecolor": research.figures.COLOURS["exact"],
        "markersize": 7,
    }
    artists["bins"] = axes.plot(*grouped(arrays, epoch), "o", zorder=5, **style)[0]
    return artists


def scored(arrays, epoch, label):
    """(scores, heights) of one class, the heights spread evenly about the label by the golden ratio."""
    params, x = arrays["params"][epoch], arrays["x"][arrays["y"] == label]
    spread = np.arange(len(x)) * 0.6180339887498949 % 1 - 0.5
    return x @ params[:2] + params[2], label + 0.18 * spread + 0.05 * (2 * label - 1)


def grouped(arrays, epoch):
    """(mean scores, shares of benign ones) of groups of equally many examples, in order of score."""
    params = arrays["params"][epoch]
    score = arrays["x"] @ params[:2] + params[2]
    groups = np.array_split(np.argsort(score, kind="stable"), BINS)
    return [score[group].mean() for group in groups], [
        arrays["y"][group].mean() for group in groups
    ]


def draw_motion(arrays):
    """The field, the boundary and the scores by epoch; time grows as the square of the frame."""
    from research.figures import motion

    figure, axes = research.figures.new_figure(
        1, 2, width=10, height=4.2, width_ratios=(1.15, 1)
    )
    draw_points(axes[0, 0], arrays)
    exact = axes[0, 0].plot(
        *boundary(arrays["exact"]).T,
        color="0.45",
        lw=1.3,
        ls=(0, (5, 3)),
        label="exact",
        zorder=4,
    )
    line = axes[0, 0].plot([], [], color="black", lw=2.6, zorder=5)[0]
    axes[0, 0].legend(
        handles=exact,
        loc="lower right",
        frameon=True,
        framealpha=0.92,
        edgecolor="none",
    )
    draw_sigmoid(axes[0, 1])
    scores = draw_scores(axes[0, 1], arrays, 0)
    field = [draw_field(axes[0, 0], arrays, 0)]
    last = min(MOVING_EPOCHS, len(arrays["params"]) - 1)

    def show(k):
        epoch = round(last * (k / (FRAMES - 1)) ** 2)
        field.pop().remove()
        field.append(draw_field(axes[0, 0], arrays, epoch))
        line.set_data(*boundary(arrays["params"][epoch]).T)
        for label in CLASSES:
            scores[label].set_data(*scored(arrays, epoch, label))
        scores["bins"].set_data(*grouped(arrays, epoch))
        turned, length = arrays["angles"][epoch], 100 * arrays["lengths"][epoch]
        axes[0, 0].set_title(
            f"epoch {epoch}: {turned:.1f}° from exact, |w| at {length:.0f} %",
            loc="left",
        )

    return motion.record(figure, show, FRAMES, colours=64)


def draw_way(axes, arrays):
    """f - f*, the angle and the length of w against epochs."""
    epochs = np.arange(len(arrays["gaps"]))
    colour = research.figures.COLOURS["full batch"]
    curves = (
        ("f - f*", np.maximum(arrays["gaps"], 1e-16), "log"),
        ("angle to the exact boundary, degrees", arrays["angles"], "log"),
        ("|w| over its exact length", arrays["lengths"], "linear"),
    )
    for panel, (title, values, scale) in zip(axes, curves, strict=True):
        panel.plot(epochs, values, color=colour, lw=1.8)
        panel.plot(
            epochs[:2], values[:2], "o", color=colour, markersize=4.5, clip_on=False
        )
        panel.set_yscale(scale)
        panel.set_xscale("symlog", linthresh=1)
        panel.set(xlabel="epochs", xlim=(0, epochs[-1]))
        panel.set_title(title, loc="left")
    axes[2].axhline(1, color=research.figures.COLOURS["exact"], lw=1.2, ls=(0, (4, 3)))
    axes[2].set_ylim(0, 1.1)


if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
