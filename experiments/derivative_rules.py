"""Do the rules of differentiation hold?

A rule is a claim about two functions, f and f'. Here each claim of `research.derivatives.DERIVATIVE_RULES` is put to four
others that know nothing of it: JAX in forward and in reverse mode, which differentiate the program of f; the limit of
Richardson's difference quotient, and `finite_difference`, which only evaluate f. The rules about any two functions (product,
quotient, chain, ...) are tried on u(x) = sin(a x) and v(x) = 2 + tanh(b x) with drawn a and b.

    python experiments/derivative_rules.py            # under half a minute

The numbers to expect (`EXPECTED`): the largest disagreement with JAX's two modes, over the larger of |f'| and
|f| / (1 + |x|), which is rounding; and the largest with the two that only evaluate f, which is what they can.
"""

import dataclasses
import sys

import numpy as np

import research

EXPECTED = {
    "disagreement_with_jax": (0.0, 1e-14),
    "disagreement_with_values": (0.0, 1e-10),
}

WAYS = ("forward mode", "reverse mode", "limit", "finite difference")
EXACT = WAYS[:2]


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    points: int = 64
    """Drawn for each rule."""
    evaluated: int = 3
    """Of them, at which the limit and the finite difference are taken."""
    seed: int = 0
    """Of points and constants."""


FULL = Config(points=1000, evaluated=20)


def run(config, on_progress=None, checkpoints=None):
    """Holds every rule against the four."""
    del checkpoints  # It takes seconds.
    if not 1 <= config.evaluated <= config.points:
        raise ValueError(
            f"evaluated must lie in 1..points={config.points}; got evaluated={config.evaluated}."
        )
    rules, found, domains = research.derivatives.DERIVATIVE_RULES, {}, {}
    for done, (name, rule) in enumerate(rules.items()):
        if on_progress:
            on_progress(done, len(rules), name)
        found[name], domains[name] = (
            disagreements(name, rule, config),
            (rule.text, rule.domain),
        )
    if on_progress:
        on_progress(len(rules), len(rules), "done")
    arrays = {
        "disagreement": np.array([[found[name][way] for way in WAYS] for name in rules])
    }
    numbers = {
        "rules": {
            name: {"text": domains[name][0], "domain": domains[name][1]} | found[name]
            for name in rules
        },
        "points": config.points,
        "disagreement_with_jax": float(arrays["disagreement"][:, :2].max()),
        "disagreement_with_values": float(arrays["disagreement"][:, 2:].max()),
    }
    return research.runs.Result(answer(numbers), (table(numbers),), arrays, numbers)


def disagreements(name, rule, config):
    """way -> the largest relative distance from the rule's f'."""
    import jax
    import jax.numpy as jnp

    check = research.derivatives.verify_derivative_rule(
        name, jax.random.key(config.seed), number=config.points
    )
    constants = {key: jnp.asarray(values) for key, values in check.constants.items()}
    reverse = jax.vmap(
        lambda x, c: jax.grad(lambda t: jnp.asarray(rule.function(t, c), float))(x)
    )
    by_reverse = np.asarray(jax.jit(reverse)(jnp.asarray(check.points), constants))
    values = np.asarray(jax.vmap(rule.function)(jnp.asarray(check.points), constants))
    scale = np.maximum(
        np.abs(check.derivative), np.abs(values) / (1 + np.abs(check.points))
    )
    scale = np.maximum(scale, np.finfo(float).tiny)
    off = {"forward mode": check.by_jax, "reverse mode": by_reverse}
    found = {
        way: float(np.max(np.abs(other - check.derivative) / scale))
        for way, other in off.items()
    }
    some = range(config.evaluated)
    by_values = [
        from_values(rule, check.points[i], {k: v[i] for k, v in constants.items()})
        for i in some
    ]
    for way, others in zip(WAYS[2:], zip(*by_values, strict=True), strict=True):
        part = slice(config.evaluated)
        found[way] = float(
            np.max(np.abs(np.array(others) - check.derivative[part]) / scale[part])
        )
    return found


def from_values(rule, x, constants):
    """f'(x) by the best step of Richardson's quotient, and by `finite_difference`."""
    import jax

    compiled = jax.jit(rule.function)
    f = lambda t: np.asarray(compiled(np.asarray(t, float), constants), float)[()]
    limit = research.derivatives.limit_table(f, float(x), "richardson")
    return float(limit.estimates[limit.best]), float(
        research.derivatives.finite_difference(f, float(x)).value
    )


def answer(numbers):
    """That they hold, and to how many digits each witness says so."""
    rules, (jax_off, values_off) = (
        numbers["rules"],
        (numbers[f"disagreement_with_{who}"] for who in ("jax", "values")),
    )
    worst = max(rules, key=lambda name: max(rules[name][way] for way in WAYS[2:]))
    return (
        f"Yes, all {len(rules)}: JAX, forward and in reverse, differs from them by {jax_off:.1e} at most, which is "
        f"rounding, and difference quotients of f alone by {values_off:.1e} (worst for {worst}). Each rule holds "
        "only where it says: outside its domain it is an error, not a number."
    )


def table(numbers):
    """Every rule with its domain and its four witnesses."""
    rows = [
        (name, f["text"], f["domain"], *(f[way] for way in WAYS))
        for name, f in numbers["rules"].items()
    ]
    return research.runs.Table(
        "The rules and what four others say of them",
        ("rule", "text", "domain", *WAYS),
        tuple(rows),
        "The last four columns: the largest distance from the rule's f', over the larger of |f'| and |f| / (1 + |x|).",
    )


def draw(result):
    """Each witness's disagreement with each rule."""
    figure, axes = research.figures.new_figure(width=9, height=8.2)
    draw_witnesses(
        axes[0, 0], list(result.numbers["rules"]), result.arrays["disagreement"]
    )
    jax_off, values_off = (
        result.numbers[f"disagreement_with_{who}"] for who in ("jax", "values")
    )
    caption = (
        f"How far four other ways to the derivative are from each of {len(result.numbers['rules'])} rules, relatively. JAX's "
        f"two modes (dots) are within {jax_off:.1e}: rounding, the dashed line being ε. What knows only the values of f "
        f"(triangles) comes within {values_off:.1e}, and lies further right by what cancels in a difference. Exact "
        "agreement is drawn at the left edge."
    )
    return {
        "witnesses": research.figures.Picture(
            "The rules before four witnesses", caption, figure
        )
    }


def draw_witnesses(axes, names, disagreement):
    """A row for each rule, a mark for each witness."""
    colours = research.figures.COLOURS
    looks = (
        ("full batch", "o"),
        ("mini-batch", "o"),
        ("stochastic", ">"),
        ("decaying", "<"),
    )
    left, rows = 1e-17, np.arange(len(names))[::-1]
    for i, (way, (colour, mark)) in enumerate(zip(WAYS, looks, strict=True)):
        x = np.maximum(disagreement[:, i], left)
        axes.plot(
            x,
            rows + 0.12 * (1.5 - i),
            mark,
            color=colours[colour],
            markersize=4.5,
            label=way,
            alpha=0.9,
        )
    axes.axvline(np.finfo(float).eps, color=colours["exact"], lw=1, ls=(0, (5, 3)))
    axes.set(
        xscale="log",
        xlim=(left / 2, 1e-11),
        ylim=(-0.8, len(names) - 0.2),
        xlabel="relative disagreement with the rule",
    )
    axes.set_yticks(rows, names)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.4, 1.06), ncols=4, handletextpad=0.2
    )


if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
