"""The pictures of a study, held against the arrays they are drawn from; studies are made up, of known shape."""

import itertools
import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from research import figures
from research.figures import studies, study_curves, study_looks, study_rates

PASSES, TARGET, SEEDS, TUNING_SEEDS = 30.0, 1e-2, 20, 3
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
    """A study as a run folder has it: valleys of cost over log learning rate, a cliff beyond, some never at the target."""
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
        "budget": trials, "passes": PASSES, "batch_size": 32, "seeds": list(range(SEEDS)), "tuning_seeds": [100, 101, 102],
        "tune_on": "train", "reported_on": "train", "target": TARGET, "level": 0.95, "width": 8,
    }  # fmt: skip
    numbers = {
        "study": 1,
        "protocol": protocol,
        "baseline": rules[min(1, num_rules - 1)],
        "rules": rules,
    }
    numbers |= {"workloads": workloads, "cells": [], "comparisons": [], "overall": []}
    arrays, costs = {}, {}
    speeds = np.exp(draw.normal(0, 0.5, num_rules))
    for (w, workload), (r, rule) in itertools.product(
        enumerate(workloads), enumerate(rules)
    ):
        never = not isinstance(unreached, dict) and rule in unreached
        cell = make_cell(
            draw,
            4.0 * speeds[r] * (1 + 0.4 * w) * np.exp(draw.normal(0, 0.2)),
            trials,
            r,
            never,
            rates,
        )
        arrays |= {f"{workload}/{rule}/{name}": a for name, a in cell.items()}
        reached = 0.0 if never else 0.95
        if isinstance(unreached, dict) and w in unreached.get(rule, ()):
            reached = 0.45  # Some runs do, but fewer than half: it has a cost, and counts as not reached.
        costs[w, r] = np.inf if never else cell["best_of"][-1, 0]
        names = (
            ["learning_rate", "momentum"][: cell["trials"].shape[1]]
            if rates
            else ["memory"]
        )
        numbers["cells"].append(
            {"workload": workload, "rule": rule, "n": 455, "hyperparameters": names, "trials": trials,
             "reached": reached, "cost": None if never else costs[w, r]}
            | robust_facts(cell, never)
        )  # fmt: skip
    table = np.array(
        [[costs[w, r] for r in range(num_rules)] for w in range(num_workloads)]
    )
    half = np.array([cell["reached"] >= 0.5 for cell in numbers["cells"]]).reshape(
        table.shape
    )
    compare(draw, numbers, np.where(half, table, np.inf))
    factors = np.geomspace(1, 20, 60)
    with np.errstate(invalid="ignore"):
        over = table / table.min(axis=1, keepdims=True)
    arrays["profile/factors"] = factors
    for r, rule in enumerate(rules):
        arrays[f"profile/{rule}"] = np.mean(over[:, r, None] <= factors, axis=0)
    return numbers, arrays


def make_cell(draw, base, trials, r, never, rates):
    """One rule on one workload: every second rule also has a momentum, which matters less than the rate."""
    rate = 10 ** draw.uniform(-4, 1, trials)
    rate[0] = 0.03
    momentum = draw.uniform(0.5, 0.99, trials)
    best = 10 ** (-1.5 + 0.3 * (r % 5 - 2))
    away = np.log10(rate / best)
    cost = base * (1 + 0.9 * away**2 + (r % 2) * 2 * (momentum - 0.9) ** 2)
    diverges = away > 1.2
    tuning = cost[:, None] * np.exp(draw.normal(0, 0.12, (trials, TUNING_SEEDS)))
    runs = cost[:, None] * np.exp(draw.normal(0, 0.12, (trials, SEEDS)))
    runs = np.where((runs > PASSES) | diverges[:, None] | never, np.inf, runs)
    tuning = np.where(
        diverges[:, None],
        10 * PASSES,
        np.minimum(tuning + (2 * PASSES if never else 0), 9 * PASSES),
    )
    final = np.where(
        diverges[:, None],
        np.nan,
        TARGET
        * 10
        ** (-PASSES / 10 / cost[:, None] + 0.1 * draw.normal(size=(trials, SEEDS))),
    )
    running = np.minimum.accumulate(
        np.where(
            np.isfinite(runs).any(axis=1),
            np.where(np.isfinite(runs), runs, PASSES).mean(axis=1),
            np.inf,
        )
    )
    passes = np.linspace(0, PASSES, 61)
    decay = -2 / (
        PASSES * 3 if never else cost[~diverges].min() if (~diverges).any() else base
    )
    noise = np.cumsum(0.06 * draw.normal(size=(SEEDS, 61)), axis=1) * (passes > 0)
    curves = 10 ** (np.maximum(decay * passes, -4.5) + noise)
    around = 2.0 ** np.arange(-4, 4.5, 0.5)
    sweep = rate[tuning.mean(axis=1).argmin()] * around
    level = cost.min() * (1 + 0.9 * np.log10(sweep / best) ** 2) + (
        2 * PASSES if never else 0
    )
    level = np.where(np.log10(sweep / best) > 1.2, 10 * PASSES, level)
    swept = np.minimum(
        level[:, None] * np.exp(draw.normal(0, 0.05, (17, TUNING_SEEDS))), 10 * PASSES
    )
    columns = [rate, momentum][: 1 + r % 2] if rates else [momentum]
    return {
        "trials": np.stack(columns, axis=1), "tuning": tuning, "costs": runs, "final": final, "passes": passes,
        "curves": curves, "rates": sweep, "rate_scores": swept,
        "best_of": np.stack([running, 0.9 * running, 1.15 * running], axis=1),
    }  # fmt: skip


def robust_facts(cell, never):
    """The good rates around the best, not interpolated: no number that a figure could find by itself."""
    good = (
        cell["rate_scores"].mean(axis=1) <= 1.1 * cell["rate_scores"].mean(axis=1).min()
    )
    low = high = int(cell["rate_scores"].mean(axis=1).argmin())
    while low > 0 and good[low - 1]:
        low -= 1
    while high < len(good) - 1 and good[high + 1]:
        high += 1
    if never:
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


def compare(draw, numbers, table):
    """Fills in comparisons and overall from a table of costs (workloads, rules)."""
    base = numbers["rules"].index(numbers["baseline"])
    for r, rule in enumerate(numbers["rules"]):
        if r == base:
            continue
        mine, other = np.isfinite(table[:, r]), np.isfinite(table[:, base])
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = table[:, r] / table[:, base]
            alone = np.unique(ratios[mine != other])
            mean = (
                np.exp(np.log(ratios[mine & other]).mean())
                if (mine & other).any()
                else np.nan
            )
        if len(alone) == 1 and not (mine & other).any():
            mean = alone[0]
        for name, ratio in [
            *zip(numbers["workloads"], ratios, strict=True),
            ("", mean),
        ]:
            width = np.exp(draw.uniform(0.08, 0.3) * (1.0 if name else 0.6))
            row = {
                "rule": rule,
                "baseline": numbers["baseline"],
                "ratio": ratio,
                "low": ratio / width,
                "high": ratio * width,
            }
            row["verdict"] = (
                "better"
                if row["high"] < 1
                else "worse"
                if row["low"] > 1
                else "undecided"
            )
            row |= {
                k: None if math.isnan(row[k]) else float(row[k])
                for k in ("ratio", "low", "high")
            }
            row |= {"low": 0.0, "high": math.inf} if row["ratio"] is None else {}
            row |= {"win": 0.5, "win_low": 0.4, "win_high": 0.6}
            rows = numbers["comparisons"] if name else numbers["overall"]
            rows.append(
                row
                | (
                    {"workload": name, "more_seeds": 10}
                    if name
                    else {"workloads": int((mine & other).sum())}
                )
            )


STUDIES = {
    "2 x 1": make_study(2, 1),
    "5 x 2": make_study(5, 2, unreached=("momentum",)),
    "12 x 1": make_study(12, 1, unreached=("lion",)),
    "30 x 7": make_study(30, 7, unreached=("lion", "yogi_2")),
}


@pytest.fixture(scope="module")
def drawn():
    return {name: studies.draw_study(*study) for name, study in STUDIES.items()}


every_study = pytest.mark.parametrize("name", STUDIES)


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
    # Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB; distances in CIELAB, where 2.3 is just noticed.
    sight = np.array([
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ])  # fmt: skip
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
    assert all(picture.figure.get_figwidth() == 9.0 for picture in drawn[name].values())


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
    reached = [row for row in rows if math.isfinite(row["ratio"])]
    assert [xy(marks[row["rule"]])[0, 0] for row in reached] == [
        row["ratio"] for row in reached
    ]
    assert bars(panel) == sorted([row["low"], row["high"]] for row in reached)
    assert panel.get_xscale() == "log"
    assert any((xy(line)[0] == 1).all() for line in panel.lines)
    for row in rows[
        len(reached) :
    ]:  # In the margin, right of everything that is finite.
        places = [
            row[k]
            for rows in (numbers["overall"], numbers["comparisons"])
            for row in rows
            for k in ("ratio", "high")
        ]
        assert (
            panel.get_xlim()[1]
            > xy(marks[row["rule"]])[0, 0]
            > max(p for p in places if math.isfinite(p))
        )


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
        if math.isfinite(row["ratio"])
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


def test_each_workload_has_its_mark_at_its_ratio(drawn):
    for name in ("5 x 2", "30 x 7"):
        marks = lines(drawn[name]["ratios"].figure.axes[0])
        for row in STUDIES[name][0]["comparisons"]:
            if math.isfinite(row["ratio"]):
                assert (
                    xy(marks[f"_{row['rule']} on {row['workload']}"])[0, 0]
                    == row["ratio"]
                )
    panel = drawn["30 x 7"]["ratios"].figure.axes[
        0
    ]  # In the margin they stand beside each other.
    apart = [
        xy(marks[f"_lion on {workload}"])[0, 0]
        for workload in STUDIES["30 x 7"][0]["workloads"]
    ]
    ratios = [
        row["ratio"]
        for row in STUDIES["30 x 7"][0]["comparisons"]
        if math.isfinite(row["ratio"])
    ]
    assert max(ratios) < apart[0]
    assert apart[-1] < panel.get_xlim()[1]
    assert np.diff(np.log(apart)).min() > 0.01


@every_study
def test_caption_of_ratios_has_every_number(drawn, name):
    caption = drawn[name]["ratios"].caption
    for row in STUDIES[name][0]["overall"]:
        if row["ratio"] == math.inf:
            assert row["rule"] in caption.partition("At the right: ")[2]
        else:
            assert (
                f"{row['rule']} {row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}], {row['verdict']}"
                in caption
            )


def test_interval_beyond_the_axis_ends_in_an_arrow_there():
    numbers, _ = make_study(3, 1)
    numbers["overall"][0] |= {
        "ratio": 0.8,
        "low": 0.0,
        "high": None,
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
    assert "gradient_descent 0.80 [0.00, ∞], undecided" in picture.caption


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
            np.testing.assert_array_equal(
                drawn_cost, np.where(np.isinf(cost), np.nan, cost)
            )
        assert all(rule in picture.caption for rule in grey)
    assert found[numbers["baseline"]].get_color() == study_looks.RULE_COLOURS[0]


def test_cost_in_the_caption_is_that_at_the_equal_budget():
    numbers, arrays = make_study(2, 1)
    numbers["protocol"] |= {"budget": 9}  # The others came with a wider space.
    for rule in numbers["rules"]:
        arrays[f"breast_cancer/{rule}/best_of"][9:] /= 2
    picture = studies.draw_study(numbers, arrays)["trials"]
    assert (xy(lines(picture.figure.axes[0])["_budget"])[0] == 9).all()
    for rule in numbers["rules"]:
        first, *_, last = arrays[f"breast_cancer/{rule}/best_of"][:9, 0]
        assert (
            f"{rule}: {first:.2f} with its defaults, {last:.2f} with 9 trials"
            in picture.caption
        )


def test_what_never_reaches_the_target_is_said(drawn):
    picture = drawn["5 x 2"]["trials"]
    assert (
        "this is always so for momentum on breast_cancer and momentum on digits"
        in picture.caption
    )
    texts = [text.get_text() for panel in picture.figure.axes for text in panel.texts]
    assert texts.count("momentum: not reached") == 2
    assert "lion (not reached on 7 of 7, worse)" in drawn["30 x 7"]["ratios"].caption


def test_rule_that_alone_reaches_the_target_is_first_and_is_not_shown_as_missing_it():
    for workloads, words in (
        (1, "alone reaches it"),
        (3, "alone reaches it on 3 of 3"),
    ):
        numbers, _ = make_study(4, workloads, unreached=("adam", "nesterov"))
        who = study_looks.cast(numbers)
        picture = studies.ratios(numbers, who)
        panel = picture.figure.axes[0]
        assert set(who.order[:2]) == {"gradient_descent", "momentum"}
        assert who.order[2:] == ("adam", "nesterov")
        for rule in who.order[:2]:
            mark = lines(panel)[rule]
            assert panel.get_xlim()[0] < xy(mark)[0, 0] < 1 / 1.5
            assert (mark.get_marker(), mark.get_color()) == (
                "D",
                studies.VERDICTS["better"][0],
            )
        assert "nesterov" not in lines(
            panel
        )  # Neither reaches it: there is no place for that on the axis.
        texts = [text.get_text() for text in panel.texts]
        assert texts.count(f"better   {words}") == 2
        assert texts.count("undecided   neither reaches it") == 1
        assert "alone reaches it" in texts  # Above the margin.
        assert "not reached" not in texts
        assert (
            f"At the left: {who.order[0]} ({words}, better) and {who.order[1]} ({words}, better)"
            in picture.caption
        )
        assert (
            "Without a ratio: nesterov (neither reaches it, undecided)"
            in picture.caption
        )


@pytest.mark.parametrize(
    ("missed", "words", "place"),
    [
        (
            {"adam": [0, 1], "gradient_descent": [2]},
            "each reaches it elsewhere",
            "Without a ratio",
        ),
        (
            {"adam": [0, 1], "gradient_descent": [1, 2]},
            "each reaches it elsewhere",
            "Without a ratio",
        ),
        (
            {"adam": [0, 1, 2], "gradient_descent": [1]},
            "alone reaches it on 2 of 3",
            "At the left",
        ),
        ({"gradient_descent": [0, 1, 2]}, "not reached on 3 of 3", "At the right"),
    ],
)
def test_reached_is_by_half_of_the_runs_and_who_reaches_it_is_said(
    missed, words, place
):
    numbers, _ = make_study(
        2, 3, unreached=missed
    )  # All have a cost: some of their runs reach the target.
    row = numbers["overall"][0]
    assert row["workloads"] == 0
    picture = studies.ratios(numbers, study_looks.cast(numbers))
    assert f"{place}: gradient_descent ({words}, {row['verdict']})." in picture.caption
    assert f"{row['verdict']}   {words}" in [
        text.get_text() for text in picture.figure.axes[0].texts
    ]
    assert ("gradient_descent" in lines(picture.figure.axes[0])) == (
        place != "Without a ratio"
    )


def test_one_alone_without_a_verdict_is_in_no_margin():
    numbers, _ = make_study(
        2, 3, unreached={"adam": [0, 1, 2], "gradient_descent": [1]}
    )
    numbers["overall"][0] |= {
        "ratio": None,
        "low": 0.0,
        "high": math.inf,
        "verdict": "undecided",
    }
    picture = studies.ratios(numbers, study_looks.cast(numbers))
    assert (
        "Without a ratio: gradient_descent (alone reaches it on 2 of 3, undecided)."
        in picture.caption
    )
    assert "gradient_descent" not in lines(picture.figure.axes[0])


def test_ratio_of_fewer_workloads_says_of_how_many():
    numbers, _ = make_study(2, 3, unreached={"gradient_descent": [1]})
    row = numbers["overall"][0]
    picture = studies.ratios(numbers, study_looks.cast(numbers))
    assert row["workloads"] == 2
    words = f"{row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}] on 2 of 3"
    assert f"{row['verdict']}   {words}" in [
        text.get_text() for text in picture.figure.axes[0].texts
    ]
    assert f"gradient_descent {words}, {row['verdict']}" in picture.caption
    marks = lines(picture.figure.axes[0])
    assert (
        xy(marks["_gradient_descent on digits"])[0, 0]
        > xy(marks["_gradient_descent on ridge"])[0, 0]
    )


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
def test_curves_are_order_statistics_over_the_reporting_seeds(drawn, name):
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
                xy(line), [arrays[f"{workload}/{rule}/passes"], ranked[9]]
            )  # Of 20, the tenth.
    middle, low, high = study_curves.quantiles(ranked)
    np.testing.assert_array_equal([low, middle, high], ranked[[1, 9, 17]])


def test_curves_that_diverge_leave_a_gap_and_not_the_picture():
    numbers, arrays = make_study(2, 1)
    arrays["breast_cancer/adam/curves"] = arrays["breast_cancer/adam/curves"].copy()
    arrays["breast_cancer/adam/curves"][:12, 30:] = np.nan
    panel = study_curves.curves(numbers, arrays, study_looks.cast(numbers)).figure.axes[
        0
    ]
    assert np.isnan(xy(lines(panel)["adam"])[1]).tolist() == [False] * 30 + [True] * 31
    assert np.isfinite(panel.get_ylim()).all()


def test_valley_is_the_highest_below_all_scores():
    for scores in np.random.default_rng(0).exponential(size=(50, 9)):
        floor, best = study_rates.floor_of(scores), int(np.argmin(scores))
        steps = np.where(np.arange(8) < best, 1, -1)
        assert (floor <= scores).all()
        assert (steps * np.diff(floor) <= 0).all()
        for k in range(
            9
        ):  # Nowhere can it be raised: it would no longer be a valley, or no longer below.
            higher = floor + 1e-9 * (np.arange(9) == k)
            assert (steps * np.diff(higher) > 0).any() or (higher > scores).any()


@every_study
def test_rates_show_every_trial_once_as_a_point_or_as_a_cross(drawn, name):
    numbers, arrays = STUDIES[name]
    pairs = list(itertools.product(numbers["workloads"], numbers["rules"]))
    found = []
    for panel in drawn[name]["rates"].figure.axes:
        points = [xy(line) for line in panel.lines if line.get_label() == "_trials"]
        crosses = [xy(line) for line in panel.lines if line.get_label() == "_diverged"]
        found += [
            (a.T.tolist(), b[0].tolist()) for a, b in zip(points, crosses, strict=True)
        ]
        assert all((b[1] > 0.8).all() for b in crosses)
    wanted = []
    for workload, rule in pairs:
        rate = arrays[f"{workload}/{rule}/trials"][:, 0]
        lost = np.isnan(arrays[f"{workload}/{rule}/final"]).any(axis=1)
        mean = arrays[f"{workload}/{rule}/tuning"].mean(axis=1)
        points = sorted(
            map(list, zip(rate[~lost].tolist(), mean[~lost].tolist(), strict=True))
        )
        wanted.append((points, sorted(rate[lost].tolist())))
    assert all(each in wanted for each in found)
    panels_drawn = len(pairs) if len(pairs) <= 12 else 3 * len(numbers["workloads"])
    assert len(found) == panels_drawn


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
            np.testing.assert_array_equal(xy(line), [swept[0], swept[1].mean(axis=1)])
            if rule == "momentum":  # Flat, but nowhere at the target.
                assert not drawn
                continue
            assert drawn[0] == [cell["robust_low"], cell["robust_high"]]
            words = f"robust {'at least ' if cell['robust_at_end'] else ''}{cell['robustness']:.2g} decades"
            assert (
                words
                in picture.caption.partition(f"{rule} ")[2].partition("crossed out")[0]
            )
    assert "target not reached" in picture.caption


def test_rates_without_a_sweep_take_the_valley_below_the_trials():
    numbers, arrays = make_study(2, 1)
    numbers["cells"][1] |= {
        "robustness": 2.5,
        "robust_low": 0.001,
        "robust_high": 0.3,
        "robust_at_end": True,
    }
    for name in ("rates", "rate_scores"):
        del arrays[f"breast_cancer/adam/{name}"]
    arrays["breast_cancer/adam/trials"] = np.array(
        [[0.1, 0.9], [0.001, 0.9], [0.01, 0.9], [1.0, 0.9], [10.0, 0.9]]
    )
    scores = np.array([10.0, 10.9, 30.0, 12.1, 300.0])
    arrays["breast_cancer/adam/tuning"] = scores[:, None] * np.ones(3)
    arrays["breast_cancer/adam/final"] = np.where(scores == 300, np.inf, 1e-3)[
        :, None
    ] * np.ones(20)
    v = study_rates.valley(numbers, arrays, "breast_cancer", "adam")
    assert v.line.tolist() == [10.9, 10.9, 10.0, 12.1, 300.0]
    assert v.rates[v.chosen] == 0.1
    assert v.diverged.tolist() == [False] * 4 + [True]
    picture = study_rates.rates(numbers, arrays, study_looks.cast(numbers))
    assert list(v.near) in robust(picture.figure.axes[0])
    assert (
        "adam 10 at 0.1, robust at least 2.5 decades, 1 of 5 crossed out"
        in picture.caption
    )


def test_rate_of_a_rule_is_what_the_study_calls_so():
    numbers, arrays = make_study(2, 1)
    numbers["cells"][1] |= {
        "hyperparameters": ["momentum", "radius"],
        "rate_name": "radius",
    }
    assert study_rates.valley(numbers, arrays, "breast_cancer", "adam").rates[0] == min(
        arrays["breast_cancer/adam/trials"][:, 1]
    )
    assert "adam by its radius" in studies.draw_study(numbers, arrays)["rates"].caption


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


@pytest.mark.thorough("the other studies", but="unreached1")
@pytest.mark.parametrize(
    "unreached", [NAMES[:3], ("adam",), ("gradient_descent", "momentum")]
)
def test_study_with_unreached_rules_is_drawn_to_the_end(unreached):
    pictures = studies.draw_study(*make_study(3, 3, unreached=unreached))
    for name, picture in pictures.items():
        picture.figure.draw_without_rendering()
        assert picture.caption, name
    texts = [
        text.get_text()
        for panel in pictures["trials"].figure.axes
        for text in panel.texts
    ]
    assert texts.count("no rule reaches the target") == (
        3 if unreached == NAMES[:3] else 0
    )
    if unreached == ("adam",):
        assert (
            "gradient_descent (alone reaches it on 3 of 3, better)"
            in pictures["ratios"].caption
        )


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


def test_no_name_lies_over_another_or_leaves_the_page(drawn):
    wide = studies.draw_study(*make_study(8, 4, unreached=("nesterov",)))
    numbers, _ = make_study(
        5, 3, unreached={"adam": [0, 1], "gradient_descent": [2], "momentum": [0, 1, 2]}
    )
    margins = studies.ratios(numbers, study_looks.cast(numbers))
    for picture in (
        margins,
        drawn["5 x 2"]["ratios"],
        drawn["12 x 1"]["curves"],
        wide["trials"],
        wide["profile"],
    ):
        picture.figure.draw_without_rendering()
        texts = [text for panel in picture.figure.axes for text in panel.texts]
        boxes = [text.get_window_extent() for text in texts]
        assert len(boxes) >= 6
        assert all(
            picture.figure.bbox.x0 <= box.x0 and box.x1 <= picture.figure.bbox.x1
            for box in boxes
        )
        # Of two names, the one above may share its descenders' pixels with the one below, no more.
        assert not [
            1
            for a, b in itertools.combinations(boxes, 2)
            if a.padded(-1).overlaps(b.padded(-1))
        ]


def test_same_arrays_give_the_same_bytes(tmp_path):
    made = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        for name, picture in studies.draw_study(
            *make_study(3, 1, unreached=("momentum",))
        ).items():
            figures.save(picture, folder, name)
        made.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert made[0] == made[1]
    assert len(made[0]) == 8
