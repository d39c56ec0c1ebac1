"""Laws of the leaderboard: only rules that were asked the same share a place, and a
page shows what strangers wrote as text.
"""

import base64
import hashlib
import html.parser
import math
import re
import shutil

import numpy as np
import pytest
import scipy.stats

from research import comparison, files, leaderboard, runs
from research.cli import commands
from research.comparison.archive import SavedStudy, read_study
from research.leaderboard.gathering import Gathered, gather
from research.leaderboard.rankings import answer, costs, leaders, merge
from research.runs import archive
from research.types import Saved

COMPILE_QUICKLY = True  # tests/conftest.py
pytestmark = pytest.mark.usefixtures("asked_once")

NASTY = (
    "<script>document.title = 'owned'</script>&amp;\"'</td><img src=x onerror=alert(1)>"
    " {{ 7 * 7 }} </style>"
)
PROTOCOL = {
    **{
        "searches": 5,
        "budget": 12,
        "passes": 30,
        "batch_size": 32,
        "seeds": list(range(20)),
        "tuning_seeds": list(range(1000, 1010)),
    },
    **{
        "tune_on": "train",
        "reported_on": "train",
        "target": 0.01,
        "level": 0.95,
        "width": 8,
    },
}
COSTS = {
    ("adam", "digits"): (3.0, 2.5, 3.5),
    ("mine", "digits"): (2.0, 1.5, 2.4),
    ("adam", "wine"): (5.0, 4.5, 5.5),
    ("mine", "wine"): (4.8, 4.0, 5.6),
}


def numbers_of(
    costs=None, baseline="adam", n=100, sources=None, verdict=None, **protocol
):
    """The numbers of a study with these (cost, low, high) in passes for each (rule,
    workload).
    """
    costs = COSTS if costs is None else costs
    known = {key: value[0] for key, value in costs.items()}
    cells = [
        {
            **{
                "workload": workload,
                "rule": rule,
                "n": n,
                "trials": 12,
                "seconds": cost and cost / 1000,
            },
            **{
                "cost": cost,
                "cost_low": low,
                "cost_high": high,
                "example_gradients": cost and cost * n,
            },
            **{
                "reached": 0.95,
                "final": 1e-3,
                "final_low": 5e-4,
                "final_high": 2e-3,
                "diverged": 0.25,
            },
        }
        for (rule, workload), (cost, low, high) in costs.items()
    ]
    comparisons = []
    for (rule, workload), cost in known.items():
        if rule == baseline:
            continue
        other = costs.get((baseline, workload))
        said = verdict or verdict_of(costs[rule, workload], other)
        three = ratios(cost, known.get((baseline, workload)), said)
        comparisons.append(
            {"workload": workload, "rule": rule, "baseline": baseline}
            | {"detectable": 1.3, "verdict": said}
            | dict(zip(("ratio", "low", "high"), three, strict=True))
        )
    return {
        "study": 2,
        "protocol": PROTOCOL | protocol,
        "baseline": baseline,
        "sources": sources
        or {rule: hashlib.sha256(rule.encode()).hexdigest() for rule, _ in costs},
        "cells": cells,
        "comparisons": comparisons,
    }


def verdict_of(mine, other):
    """By the intervals of two costs, where both are known."""
    if other is None or mine[0] == other[0]:
        return "undecided"
    (_, low, high), (_, other_low, other_high) = (
        [math.inf if v is None else v for v in cost] for cost in (mine, other)
    )
    return (
        "better" if high < other_low else "worse" if low > other_high else "undecided"
    )


def ratios(cost, other, verdict):
    """A ratio of costs, with an interval that fits the verdict."""
    if cost is None or other is None:
        return None, None, None
    ratio = cost / other
    low, high = 0.9 * ratio, 1.1 * ratio
    if verdict == "undecided":
        return ratio, min(low, 0.9), max(high, 1.1)
    return ratio, low, high


def study(folder, numbers=None, seed=0, **environment):
    """The run folder of a synthetic study, made on a machine of which this is known."""
    numbers = numbers_of() if numbers is None else numbers
    run = runs.open_run(
        "compare", {"seed": seed, "rules": ["mine", "adam"]}, folder, width=8
    )
    path = runs.finish(
        run,
        runs.Result("It depends.", (), {"curves": np.ones(3)}, numbers),
        seconds=1.5,
    ).path
    manifest = runs.read_manifest(path)
    (path / "manifest.json").write_bytes(
        files.json_bytes(
            manifest | {"environment": manifest["environment"] | environment}
        )
    )
    return path


def headline(*paths):
    return answer(merge(gather(paths)))[0]


class Page(html.parser.HTMLParser):
    """The tables of a page, by title: rows of (text, exact value, whether it is
    missing); and all elements.
    """

    def __init__(self, text):
        super().__init__()
        self.tables, self.elements, self.inside, self.cell = {}, [], [], None
        self.feed(text)
        assert not self.inside

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag not in ("meta", "link", "img", "wbr"):
            self.inside.append(tag)
        if tag == "h2":
            self.title = ""
        if tag == "tr":
            self.tables.setdefault(self.title, []).append([])
        if tag in ("td", "th"):
            self.cell = [
                "",
                attributes.get("data-value"),
                "missing" in attributes.get("class", ""),
            ]

    def handle_endtag(self, tag):
        assert self.inside.pop() == tag
        if tag in ("td", "th"):
            self.tables[self.title][-1].append(tuple(self.cell))
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell[0] += data
        elif self.inside and self.inside[-1] == "h2":
            self.title += data

    def rows(self, title):
        heading, *rows = self.tables[title]
        return [
            dict(zip([text for text, _, _ in heading], row, strict=True))
            for row in rows
        ]


def page_of(tmp_path, *paths, **how):
    leaderboard.write_leaderboard(paths, tmp_path / "page.html", **how)
    return Page((tmp_path / "page.html").read_text("utf-8"))


def all_rows(page):
    return page.rows("Every rule on every workload")


def test_one_sentence_says_how_many_and_who_leads_where(tmp_path):
    told = headline(study(tmp_path))
    assert (
        told
        == "1 study, 2 rules, 2 workloads: mine has the lowest cost in 2 of 2 rankings;"
        " in 1 of them its interval lies below all others."
    )


@pytest.mark.on_ci(
    "four studies; test_leader_is_told_with_how_sure_it_is and "
    "test_rule_that_mostly_fails_has_no_place have first, shared and no places"
)
def test_places_are_those_of_an_independent_ranking(tmp_path):
    generator = np.random.default_rng(0)
    found = []
    for seed in range(4):
        costs = {}
        for rule in "abc":
            for workload in ("digits", "wine"):
                cost = float(generator.integers(1, 6))
                costs[f"{rule}{seed}", workload] = (
                    (cost, cost, cost)
                    if generator.random() < 0.8
                    else (None, None, None)
                )
        found.append(
            study(
                tmp_path, numbers_of(costs, "a0", target=(0.01, 0.001)[seed % 2]), seed
            )
        )
    rows = all_rows(page_of(tmp_path, *found))
    assert len(rows) == 24
    for workload in ("digits", "wine"):
        for protocol in ("1", "2"):
            here = [
                r
                for r in rows
                if (r["workload"][0], r["protocol"][0]) == (workload, protocol)
            ]
            costs = [float(r["example gradients"][1] or math.inf) for r in here]
            expected = scipy.stats.rankdata(costs, method="min")
            places = [math.inf if r["place"][2] else float(r["place"][1]) for r in here]
            assert places == [
                p if cost < math.inf else math.inf
                for p, cost in zip(expected, costs, strict=True)
            ]
            assert costs == sorted(costs)
            assert {r["place"][0] for r in here} <= {
                "none",
                *(f"{p} of {len(here)}" for p in range(1, 7)),
            }


@pytest.mark.thorough("the other changes", but="change4")
@pytest.mark.parametrize(
    "change",
    [
        {"searches": 6},
        {"budget": 13},
        {"passes": 31},
        {"batch_size": None},
        {"target": 0.1},
        {"tune_on": "validation"},
    ],
)
def test_another_protocol_shares_no_ranking(tmp_path, change):
    first = study(tmp_path, numbers_of({("adam", "digits"): (3.0, 2.0, 4.0)}), 1)
    other = study(
        tmp_path, numbers_of({("mine", "digits"): (2.0, 1.0, 3.0)}, **change), 2
    )
    assert headline(first, other).endswith(
        "no two rules share a workload and a protocol, so there is no ranking."
    )
    assert [row["place"] for row in all_rows(page_of(tmp_path, first, other))] == 2 * [
        ("alone", None, True)
    ]
    same = study(
        tmp_path,
        numbers_of({("mine", "digits"): (2.0, 1.0, 3.0)}, seeds=[7, 8], level=0.9),
        3,
    )
    assert "mine has the lowest cost in 1 of 1 ranking" in headline(first, same)


def test_another_number_of_examples_is_another_workload(tmp_path):
    found = [
        study(tmp_path, numbers_of({("adam", "digits"): (3.0, 2.0, 4.0)}, n=100), 1),
        study(tmp_path, numbers_of({("mine", "digits"): (2.0, 1.0, 3.0)}, n=1000), 2),
    ]
    assert headline(*found).startswith(
        "2 studies, 2 rules, 2 workloads: no two rules share"
    )
    assert {row["workload"][0] for row in all_rows(page_of(tmp_path, *found))} == {
        "digits · 100 examples",
        "digits · 1,000 examples",
    }


@pytest.mark.parametrize(
    ("costs", "told"),
    [
        (
            [(3.0, 2.5, 3.5), (2.0, 1.0, 2.5)],
            "mine has the lowest cost in 1 of 1 ranking; in none of them its",
        ),
        (
            [(3.0, 2.5, 3.5), (2.0, 1.0, 2.4)],
            "mine has the lowest cost in 1 of 1 ranking; in 1 of them its",
        ),
        ([(3.0, 2.5, 3.5), (2.0, 1.0, None)], "in none of them"),
        (
            [(None, None, None), (2.0, 1.0, 9.0)],
            "mine has the lowest cost in 1 of 1 ranking; in 1 of them",
        ),
        (
            [(2.0, 2.0, 2.0), (2.0, 2.0, 2.0)],
            "adam and mine each have the lowest cost in 1 of 1 ranking.",
        ),
        (
            [(None, None, None), (None, None, None)],
            "no rule reaches the target in any of 1 ranking.",
        ),
    ],
)
def test_leader_is_told_with_how_sure_it_is(tmp_path, costs, told):
    names = (("adam", "digits"), ("mine", "digits"))
    assert told in headline(
        study(tmp_path, numbers_of(dict(zip(names, costs, strict=True))))
    )


def test_leader_is_sure_only_by_all_studies_that_have_it(tmp_path):
    lucky = {("adam", "digits"): (3.0, 2.5, 3.5), ("mine", "digits"): (2.0, 1.9, 2.1)}
    unlucky = {("mine", "digits"): (2.9, 2.6, 3.3)}
    first, second = (
        study(tmp_path, numbers_of(lucky), 1),
        study(tmp_path, numbers_of(unlucky, "mine"), 2),
    )
    assert leaders(merge(gather([first])).all[0]) == ({"mine"}, True)
    assert leaders(merge(gather([first, second])).all[0]) == ({"mine"}, False)


def test_leader_is_not_sure_where_its_own_study_left_it_undecided(tmp_path):
    apart = {("adam", "digits"): (3.0, 2.5, 3.5), ("mine", "digits"): (2.0, 1.9, 2.1)}
    for number, (baseline, sure) in enumerate((("adam", "better"), ("mine", "worse"))):
        undecided = study(
            tmp_path, numbers_of(apart, baseline, verdict="undecided"), 2 * number
        )
        decided = study(
            tmp_path, numbers_of(apart, baseline, verdict=sure), 2 * number + 1
        )
        assert leaders(merge(gather([undecided])).all[0]) == ({"mine"}, False)
        assert leaders(merge(gather([decided])).all[0]) == ({"mine"}, True)


def test_same_study_counts_once_and_that_is_said(tmp_path):
    first = study(tmp_path / "results")
    packed = archive.pack(first, tmp_path / "copy.zip")
    rankings = merge(gather([first, packed, tmp_path / "results/compare"]))
    assert len(rankings.gathered.studies) == 1
    assert rankings.gathered.repeated == ("copy.zip", first.name)
    assert headline(first, packed) == headline(first)
    assert (
        f"A copy of a study counts once: copy.zip, {first.name}." in answer(rankings)[1]
    )


def test_same_config_with_other_numbers_is_another_study(tmp_path):
    other = {key: tuple(2 * value for value in cost) for key, cost in COSTS.items()}
    found = [study(tmp_path / "here"), study(tmp_path / "there", numbers_of(other))]
    assert found[0].name == found[1].name
    assert headline(*found).startswith(
        "2 studies, 2 rules, 2 workloads: mine has the lowest cost in 2 of 2"
    )


@pytest.mark.on_ci(
    "two known sources; "
    "test_same_name_of_unknown_source_is_another_rule_in_each_study has unknown ones"
)
def test_same_name_with_other_source_is_shown_as_two_rules(tmp_path):
    sources = {"adam": 64 * "a", "mine": 64 * "b"}
    first = study(tmp_path, numbers_of(sources=sources), 1)
    other = study(tmp_path, numbers_of(sources=sources | {"mine": 64 * "c"}), 2)
    rules = {row["rule"][0] for row in all_rows(page_of(tmp_path, first, other))}
    assert rules == {"adam", "mine · code bbbbbbbb", "mine · code cccccccc"}
    told = answer(merge(gather([first, other])))
    assert told[0].startswith(
        "2 studies, 3 rules, 2 workloads: mine · code bbbbbbbb and mine · code cccccccc"
        " each have"
    )
    assert "or if the source is unknown: mine." in told[1]
    again = study(tmp_path, numbers_of(sources=sources), 3)
    assert {row["rule"][0] for row in all_rows(page_of(tmp_path, first, again))} == {
        "adam",
        "mine",
    }


def test_same_name_of_unknown_source_is_another_rule_in_each_study(tmp_path):
    # The same code of the project ran, which says nothing of the rules that were
    # brought.
    unknown = {"adam": 64 * "a", "mine": None}
    found = [
        study(tmp_path, numbers_of(sources=unknown), seed, code=64 * "e")
        for seed in (0, 1)
    ]
    names = {f"mine · study {path.name[:8]}" for path in found}
    assert len(names) == 2
    assert {row["rule"][0] for row in all_rows(page_of(tmp_path, *found))} == {
        "adam",
        *names,
    }


@pytest.mark.on_ci("other spaces and costs of a step; nothing shorter shows this")
def test_another_space_or_another_cost_of_a_step_is_another_rule(tmp_path):
    spaces = [
        numbers_of() | {"spaces": {"mine": {"learning_rate": [0.1, high, "log", None]}}}
        for high in (1.0, 2.0)
    ]
    found = [study(tmp_path, numbers, 5 + seed) for seed, numbers in enumerate(spaces)]
    rules = sorted({row["rule"][0] for row in all_rows(page_of(tmp_path, *found))})
    assert rules[0] == "adam"
    assert len(rules) == 3
    assert all(re.fullmatch(r"mine · space [0-9a-f]{8}", rule) for rule in rules[1:])
    counted = []
    for evaluations in (1.0, 2.0):
        numbers = numbers_of()
        for cell in numbers["cells"]:
            cell["evaluations"] = evaluations if cell["rule"] == "mine" else 1.0
        counted.append(study(tmp_path, numbers, 7 + int(evaluations)))
    rules = {row["rule"][0] for row in all_rows(page_of(tmp_path, *counted))}
    assert len(rules) == 3
    assert "adam" in rules


@pytest.mark.on_ci(
    "other optima; test_another_number_of_examples_is_another_workload has another "
    "number of examples"
)
def test_another_optimum_is_another_workload(tmp_path):
    def found(optimum, seed):
        numbers = numbers_of(
            {
                ("adam", "digits"): (3.0, 2.5, 3.5),
                (f"mine{seed}", "digits"): (2.0, 1.5, 2.4),
            }
        )
        for cell in numbers["cells"]:
            cell["optimum"] = optimum
        return study(tmp_path, numbers, seed)

    one, same, other, unknown = (
        found(value, seed) for seed, value in enumerate((0.5, 0.5 + 1e-12, 0.51, None))
    )
    assert headline(one, same).startswith(
        "2 studies, 3 rules, 1 workload: mine0 and mine1 each have the lowest cost in 1"
        " of 1"
    )
    assert {
        row["workload"][0]
        for row in all_rows(page_of(tmp_path, one, same, other, unknown))
    } == {
        "digits · f* 0.5",
        "digits · f* 0.51",
        "digits · f* unknown",
    }


@pytest.mark.thorough(
    "eleven studies; test_rule_that_mostly_fails_has_no_place has a median of three"
)
def test_rule_submitted_ten_times_gets_the_median_and_one_place(tmp_path):
    # Of ten entries of equals, the best would beat one entry of the other rule in
    # nearly all cases; the median does not.
    generator = np.random.default_rng(0)
    drawn = generator.normal(3.0, 0.3, 10)
    found = [study(tmp_path, numbers_of({("adam", "digits"): (2.9, 2.4, 3.4)}), 100)]
    for seed, cost in enumerate(drawn):
        found.append(
            study(
                tmp_path,
                numbers_of(
                    {("mine", "digits"): (cost, cost - 0.5, cost + 0.5)}, "mine"
                ),
                seed,
            )
        )
    assert min(drawn) < 2.9 < np.median(drawn)
    rankings = merge(gather(found))
    assert costs(rankings.all[0]) == {
        "adam": pytest.approx(290.0),
        "mine": pytest.approx(100 * np.median(drawn)),
    }
    assert leaders(rankings.all[0]) == ({"adam"}, False)
    assert (
        "If a rule is in several studies, its cost is the median."
        in answer(rankings)[1]
    )
    rows = all_rows(page_of(tmp_path, *found))
    assert [row["place"][0] for row in rows] == ["1 of 2", *10 * ["2 of 2"]]
    assert [row["rule"][0] for row in rows] == ["adam", *10 * ["mine"]]
    assert "median" not in answer(merge(gather(found[:2])))[1]


def test_rule_that_mostly_fails_has_no_place(tmp_path):
    lucky, never = (
        {("mine", "digits"): (1.0, 1.0, 1.0)},
        {("mine", "digits"): (None, None, None)},
    )
    found = [study(tmp_path, numbers_of({("adam", "digits"): (3.0, 2.5, 3.5)}), 0)]
    found += [
        study(tmp_path, numbers_of(each, "mine"), seed)
        for seed, each in enumerate((lucky, never, never), 1)
    ]
    assert headline(*found).startswith(
        "4 studies, 2 rules, 1 workload: adam has the lowest cost in 1 of 1 ranking"
    )
    assert [row["place"][0] for row in all_rows(page_of(tmp_path, *found))] == [
        "1 of 2",
        "none",
        "none",
        "none",
    ]


def test_page_shows_every_cell_with_its_exact_value(tmp_path):
    numbers = numbers_of(
        {("adam", "digits"): (3.0, 2.5, None), ("mine", "digits"): (None, None, None)}
    )
    numbers["comparisons"][0] |= {
        "verdict": "worse",
        "ratio": math.inf,
        "low": 2.0,
        "high": math.inf,
    }
    versions = {"jax": "0.9.9", "optax": "0.2.9", "descent-jax": "0.1.0"}
    path = study(
        tmp_path,
        numbers,
        versions=versions,
        python="3.12.1",
        processor={"model": "Abacus 9", "cores": 3},
        git={"commit": 40 * "d", "dirty": True},
    )
    adam, mine = all_rows(page_of(tmp_path, path))
    assert adam == {
        "rule": ("adam", None, False),
        "workload": ("digits", None, False),
        "protocol": ("1", None, False),
        "place": ("1 of 2", "1", False),
        "example gradients": ("300 [250, ∞]", "300.0", False),
        "ratio to baseline": ("1", "1.0", False),
        "verdict": ("the baseline", None, False),
        "reached": ("95 %", "0.95", False),
        "final gap": ("0.001 [5.00×10⁻⁴, 0.002]", "0.001", False),
        "trials": ("12", "12", False),
        "seconds": ("0.003", "0.003", False),
        "diverged": ("25 %", "0.25", False),
        "processor": ("Abacus 9", None, False),
        "versions": (
            "python 3.12.1, jax 0.9.9, optax 0.2.9, descent-jax 0.1.0",
            None,
            False,
        ),
        "source code": ("dddddddddd, with changed files", None, False),
        "study": (path.name, None, False),
    }
    names = (
        "place",
        "example gradients",
        "ratio to baseline",
        "verdict",
        "seconds",
    )
    assert [mine[name] for name in names] == [
        ("none", None, True),
        ("not reached", None, True),
        ("∞ [2, ∞]", "Infinity", False),
        ("worse than adam", None, False),
        ("not reached", None, True),
    ]


@pytest.mark.thorough("studies that say nothing of it", but="1.2345")
@pytest.mark.parametrize(
    ("detectable", "words"),
    [
        (1.2345, "undecided (it could detect a factor of 1.23)"),
        (math.inf, "undecided"),
        (None, "undecided"),
    ],
)
def test_undecided_verdict_says_what_the_study_could_detect(
    tmp_path, detectable, words
):
    numbers = numbers_of(verdict="undecided")
    for comparison_ in numbers["comparisons"]:
        comparison_["detectable"] = detectable
    rows = all_rows(page_of(tmp_path, study(tmp_path, numbers)))
    verdicts = {row["verdict"][0] for row in rows}
    assert verdicts == {"the baseline", words}


def test_a_ratio_of_two_rules_without_a_run_at_the_target_is_not_shown(tmp_path):
    numbers = numbers_of(
        {("adam", "digits"): (None, None, None), ("mine", "digits"): (None, None, None)}
    )
    for cell in numbers["cells"]:
        cell["reached"] = 0.0
    numbers["comparisons"][0] |= {
        "verdict": "undecided",
        **{"ratio": 1.0, "low": 0.98, "high": 1.02, "detectable": 1.02},
    }
    page = page_of(tmp_path, study(tmp_path, numbers))
    _, mine = all_rows(page)
    assert mine["ratio to baseline"] == ("neither reached", None, True)
    assert mine["verdict"][0] == "undecided"


def test_page_shows_every_study_and_protocol_and_no_place_on_this_machine(tmp_path):
    first = archive.pack(study(tmp_path, seed=1), tmp_path / "theirs.zip")
    second = study(
        tmp_path,
        numbers_of(batch_size=None),
        seed=2,
        processor={"model": "Abacus 9", "cores": 3},
    )
    page = page_of(tmp_path, first, second)
    rows = page.rows("The studies")
    assert [row["file"][0] for row in rows] == ["theirs.zip", second.name]
    assert [row["digests"][0] for row in rows] == ["match", "match"]
    assert [row["protocol"][0] for row in rows] == ["1", "2"]
    assert rows[1]["processor"][0] == "Abacus 9, 3 cores"
    assert rows[0]["command"][0].startswith("python experiments/compare.py --seed 1")
    assert [row["examples in a batch"][0] for row in page.rows("Protocols")] == [
        "32",
        "all",
    ]
    assert [row["searches"][0] for row in page.rows("Protocols")] == ["5", "5"]
    assert str(tmp_path) not in (tmp_path / "page.html").read_text("utf-8")
    assert "do not compare them between processors" in (
        tmp_path / "page.html"
    ).read_text("utf-8")


def test_what_strangers_wrote_is_text_and_page_refers_to_nothing_outside(tmp_path):
    numbers = numbers_of(
        {(NASTY, NASTY): (3.0, 2.0, 4.0), ("adam", NASTY): (4.0, 3.0, 5.0)}
    )
    numbers["comparisons"][0] |= {"verdict": NASTY, "low": None}
    first = study(
        tmp_path,
        numbers,
        processor={"model": NASTY, "cores": NASTY},
        python=[NASTY],
        git=NASTY,
        versions=3,
    )
    page = page_of(tmp_path, first)
    source = (tmp_path / "page.html").read_text("utf-8")
    row = all_rows(page)[0]
    assert [row[name][0] for name in ("rule", "workload", "processor")] == 3 * [NASTY]
    assert row["verdict"][0].startswith(NASTY)
    assert (
        row["versions"][0]
        == "python unknown, jax unknown, optax unknown, descent-jax unknown"
    )
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert not [a for _, a in page.elements if any(name.startswith("on") for name in a)]
    [picture] = [a for tag, a in page.elements if tag == "img"]
    assert picture["src"].startswith("data:image/svg+xml;base64,")
    drawn = base64.b64decode(picture["src"].partition(",")[2]).decode()
    assert not re.search(r"<script|onerror|<image|href=\"(?!#)", drawn)
    assert not re.search(
        r"https?:|//\w|url\(|@import",
        re.sub(r'"data:[^"]*"', "", source.replace("'data:", "")),
    )
    [policy] = [
        a["content"]
        for _, a in page.elements
        if a.get("http-equiv") == "Content-Security-Policy"
    ]
    for tag in ("style", "script"):
        content = re.search(f"<{tag}>(.*?)</{tag}>", source, re.DOTALL)[1]
        assert (
            "'sha256-"
            f"{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
            in policy
        )
    assert policy.startswith("default-src 'none'; ")


@pytest.mark.on_ci("a page written twice; nothing shorter shows this")
def test_same_studies_give_the_same_page(tmp_path):
    path = study(tmp_path)
    leaderboard.write_leaderboard([path], tmp_path / "one.html")
    leaderboard.write_leaderboard([path], tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_bad_study_stops_all_unless_it_may_be_left_out(tmp_path):
    good, bad = study(tmp_path / "results"), tmp_path / "bad.zip"
    bad.write_bytes(archive.pack(good, bad).read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"bad\.zip is truncated.*--skip-bad"):
        page_of(tmp_path, good, bad, tmp_path / "nowhere")
    assert not (tmp_path / "page.html").exists()
    page = page_of(tmp_path, good, bad, tmp_path / "nowhere", skip_bad=True)
    assert len(all_rows(page)) == 4
    left_out = page.rows("Left out")
    assert [row["file"][0] for row in left_out] == ["bad.zip", "nowhere"]
    assert left_out[0]["why"][0].startswith("bad.zip is truncated, damaged or altered")
    assert left_out[1]["why"][0].startswith("nowhere does not exist.")
    assert str(tmp_path) not in (tmp_path / "page.html").read_text("utf-8")
    with pytest.raises(
        ValueError, match=r"no study could be read\. bad\.zip is truncated"
    ):
        page_of(tmp_path, bad, skip_bad=True)


def test_folder_of_studies_stands_for_its_runs_and_archives(tmp_path):
    found = [study(tmp_path, seed=seed) for seed in range(3)]
    folder = found[0].parent
    packed = archive.pack(found[2], folder / "packed.zip")
    shutil.rmtree(found[2])
    (folder / "notes.txt").write_text("mine")
    names = sorted([found[0].name, found[1].name, packed.name])
    assert sorted(one.name for one in gather([folder]).studies) == names
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"empty contains no run folder and no \.zip\. Pass"
    ):
        gather([tmp_path / "empty"])
    run = runs.open_run("compare", {"seed": 9}, tmp_path)
    with pytest.warns(
        UserWarning, match=f"{run.id} is skipped: the run is not finished"
    ):
        assert len(gather([folder]).studies) == len(names)
    with pytest.raises(ValueError, match=f"{run.id} is not finished"):
        gather([run.path])
    runs.close(run)


@pytest.mark.thorough("other wrong numbers", but="^changes(0|1|6|8|11)-")
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"study": 3},
            (
                r"was written by a newer version of Descent \(study format 3; this "
                r"version reads formats up to 2\)\. Update"
            ),
        ),
        (
            {"study": 1},
            r"was written by an older version of Descent \(study format 1\), whose "
            r"intervals do not include "
            r"the variation between searches\. Make the study again",
        ),
        (
            {"protocol": PROTOCOL | {"searches": 0}},
            r"protocol\.searches is 0; it must be an integer of at least 1",
        ),
        ({"study": "1"}, "of the unknown format '1'"),
        ({"study": True}, "of the unknown format True"),
        ({"protocol": None}, "protocol is None; it must be an object"),
        (
            {"protocol": PROTOCOL | {"budget": 1.5}},
            r"protocol\.budget is 1\.5; it must be an integer",
        ),
        (
            {"protocol": PROTOCOL | {"tune_on": ["test"]}},
            r"protocol\.tune_on is \['test'\]; it must be a printable text",
        ),
        ({"cells": []}, r"cells is \[\]; it must be a list of 1 to 10,000 entries"),
        ({"cells": 3}, "cells is 3; it must be a list"),
        ({"cells": [[]]}, r"cells\[0\] is \[\]; it must be an object"),
        ({"cells": [{}]}, r"cells\[0\] has no entry 'workload'"),
        ({"comparisons": None}, "comparisons is None; it must be a list"),
    ],
)
def test_numbers_that_are_not_as_the_format_has_them_are_refused(
    tmp_path, changes, told
):
    path = study(tmp_path, numbers_of() | changes)
    with pytest.raises(ValueError, match=f"{path.name} .*{told}"):
        read_study(path)


@pytest.mark.thorough("other wrong cells", but="^change(0|2|5|7)-")
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cost": -1.0}, "cost is -1.0; it must be positive or 0, or None"),
        ({"cost_low": math.nan}, "cost_low is nan"),
        ({"cost": None}, "has only one of cost and example_gradients"),
        ({"n": 0}, "n is 0; it must be an integer of at least 1"),
        ({"reached": "all"}, "reached is 'all'; it must be a number or None"),
        ({"rule": "\x1b[2J"}, "rule is '\\x1b[2J'; it must be a printable text"),
        ({"workload": 10 * "long\n"}, "it must be a printable text"),
        ({"rule": "mine"}, "cells hold 'mine' on 'digits' twice"),
    ],
)
def test_cells_that_make_no_sense_are_refused(tmp_path, change, told):
    numbers = numbers_of()
    numbers["cells"][0] |= change
    with pytest.raises(ValueError, match=re.escape(told)):
        read_study(study(tmp_path, numbers))


def test_an_estimate_or_verdict_that_does_not_fit_its_interval_is_refused(tmp_path):
    for seed, (where, change, told) in enumerate(
        (
            ("cells", {"cost": 0.3}, "cost is 0.3, outside its interval [2.5, 3.5]"),
            ("comparisons", {"low": 0.5, "high": 2.0}, "verdict is 'better', which"),
            ("comparisons", {"verdict": "worse"}, "verdict is 'worse', which does not"),
            ("comparisons", {"verdict": "undecided"}, "does not fit the interval"),
        )
    ):
        numbers = numbers_of({key: COSTS[key] for key in COSTS if "digits" in key})
        assert numbers["comparisons"][0]["verdict"] == "better"
        numbers[where][0] |= change
        path = study(tmp_path, numbers, seed)
        with pytest.raises(ValueError, match=f"{path.name} .*{re.escape(told)}"):
            read_study(path)


def test_run_of_another_experiment_is_no_study(tmp_path):
    run = runs.finish(
        runs.open_run("trajectory", {}, tmp_path),
        runs.Result("It descends.", (), {}, {"loss": 1.0}),
    )
    for path in (run.path, archive.pack(run.path, tmp_path / "study.zip")):
        with pytest.raises(
            ValueError,
            match=(
                f"{path.name} contains a run of 'trajectory', which is not a study. "
                "Pass"
            ),
        ):
            read_study(path)


def test_what_a_comparison_concludes_is_read_as_it_was_saved(tmp_path):
    generator = np.random.default_rng(0)
    protocol = comparison.make_protocol(searches=2, budget=3, seeds=4, tuning_seeds=2)
    contenders = comparison.make_contenders(["adam", "heavy_ball"])
    found = {}
    for cell in numbers_of(
        {("adam", "digits"): (3.0, 2.0, 4.0), ("heavy_ball", "digits"): (2.0, 1.0, 3.0)}
    )["cells"]:
        costs = 1 + generator.random((2, 4))
        found["digits", cell["rule"]] = Saved(
            {"tuning": np.zeros(2), "costs": costs, "passes": np.arange(4.0)}, cell
        )
        cell |= {
            "edges": [],
            "chosen": {},
            "robustness": None,
            "evaluations": 1.0,
            "steps": 1.0,
            "searches": 2,
            "trainings": 60,
            "search_spread": 1.1,
            "searches_disagree": False,
        }
        cell |= {"seconds_per_pass": None, "compile_seconds": 1.0}
    made = comparison.conclude(protocol, "adam", contenders, found)
    read = read_study(archive.pack(made.save(tmp_path), tmp_path / "study.zip"))
    assert files.canonical(read.numbers) == files.canonical(made.numbers)
    assert (
        all_rows(page_of(tmp_path, tmp_path / "study.zip"))[0]["rule"][0]
        == "heavy_ball"
    )


START = {"loss": 1.1, "gradient": 0.5}


def on_network(number, own, data=None, start=START):
    """A study of one rule on one network, whose data and model may be its own."""
    cell = {"network": "n", "rule": "adam", "loss": 0.5, "loss_low": 0.4}
    cell |= {"num_steps": 10, "batch_size": 2, "parameters": 5, "loss_high": 0.6}
    numbers = {
        "network_study": 1,
        "protocol": {"searches": 2, "budget": 4},
        "cells": [cell | ({"data": data} if data else {})],
        "comparisons": [],
        "origin": {"own": own},
    } | ({"starts": {"n": start}} if start else {})
    return SavedStudy(f"s{number}", {"id": 12 * str(number), "digests": {}}, numbers)


@pytest.mark.parametrize(
    ("studies", "rankings"),
    [
        ([([], "ab"), ([], None)], 1),  # Named networks have the data of this package.
        ([(["n"], "ab"), (["n"], "ab")], 1),
        ([(["n"], "ab"), (["n"], "cd")], 2),
        ([(["n"], "ab"), ([], "ab")], 2),
        ([(["n"], None), (["n"], None)], 2),  # Older studies do not say.
        ([(["n"], "ab", None), (["n"], "ab", None)], 2),
        # Another processor has other last digits.
        ([(["n"], "ab"), (["n"], "ab", START | {"loss": 1.1000001})], 1),
        # The loss times 0.1, and another model with the same loss at the start.
        ([(["n"], "ab"), (["n"], "ab", {"loss": 0.11, "gradient": 0.05})], 2),
        ([(["n"], "ab"), (["n"], "ab", START | {"gradient": 0.4})], 2),
    ],
)
def test_networks_of_one_name_share_a_ranking_if_data_and_model_are_the_same(
    studies, rankings
):
    made = [on_network(number, *one) for number, one in enumerate(studies)]
    assert len(merge(Gathered(made, (), ())).all) == rankings


def test_page_states_the_level_of_its_intervals(tmp_path):
    path = study(tmp_path, numbers_of(level=0.975))
    rankings = leaderboard.write_leaderboard([path], tmp_path / "page.html")
    assert "(97.5 %)" in leaderboard.tables(rankings)[0].note


def test_page_takes_the_place_of_no_input(tmp_path):
    path = study(tmp_path)
    packed = archive.pack(path, tmp_path / "study.zip")
    (tmp_path / "study.html").write_bytes(packed.read_bytes())
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for output, told in (
        (packed, r"must be a file whose name ends in \.html"),
        (tmp_path, r"must be a file whose name ends in \.html"),
        (path.parent / ".." / "study.html", "would overwrite an input"),
        (path / "report.html", "would be written into a run folder"),
    ):
        with pytest.raises(ValueError, match=told):
            leaderboard.write_leaderboard(
                [path, packed, tmp_path / "study.html"], output
            )
    assert {
        file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()
    } == before


def command(capsys, *words):
    capsys.readouterr()
    try:
        status = commands.main([str(word) for word in words])
    except SystemExit as end:
        status = end.code
    return status, *capsys.readouterr()


def test_command_line_packs_and_merges(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = study("results")
    status, out, _ = command(capsys, "pack", path)
    assert (status, out.split()[0]) == (0, f"compare-{path.name}.zip")
    assert command(capsys, "pack", path, "--output", "mine.zip")[0] == 0
    assert (tmp_path / "mine.zip").read_bytes() == (
        tmp_path / out.split()[0]
    ).read_bytes()
    (tmp_path / "bad.zip").write_text("bad")
    status, out, err = command(
        capsys, "leaderboard", "results/compare", "mine.zip", "bad.zip", "--skip-bad"
    )
    assert status == 0
    assert out.startswith(
        "1 study, 2 rules, 2 workloads: mine has the lowest cost in 2 of 2 rankings"
    )
    assert out.endswith("\nleaderboard: leaderboard.html\n")
    assert re.search(
        r"mine +digits +1 +1 of 2 +200 \[150, 240\] +0\.6667 \[0\.6, 0\.7333\]", out
    )
    assert (
        err == "warning: skipped: bad.zip is not an archive of a run. Write one with"
        " descent pack results/NAME/ID.\n"
    )
    assert Page((tmp_path / "leaderboard.html").read_text("utf-8")).rows("The studies")


def test_bad_input_is_one_line_that_says_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = study("results")
    (tmp_path / "bad.zip").write_text("bad")
    for words, told in (
        (
            ["leaderboard", path, "bad.zip"],
            "bad.zip is not an archive of a run. Write one with descent pack",
        ),
        (
            ["leaderboard", "nowhere.zip"],
            "nowhere.zip does not exist. Pass a run folder",
        ),
        (
            ["leaderboard", path, "--output", "bad.zip"],
            "must be a file whose name ends in .html (--output).",
        ),
        (
            ["leaderboard", path, "--output", "no/page.html"],
            "Cannot write no/page.html",
        ),
        (
            ["pack", path, "--output", "study.tar"],
            "must be a file whose name ends in .zip.",
        ),
        (["pack", "nowhere"], "nowhere does not exist. Pass a run folder"),
    ):
        status, out, err = command(capsys, *words)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("error: ")
        assert told in err
        assert "DESCENT_TRACEBACK" not in err
    assert command(capsys, "leaderboard")[0] == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.zip", "results"]


def test_commands_are_listed(capsys):
    out = command(capsys, "--help")[1]
    assert all(f"  {name} " in out for name in ("pack", "leaderboard"))
