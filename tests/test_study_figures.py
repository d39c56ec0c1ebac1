"""The pictures of a study, held against the arrays they are drawn from; studies are
made up, of known shape.
"""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from research import figures
from research.figures import studies, study_curves, study_looks, study_rates
from research.figures.study_looks import written

COMPILE_QUICKLY = True  # tests/conftest.py

PASSES, TARGET, SEEDS, SEARCHES, SCREENING_SEEDS = 30.0, 1e-2, 20, 2, 4
NAMES = (
    "gradient_descent",
    "adam",
    "momentum",
    "nesterov",
    "rmsprop",
    "adagrad",
    "lion",
    "signum",
    "adamax",
    "yogi",
)
DATA = (
    "breast_cancer",
    "digits",
    "ridge",
    "noisy_linear",
    "ill_conditioned",
    "wine",
    "softmax_small",
    "two_moons",
)


def make_study(
    num_rules, num_workloads, *, seed=0, trials=12, unreached=(), rates=True
):
    """A study as a run folder has it: valleys of cost over log learning rate, a cliff
    beyond, some never at the target.
    """
    draw = np.random.default_rng(seed)
    rules = [
        NAMES[k] if k < len(NAMES) else f"{NAMES[k % 10]}_{k // 10}"
        for k in range(num_rules)
    ]
    workloads = [
        DATA[k] if k < len(DATA) else f"{DATA[k % 8]}_{k // 8}"
        for k in range(num_workloads)
    ]
    protocol = {
        "searches": SEARCHES,
        "budget": trials,
        "passes": PASSES,
        "batch_size": 32,
        "seeds": list(range(SEEDS)),
        "tuning_seeds": list(range(100, 100 + SEARCHES * SCREENING_SEEDS)),
        "tune_on": "train",
        "reported_on": "train",
        "target": TARGET,
        "level": 0.95,
        "width": 8,
        "search_seed": 0,
    }
    numbers = {
        "study": 2,
        "protocol": protocol,
        "baseline": rules[min(1, num_rules - 1)],
        "rules": rules,
    }
    numbers |= {"workloads": workloads, "cells": [], "comparisons": [], "overall": []}
    arrays, logs = {}, {}
    speeds = np.exp(draw.normal(0, 0.5, num_rules))
    for (w, workload), (r, rule) in itertools.product(
        enumerate(workloads), enumerate(rules)
    ):
        # Some miss the target in all runs, others in 11 of 20, which also counts as not
        # reached.
        half = isinstance(unreached, dict)
        misses = 11 if half and w in unreached.get(rule, ()) else 0
        misses = SEEDS if not half and rule in unreached else misses
        base = 4.0 * speeds[r] * (1 + 0.4 * w) * np.exp(draw.normal(0, 0.2))
        cell = make_cell(draw, base, trials, r, misses, rates)
        arrays |= {f"{workload}/{rule}/{name}": a for name, a in cell.items()}
        reached = float(np.isfinite(cell["costs"]).mean())
        logs[w, r] = np.log(
            np.where(np.isfinite(cell["costs"]), cell["costs"], 10 * PASSES)
        )
        names = (
            ["learning_rate", "momentum"][: cell["trials"].shape[2]]
            if rates
            else ["memory"]
        )
        numbers["cells"].append(
            {
                "workload": workload,
                "rule": rule,
                "n": 455,
                "hyperparameters": names,
                "trials": trials,
                "searches": SEARCHES,
                "reached": reached,
                "cost": float(np.exp(logs[w, r].mean())) if reached >= 0.5 else None,
            }
            | robust_facts(cell, misses)
        )
    compare(draw, numbers, logs)
    factors = np.geomspace(1, 20, 60)
    costs = [
        math.inf if cell["cost"] is None else cell["cost"] for cell in numbers["cells"]
    ]
    table = np.array(costs).reshape(num_workloads, num_rules)
    with np.errstate(invalid="ignore"):
        over = table / table.min(axis=1, keepdims=True)
    arrays["profile/factors"] = factors
    for r, rule in enumerate(rules):
        arrays[f"profile/{rule}"] = np.mean(over[:, r, None] <= factors, axis=0)
    return numbers, arrays


def make_cell(draw, base, trials, r, misses, rates):
    """One rule on one workload: every second rule also has a momentum, which matters
    less than the rate.
    """
    shape = (SEARCHES, trials)
    rate = 10 ** draw.uniform(-4, 1, shape)
    rate[:, 0] = 0.03  # The defaults.
    momentum = draw.uniform(0.5, 0.99, shape)
    momentum[:, 0] = 0.9
    best = 10 ** (-1.5 + 0.3 * (r % 5 - 2))

    def cost_at(rate, momentum):
        away = np.log10(rate / best)
        costs = base * (1 + 0.9 * away**2 + (r % 2) * 2 * (momentum - 0.9) ** 2)
        return np.where(away > 1.2, 10 * PASSES, costs + (2 * PASSES if misses else 0))

    def noisy(costs, seeds):
        runs = costs[..., None] * np.exp(draw.normal(0, 0.12, (*costs.shape, seeds)))
        return np.where(
            costs[..., None] < 10 * PASSES, np.minimum(runs, 9 * PASSES), 10 * PASSES
        )

    screening = np.log(noisy(cost_at(rate, momentum), SCREENING_SEEDS))
    rows = np.arange(SEARCHES), screening.mean(axis=2).argmin(axis=1)
    chosen, damping = rate[rows], momentum[rows]
    columns = [rate, momentum][: 1 + r % 2] if rates else [momentum]
    ends = noisy(cost_at(chosen, damping) - (2 * PASSES if misses else 0), SEEDS)
    costs = np.where(np.arange(SEEDS) < misses, np.inf, np.minimum(ends, PASSES))
    passes = np.linspace(0, PASSES, 61)
    decay = -2 / (PASSES * 3 if misses == SEEDS else base)
    noise = np.cumsum(0.06 * draw.normal(size=(SEARCHES * SEEDS, 61)), axis=1)
    curves = 10 ** (np.maximum(decay * passes, -4.5) + noise * (passes > 0))
    sweep = chosen[0] * 2.0 ** np.arange(-4, 4.5, 0.5)
    level = cost_at(sweep, damping[0])[:, None]
    spread = np.exp(draw.normal(0, 0.05, (len(sweep), SCREENING_SEEDS)))
    running = np.minimum.accumulate(np.exp(screening.mean(axis=(0, 2))))
    return {
        "trials": np.stack(columns, axis=2),
        "screening": screening,
        "chosen": np.stack([column[rows] for column in columns], axis=1),
        "tuning": screening[rows].mean(axis=1),
        "costs": costs,
        "final": curves[:, -1].reshape(SEARCHES, SEEDS),
        "default_costs": costs[0],
        "passes": passes,
        "curves": curves,
        "best_of": np.stack([running, 0.9 * running, 1.15 * running], axis=1),
        "rates": sweep,
        "rate_scores": np.log(np.minimum(level * spread, 10 * PASSES)),
    }


def robust_facts(cell, misses):
    """The good rates around the best, not interpolated: no number that a figure could
    find by itself.
    """
    means = np.exp(cell["rate_scores"].mean(axis=1))
    good = means <= 1.1 * means.min()
    low = high = int(means.argmin())
    while low > 0 and good[low - 1]:
        low -= 1
    while high < len(good) - 1 and good[high + 1]:
        high += 1
    if misses:
        return dict.fromkeys(
            ("robustness", "robust_low", "robust_high", "robust_at_end")
        )
    ends = cell["rates"][[low, high]].tolist()
    facts = {
        "robustness": math.log10(ends[1] / ends[0]),
        "robust_low": ends[0],
        "robust_high": ends[1],
    }
    return facts | {"robust_at_end": low == 0 or high == len(good) - 1}


def compare(draw, numbers, logs):
    """Fills in comparisons and overall from log costs, {(workload, rule): (searches,
    seeds)}; only the widths are made up.
    """
    base = numbers["rules"].index(numbers["baseline"])
    for r, rule in enumerate(numbers["rules"]):
        if r == base:
            continue
        singles = [
            float(logs[w, r].mean() - logs[w, base].mean())
            for w in range(len(numbers["workloads"]))
        ]
        for name, log in [
            *zip(numbers["workloads"], singles, strict=True),
            ("", float(np.mean(singles))),
        ]:
            width = draw.uniform(0.08, 0.3) * (1.0 if name else 0.6)
            row = {
                "rule": rule,
                "baseline": numbers["baseline"],
                "ratio": math.exp(log),
                "low": math.exp(log - width),
                "high": math.exp(log + width),
                "win": 0.5,
                "win_low": 0.4,
                "win_high": 0.6,
                "verdict": "better"
                if log < -width
                else "worse"
                if log > width
                else "undecided",
                "detectable": math.exp(1.3 * width),
                "from_searches": 0.7,
                "workloads": 1 if name else len(numbers["workloads"]),
            }
            if name:
                numbers["comparisons"].append({"workload": name} | row)
            else:
                numbers["overall"].append(row)


STUDIES = {
    "2 x 1": make_study(2, 1),
    "5 x 2": make_study(5, 2, unreached=("momentum",)),
    "12 x 1": make_study(12, 1, unreached=("lion",)),
    "30 x 7": make_study(30, 7, unreached=("lion", "yogi_2")),
}


@pytest.fixture(scope="module")
def drawn():
    """Name of a study -> its pictures, drawn when a test first asks for them."""

    class Drawn(dict):
        def __missing__(self, name):
            self[name] = studies.draw_study(*STUDIES[name])
            return self[name]

    return Drawn()


every_study = pytest.mark.parametrize(
    "name",
    [
        *("2 x 1", "5 x 2"),
        pytest.param("12 x 1", marks=pytest.mark.thorough("more rules")),
        pytest.param("30 x 7", marks=pytest.mark.thorough("more workloads")),
    ],
)


def lines(panel) -> dict[str, Line2D]:
    return {str(line.get_label()): line for line in panel.lines}


def panels_of(figure: Figure, count: int):
    return [axes for axes in figure.axes if axes.axison][:count]


def xy(line: Line2D) -> np.ndarray:
    return np.array(
        [np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)]
    )


def bars(panel) -> list[list[float]]:
    return sorted(
        xy(line)[0].tolist()
        for line in panel.lines
        if line.get_label() == "_interval" and line.get_lw() > 1.5
    )


def test_rule_colours_are_told_apart_by_readers_who_lack_a_cone():
    # Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB; distances in
    # CIELAB, where 2.3 is just noticed.
    sight = np.array(
        [
            np.eye(3),
            [
                [0.152286, 1.052583, -0.204868],
                [0.114503, 0.786281, 0.099216],
                [-0.003882, -0.048116, 1.051998],
            ],
            [
                [0.367322, 0.860646, -0.227968],
                [0.280085, 0.672501, 0.047413],
                [-0.011820, 0.042940, 0.968881],
            ],
            [
                [1.255528, -0.076749, -0.178779],
                [-0.078411, 0.930809, 0.147602],
                [0.004733, 0.691367, 0.303900],
            ],
        ]
    )
    rgb = np.array(
        [
            [int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)]
            for c in study_looks.RULE_COLOURS
        ]
    )
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.einsum("sij,cj->sci", sight, linear), 0, 1)
    xyz = (
        seen
        @ np.array(
            [
                [0.4124, 0.3576, 0.1805],
                [0.2126, 0.7152, 0.0722],
                [0.0193, 0.1192, 0.9505],
            ]
        ).T
    )
    f = np.where(
        (t := xyz / [0.9505, 1, 1.089]) > 216 / 24389,
        np.cbrt(t),
        (24389 / 27 * t + 16) / 116,
    )
    lab = np.stack(
        [116 * f[..., 1], 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])],
        axis=-1,
    )
    distances = np.linalg.norm(lab[:, :, None] - lab[:, None], axis=-1)
    assert len(rgb) == 8
    assert distances[:, *np.triu_indices(8, 1)].min() > 15


@every_study
def test_study_has_its_pictures_and_a_profile_from_three_workloads_on(drawn, name):
    wanted = ["ratios", "trials", "rates", "curves"] + ["profile"] * (
        len(STUDIES[name][0]["workloads"]) >= 3
    )
    assert list(drawn[name]) == wanted
    # The first picture also stands on narrow pages.
    widths = {k: picture.figure.get_figwidth() for k, picture in drawn[name].items()}
    assert widths == {**dict.fromkeys(wanted, 9.0), "ratios": 4.6}


@every_study
def test_ratios_are_where_the_numbers_say_the_best_on_top(drawn, name):
    numbers, picture = STUDIES[name][0], drawn[name]["ratios"]
    panel = picture.figure.axes[0]
    rows = sorted(numbers["overall"], key=lambda row: row["ratio"])
    assert [label.get_text() for label in panel.get_yticklabels()] == [
        row["rule"] for row in rows
    ]
    marks = lines(panel)
    heights = [xy(marks[row["rule"]])[1, 0] for row in rows]
    assert heights == sorted(heights)
    assert panel.get_ylim()[0] > panel.get_ylim()[1]  # So that the first row is on top.
    places = [xy(marks[row["rule"]])[0, 0] for row in rows]
    assert places == [row["ratio"] for row in rows]
    assert bars(panel) == sorted([row["low"], row["high"]] for row in rows)
    assert panel.get_xscale() == "log"
    assert any((xy(line)[0] == 1).all() for line in panel.lines)
    # A rule that misses the target has its place on the axis like any other.
    every = [row["ratio"] for row in (*numbers["overall"], *numbers["comparisons"])]
    assert panel.get_xlim()[0] < min(every)
    assert max(every) < panel.get_xlim()[1]


@every_study
def test_verdict_is_said_by_colour_by_filling_and_by_word(drawn, name):
    numbers, panel = STUDIES[name][0], drawn[name]["ratios"].figure.axes[0]
    marks = lines(panel)
    looks = {
        (row["verdict"], marks[row["rule"]].get_color()) for row in numbers["overall"]
    }
    assert (
        len(looks)
        == len({verdict for verdict, _ in looks})
        == len({colour for _, colour in looks})
    )
    shapes = {
        (
            row["verdict"],
            marks[row["rule"]].get_fillstyle(),
            str(marks[row["rule"]].get_markerfacecolor()) == "white",
        )
        for row in numbers["overall"]
    }
    assert (
        len(shapes)
        == len({shape[1:] for shape in shapes})
        == len({shape[0] for shape in shapes})
    )
    words = [
        text.get_text().split()[0] for text in panel.texts if text.get_ha() == "left"
    ]
    order = [label.get_text() for label in panel.get_yticklabels()]
    verdicts = {row["rule"]: row["verdict"] for row in numbers["overall"]}
    assert [word for word in words if word in studies.VERDICTS] == [
        verdicts[rule] for rule in order
    ]


@pytest.mark.on_ci(
    "a study of 30 rules; "
    "test_ratio_is_over_all_workloads_also_those_that_a_rule_misses has the marks of "
    "one rule"
)
def test_each_workload_has_its_mark_at_its_ratio(drawn):
    for name in ("5 x 2", "30 x 7"):
        marks = lines(drawn[name]["ratios"].figure.axes[0])
        for row in STUDIES[name][0]["comparisons"]:
            mark = marks[f"_{row['rule']} on {row['workload']}"]
            assert xy(mark)[0, 0] == row["ratio"]


def in_words(row, missed=""):
    return (
        f"{written(row['ratio'])} [{written(row['low'])}, "
        f"{written(row['high'])}]{missed}"
    )


@every_study
def test_caption_of_ratios_has_every_number(drawn, name):
    numbers, caption = STUDIES[name][0], drawn[name]["ratios"].caption
    on = len(numbers["workloads"])
    for row in numbers["overall"]:
        own = [cell for cell in numbers["cells"] if cell["rule"] == row["rule"]]
        count = sum(cell["reached"] < 0.5 for cell in own)
        missed = f", misses the target on {count} of {on}" if count else ""
        assert f"{row['rule']} {in_words(row, missed)}, {row['verdict']}" in caption
    assert "A run that misses the target counts as ten full trainings" in caption
    assert "intervals over searches and seeds" in caption


def test_interval_beyond_the_axis_ends_in_an_arrow_there():
    numbers, _ = make_study(3, 1)
    numbers["overall"][0] |= {
        "ratio": 0.8,
        "low": 1e-9,
        "high": 1e6,
        "verdict": "undecided",
    }
    picture = studies.ratios(numbers, study_looks.cast(numbers))
    panel = picture.figure.axes[0]
    left, right = panel.get_xlim()
    assert [left, right] in bars(panel)
    height = xy(lines(panel)["gradient_descent"])[1, 0]
    arrows = [
        (line.get_marker(), *xy(line)[:, 0])
        for line in panel.lines
        if line.get_label() == "_more"
    ]
    assert arrows == [("<", left, height), (">", right, height)]
    assert "gradient_descent 0.80 [1e-09, 1,000,000], undecided" in picture.caption


@every_study
def test_trials_are_the_expected_cost_of_every_rule(drawn, name):
    numbers, arrays = STUDIES[name]
    picture = drawn[name]["trials"]
    for panel, workload in zip(
        panels_of(picture.figure, len(numbers["workloads"])),
        numbers["workloads"],
        strict=True,
    ):
        assert panel.get_title(loc="left") == workload
        found = lines(panel)
        grey = [rule for rule in numbers["rules"] if f"_{rule}" in found]
        assert len(grey) == (
            len(numbers["rules"]) - 6 if len(numbers["rules"]) > 8 else 0
        )
        for rule in numbers["rules"]:
            cost = arrays[f"{workload}/{rule}/best_of"][:, 0]
            k, drawn_cost = xy(found[f"_{rule}" if rule in grey else rule])
            assert k.tolist() == list(range(1, 13))
            np.testing.assert_array_equal(drawn_cost, cost)
        assert all(rule in picture.caption for rule in grey)
    assert found[numbers["baseline"]].get_color() == study_looks.RULE_COLOURS[0]


def test_caption_of_trials_has_the_costs_and_what_a_miss_costs():
    numbers, arrays = make_study(2, 1)
    picture = studies.draw_study(numbers, arrays)["trials"]
    for rule in numbers["rules"]:
        first, *_, last = arrays[f"breast_cancer/{rule}/best_of"][:, 0]
        assert (
            f"{rule}: {written(first)} with its defaults, {written(last)} with 12 "
            "trials" in picture.caption
        )
    assert (
        "A run that misses the target counts as 10 full trainings (300 passes)."
        in picture.caption
    )


@pytest.mark.on_ci(
    "a study of 30 rules; "
    "test_reached_is_by_half_of_the_runs_and_who_misses_it_is_said has the words"
)
def test_what_never_reaches_the_target_is_said(drawn):
    for name, rule, on in (("5 x 2", "momentum", 2), ("30 x 7", "lion", 7)):
        row = next(row for row in STUDIES[name][0]["overall"] if row["rule"] == rule)
        words = in_words(row, f", misses the target on {on} of {on}")
        assert f"{rule} {words}, worse" in drawn[name]["ratios"].caption
    caption = drawn["5 x 2"]["curves"].caption
    assert caption.count("momentum: no run reaches it") == 2


def test_rule_that_alone_reaches_the_target_is_first_and_is_not_shown_as_missing_it():
    for workloads in (1, 3):
        numbers, _ = make_study(4, workloads, unreached=("adam", "nesterov"))
        who = study_looks.cast(numbers)
        picture = studies.ratios(numbers, who)
        panel = picture.figure.axes[0]
        assert set(who.order[:2]) == {"gradient_descent", "momentum"}
        rows = {row["rule"]: row for row in numbers["overall"]}
        texts = [text.get_text().replace(",\n", ", ") for text in panel.texts]
        for rule in who.order[:2]:
            mark = lines(panel)[rule]
            assert panel.get_xlim()[0] < xy(mark)[0, 0] < 1 / 1.5
            assert (mark.get_marker(), mark.get_color()) == (
                "D",
                studies.VERDICTS["better"][0],
            )
            assert f"better   {in_words(rows[rule])}" in texts
        # Neither nesterov nor the baseline, adam, reaches it: all their costs are ten
        # budgets, and their ratio is no measurement.
        assert not [name for name in lines(panel) if "nesterov" in name]
        words = "neither reached the target"
        assert f"undecided   {words}" in texts
        assert f"nesterov {words}, undecided" in picture.caption


def test_a_study_in_which_no_run_reaches_the_target_has_a_picture_without_ratios():
    for workloads in (1, 3):
        numbers, _ = make_study(3, workloads, unreached=NAMES[:3])
        picture = studies.ratios(numbers, study_looks.cast(numbers))
        panel = picture.figure.axes[0]
        assert not {"_interval", *NAMES} & set(lines(panel))
        texts = [text.get_text() for text in panel.texts]
        assert texts.count("undecided   neither reached the target") == 2


@pytest.mark.parametrize(
    ("missed", "on"),
    [
        ({"adam": [0, 1], "gradient_descent": [2]}, 1),
        ({"adam": [0, 1], "gradient_descent": [1, 2]}, 2),
        ({"adam": [0, 1, 2], "gradient_descent": []}, 0),
        ({"gradient_descent": [0, 1, 2]}, 3),
    ],
)
def test_reached_is_by_half_of_the_runs_and_who_misses_it_is_said(missed, on):
    numbers, _ = make_study(2, 3, unreached=missed)  # 9 of 20 runs reach the target.
    row = numbers["overall"][0]
    picture = studies.ratios(numbers, study_looks.cast(numbers))
    words = in_words(row, f", misses the target on {on} of 3" if on else "")
    assert f"gradient_descent {words}, {row['verdict']}." in picture.caption
    panel = picture.figure.axes[0]
    texts = [text.get_text().replace(",\n", ", ") for text in panel.texts]
    assert f"{row['verdict']}   {words}" in texts
    assert xy(lines(panel)["gradient_descent"])[0, 0] == row["ratio"]


def test_ratio_is_over_all_workloads_also_those_that_a_rule_misses():
    numbers, _ = make_study(2, 3, unreached={"gradient_descent": [1]})
    row, singles = numbers["overall"][0], numbers["comparisons"]
    marks = lines(studies.ratios(numbers, study_looks.cast(numbers)).figure.axes[0])
    places = {
        workload: xy(marks[f"_gradient_descent on {workload}"])[0, 0]
        for workload in numbers["workloads"]
    }
    assert places == {one["workload"]: one["ratio"] for one in singles}
    assert max(places, key=places.get) == "digits"
    mean = math.exp(np.log(list(places.values())).mean())
    assert xy(marks["gradient_descent"])[0, 0] == pytest.approx(mean, rel=1e-12)
    assert row["workloads"] == 3


@every_study
def test_rule_has_one_colour_in_all_pictures(drawn, name):
    numbers, colours = STUDIES[name][0], {}
    for kind in ("trials", "rates", "curves", "profile"):
        for panel in drawn[name][kind].figure.axes if kind in drawn[name] else []:
            for label, line in lines(panel).items():
                if label in numbers["rules"]:
                    colours.setdefault(label, set()).add(line.get_color())
    assert all(len(found) == 1 for found in colours.values())
    chosen = [
        next(iter(found)) for found in colours.values() if found != {study_looks.QUIET}
    ]
    assert len(set(chosen)) == len(chosen)


@every_study
def test_curves_are_order_statistics_over_searches_and_seeds(drawn, name):
    numbers, arrays = STUDIES[name]
    figure = drawn[name]["curves"].figure
    for panel, workload in zip(
        panels_of(figure, len(numbers["workloads"])), numbers["workloads"], strict=True
    ):
        found = lines(panel)
        assert (xy(found["_target"])[1] == TARGET).all()
        for rule in numbers["rules"]:
            ranked = np.sort(arrays[f"{workload}/{rule}/curves"], axis=0)
            line = found.get(rule) or found[f"_{rule}"]
            np.testing.assert_array_equal(
                xy(line), [arrays[f"{workload}/{rule}/passes"], ranked[19]]
            )  # Of 2 searches of 20 seeds, the twentieth.
    middle, low, high = study_curves.quantiles(ranked)
    np.testing.assert_array_equal([low, middle, high], ranked[[3, 19, 35]])


def test_curves_that_diverge_leave_a_gap_and_not_the_picture():
    numbers, arrays = make_study(2, 1)
    arrays["breast_cancer/adam/curves"] = arrays["breast_cancer/adam/curves"].copy()
    arrays["breast_cancer/adam/curves"][:24, 30:] = np.nan
    panel = study_curves.curves(numbers, arrays, study_looks.cast(numbers)).figure.axes[
        0
    ]
    assert np.isnan(xy(lines(panel)["adam"])[1]).tolist() == [False] * 30 + [True] * 31
    assert np.isfinite(panel.get_ylim()).all()


@every_study
def test_rates_show_every_trial_once_as_a_point_or_as_a_cross(drawn, name):
    numbers, arrays = STUDIES[name]
    pairs = list(itertools.product(numbers["workloads"], numbers["rules"]))
    found = []
    for panel in drawn[name]["rates"].figure.axes:
        points = [xy(line) for line in panel.lines if line.get_label() == "_trials"]
        crosses = [xy(line) for line in panel.lines if line.get_label() == "_diverged"]
        found += [
            (sorted(a.T.tolist()), b[0].tolist())
            for a, b in zip(points, crosses, strict=True)
        ]
        assert all((b[1] > 0.8).all() for b in crosses)
    wanted = []
    for workload, rule in pairs:
        # The trials of all searches, in one panel.
        rate = arrays[f"{workload}/{rule}/trials"][..., 0]
        logs = arrays[f"{workload}/{rule}/screening"]
        lost = (logs > np.log(9.999 * PASSES)).any(axis=2)
        mean = scipy.stats.gmean(np.exp(logs), axis=2)
        wanted.append(
            (sorted(zip(rate[~lost], mean[~lost], strict=True)), sorted(rate[lost]))
        )
        assert rate.size == SEARCHES * 12
    for points, crosses in found:
        assert any(
            np.shape(points) == np.shape(a)
            and np.allclose(points, a, rtol=1e-12)
            and crosses == b
            for a, b in wanted
        )
    panels_drawn = len(pairs) if len(pairs) <= 12 else 3 * len(numbers["workloads"])
    assert len(found) == panels_drawn


def test_grey_rules_alone_make_no_panel():
    numbers, arrays = make_study(3, 1)
    who = study_looks.cast(numbers)
    assert study_rates.rates(numbers, arrays, who) is not None
    grey = who._replace(shown=(), quiet=who.order)
    assert study_rates.rates(numbers, arrays, grey) is None


def robust(panel) -> list[list[float]]:
    return [
        xy(line)[0].tolist() for line in panel.lines if line.get_label() == "_robust"
    ]


def test_robust_bar_and_words_are_the_numbers_of_the_table():
    for count, seed in ((4, 0), (6, 1)):
        numbers, arrays = make_study(count, 1, seed=seed, unreached=("momentum",))
        picture = study_rates.rates(numbers, arrays, study_looks.cast(numbers))
        for panel in panels_of(picture.figure, count):
            rule = panel.get_title(loc="left")
            cell = next(cell for cell in numbers["cells"] if cell["rule"] == rule)
            swept = [
                arrays[f"breast_cancer/{rule}/{name}"]
                for name in ("rates", "rate_scores")
            ]
            line, drawn = lines(panel)[rule], robust(panel)
            means = scipy.stats.gmean(np.exp(swept[1]), axis=1)
            np.testing.assert_allclose(xy(line), [swept[0], means], rtol=1e-12)
            if rule == "momentum":  # Flat, but nowhere at the target.
                assert not drawn
                continue
            assert drawn[0] == [cell["robust_low"], cell["robust_high"]]
            least = "at least " if cell["robust_at_end"] else ""
            words = f"robust {least}{cell['robustness']:.2g} decades"
            assert (
                words
                in picture.caption.partition(f"{rule} ")[2].partition("crossed out")[0]
            )
    assert "target not reached" in picture.caption


def test_valley_has_the_trials_of_all_searches_with_their_ranges():
    numbers, arrays = make_study(2, 1)
    numbers["cells"][1] |= {
        "robustness": 2.5,
        "robust_low": 0.001,
        "robust_high": 0.3,
        "robust_at_end": True,
    }
    arrays["breast_cancer/adam/trials"] = np.array(
        [[[0.1, 0.9], [0.001, 0.9], [0.01, 0.9]], [[0.1, 0.8], [1.0, 0.9], [10.0, 0.9]]]
    )
    costs = np.array([[10.0, 10.9, 30.0], [40.0, 12.1, 300.0]])
    arrays["breast_cancer/adam/screening"] = np.log(
        costs[..., None] * np.array([0.5, 2.0, 1.0, 1.0])
    )
    # A run of the last trial makes no progress, so it has the largest possible score.
    arrays["breast_cancer/adam/screening"][1, 2] = np.log([150.0, 300.0, 200.0, 200.0])
    v = study_rates.valley(numbers, arrays, "breast_cancer", "adam")
    assert v.rates.tolist() == [0.001, 0.01, 0.1, 0.1, 1.0, 10.0]
    scores = [10.9, 30.0, 10.0, 40.0, 12.1, (150.0 * 300 * 200 * 200) ** 0.25]
    np.testing.assert_allclose(v.scores, scores, rtol=1e-12)
    np.testing.assert_allclose(v.low[:5], 0.5 * np.array(scores[:5]), rtol=1e-12)
    np.testing.assert_allclose(v.high[:5], 2 * np.array(scores[:5]), rtol=1e-12)
    assert v.rates[v.chosen] == 0.1
    assert v.scores[v.chosen] == v.scores.min()
    assert v.diverged.tolist() == [False] * 5 + [True]
    picture = study_rates.rates(numbers, arrays, study_looks.cast(numbers))
    assert list(v.near) in robust(picture.figure.axes[0])
    assert (
        "adam 10 at 0.1, robust at least 2.5 decades, 1 of 6 crossed out"
        in picture.caption
    )


@pytest.mark.parametrize("price", [10 * PASSES, 10 * (PASSES - 1)])
def test_runs_with_the_price_of_a_miss_are_crossed_out_in_studies_of_any_age(price):
    # A step of the rule costs 14.5 gradients, so a training has 29 of the 30 passes. A
    # miss costs ten full trainings, in older studies ten trainings of the rule.
    numbers, arrays = make_study(2, 1)
    numbers["cells"][1] |= {"evaluations": 14.5, "hyperparameters": ["learning_rate"]}
    arrays["breast_cancer/adam/passes"] = np.array([0.0, PASSES - 1])
    arrays["breast_cancer/adam/trials"] = np.array([[[0.1], [0.2], [0.3]]])
    costs = [[10.0, 11.0], [12.0, price], [price, price]]
    arrays["breast_cancer/adam/screening"] = np.log([costs])
    v = study_rates.valley(numbers, arrays, "breast_cancer", "adam")
    assert v.diverged.tolist() == [False, True, True]


def test_rate_of_a_rule_is_what_the_study_calls_so():
    numbers, arrays = make_study(2, 1)
    numbers["cells"][1] |= {
        "hyperparameters": ["momentum", "radius"],
        "rate_name": "radius",
    }
    assert study_rates.valley(numbers, arrays, "breast_cancer", "adam").rates[0] == min(
        arrays["breast_cancer/adam/trials"][..., 1].ravel()
    )
    assert "adam by its radius" in studies.draw_study(numbers, arrays)["rates"].caption


@pytest.mark.on_ci("a study of 30 rules; nothing shorter shows this")
def test_profile_is_that_of_the_arrays(drawn):
    numbers, arrays = STUDIES["30 x 7"]
    found = lines(drawn["30 x 7"]["profile"].figure.axes[0])
    for rule in numbers["rules"]:
        line = found.get(rule) or found[f"_{rule}"]
        np.testing.assert_array_equal(
            xy(line), [arrays["profile/factors"], arrays[f"profile/{rule}"]]
        )
        assert (
            line.get_drawstyle() == "steps-post"
        )  # The share is that at the factor, and holds until the next.


@pytest.mark.thorough(
    "a study that is drawn whole; make test says what is missed in "
    "test_reached_is_by_half_of_the_runs_and_who_misses_it_is_said"
)
@pytest.mark.parametrize(
    "unreached", [NAMES[:3], ("adam",), ("gradient_descent", "momentum")]
)
def test_study_with_unreached_rules_is_drawn_to_the_end(unreached):
    pictures = studies.draw_study(*make_study(3, 3, unreached=unreached))
    for name, picture in pictures.items():
        picture.figure.draw_without_rendering()
        assert picture.caption, name
    # Of the rules besides the baseline, adam.
    missed = [rule for rule in unreached if rule != "adam"]
    caption = pictures["ratios"].caption
    words = "neither reached the target"
    if "adam" not in unreached:
        words = "misses the target on 3 of 3"
    assert caption.count(words) == len(missed)
    if unreached == ("adam",):
        assert "gradient_descent 0." in caption
        assert caption.count(", better") == 2


@pytest.mark.on_ci("a study that is drawn whole; nothing shorter shows this")
def test_study_of_one_trial_and_without_learning_rates_has_all_else():
    pictures = studies.draw_study(*make_study(3, 1, trials=1, rates=False))
    assert list(pictures) == ["ratios", "trials", "curves"]
    for picture in pictures.values():
        picture.figure.draw_without_rendering()


def test_equals_are_ordered_by_what_they_reach_and_then_by_cost():
    cells = [
        ("a", 3.0),
        ("a", None),
        ("b", 9.0),
        ("b", 9.0),
        ("c", 2.0),
        ("c", 5.0),
        ("base", None),
        ("base", None),
    ]
    numbers = {
        "baseline": "base",
        "rules": ["a", "b", "c", "base"],
        "overall": [{"rule": r, "ratio": 0.0} for r in "abc"],
    }
    numbers["cells"] = [
        {"rule": rule, "cost": cost, "reached": 0.0 if cost is None else 1.0}
        for rule, cost in cells
    ]
    assert study_looks.cast(numbers).order == ("c", "b", "a", "base")


def test_spread_keeps_order_distance_and_the_page():
    draw = np.random.default_rng(1)
    for count in range(1, 9):
        for places in np.sort(
            draw.choice([0.0, 0.5, 0.52, 0.9, 1.0, *draw.random(4)], size=(30, count)),
            axis=1,
        ):
            moved = np.array(study_looks.spread(places.tolist(), 0.1))
            assert (np.diff(moved) > 0.1 - 1e-9).all()
            assert moved.min() >= 0
            assert moved.max() <= 1
    assert study_looks.spread([0.1, 0.5, 0.9], 0.1) == [0.1, 0.5, 0.9]


@pytest.mark.thorough(
    "four studies; test_spread_keeps_order_distance_and_the_page has what places names"
)
def test_no_name_lies_over_another_or_leaves_the_page(drawn):
    wide = studies.draw_study(*make_study(8, 4, unreached=("nesterov",)))
    numbers, _ = make_study(
        6, 3, unreached={"adam": [0, 1], "gradient_descent": [2], "momentum": [0, 1, 2]}
    )
    missing = studies.ratios(numbers, study_looks.cast(numbers))
    for picture in (
        missing,
        drawn["5 x 2"]["ratios"],
        drawn["12 x 1"]["curves"],
        wide["trials"],
        wide["profile"],
    ):
        picture.figure.draw_without_rendering()
        texts = [text for panel in picture.figure.axes for text in panel.texts]
        boxes = [text.get_window_extent() for text in texts]
        assert len(boxes) >= 5  # Of a ratio, the words of four rules and of the axis.
        assert all(
            picture.figure.bbox.x0 <= box.x0 and box.x1 <= picture.figure.bbox.x1
            for box in boxes
        )
        # Of two names, the one above may share its descenders' pixels with the one
        # below, no more.
        assert not [
            1
            for a, b in itertools.combinations(boxes, 2)
            if a.padded(-1).overlaps(b.padded(-1))
        ]


@pytest.mark.on_ci("a study that is drawn twice; nothing shorter shows this")
@pytest.mark.thorough("the other pictures", but="ratios")
@pytest.mark.parametrize("names", ["ratios", "trials rates curves"])
def test_same_arrays_give_the_same_bytes(tmp_path, names):
    made = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        pictures = studies.draw_study(*make_study(3, 1, unreached=("momentum",)))
        assert list(pictures) == ["ratios", "trials", "rates", "curves"]
        for name in names.split():
            figures.save(pictures[name], folder, name)
        made.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert made[0] == made[1]
    assert len(made[0]) == 2 * len(names.split())
