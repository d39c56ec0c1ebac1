"""The benchmarks of updates and of minimisers: their problems are the published ones,
and only like is timed with like.
"""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from benchmarks import __main__ as benchmarks
from benchmarks import (
    clock,
    matrix_rules,
    minimiser_problems,
    minimising,
    rule_updates,
    tables,
)
from research import update_rules

COMPILE_QUICKLY = True  # tests/conftest.py

REFERENCE = Path(__file__).parent / "reference"
CASES = {case.name: case for case in minimiser_problems.make_cases()}


def published(file):
    return {
        case["name"]: case
        for case in json.loads((REFERENCE / file).read_text("utf-8"))["cases"]
    }


@pytest.mark.parametrize("rounds", [6, 9, 21])
def test_interval_of_paired_rounds_holds_the_median_in_95_of_100(rounds):
    found = clock.paired_ratio(np.arange(1.0, rounds + 1)[::-1], np.ones(rounds))
    outside = int(found.low) - 1  # Rounds below it; so many are above it, too.
    assert found == clock.Spread((rounds + 1) / 2, outside + 1, rounds - outside)

    def missed(
        left_out,
    ):  # The median lies beyond an end where at most so many fair coins show heads.
        return 2 * sum(math.comb(rounds, k) for k in range(left_out + 1)) / 2**rounds

    assert missed(outside) <= 0.05 < missed(outside + 1)


def test_few_rounds_give_their_whole_range():
    assert clock.paired_ratio([2.0, 6.0, 4.0], [2.0, 2.0, 2.0]) == clock.Spread(
        2.0, 1.0, 3.0
    )


@pytest.fixture
def nothing_from_disk():
    """Programs are compiled here, though the other tests read them from disk."""
    folder = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", folder)
    compilation_cache.reset_cache()


@pytest.mark.on_ci(
    "what is timed; test_rules_that_differ_are_not_timed has the comparison before it"
)
@pytest.mark.usefixtures("nothing_from_disk")
def test_update_is_timed_beside_optax_and_built_anew_each_time():
    row = rule_updates.measure_rule(
        "adam", rule_updates.counterparts()["adam"], 2, rounds=2, builds=2
    )
    assert (row.rule, row.leaves, row.note) == ("adam", 2, "")
    for seconds in (row.updates, row.first, row.compile):
        assert seconds is not None
        assert all(spread.low > 0 for spread in seconds.values())
    assert row.first is not None
    assert row.compile is not None
    # XLA keeps nothing of the first build: were the second one read from a cache, it
    # would take no time.
    assert all(
        row.compile[way].low > 0.1 * row.compile[way].high for way in rule_updates.WAYS
    )


def test_rules_that_differ_are_not_timed():
    makes = {
        "ours": update_rules.gradient_descent,
        "optax": lambda rate: optax.sgd(1.001 * rate),
    }
    row = rule_updates.measure_rule("a slip", makes, 2, rounds=1, builds=1)
    assert (row.note, row.ratio) == (
        "not timed, the updates are not optax's: 1.0e-03 apart, relatively",
        None,
    )
    assert rule_updates.section([row]).missed == [f"a slip, 2 leaves: {row.note}"]


def test_rule_that_needs_more_than_the_gradient_is_named_and_passed_over():
    makes = {
        "ours": update_rules.gradient_descent,
        "optax": lambda rate: optax.scale_by_backtracking_linesearch(3),
    }
    row = rule_updates.measure_rule("searching", makes, 2, rounds=1, builds=1)
    assert row.note.startswith("needs more than the gradient:")
    assert row.ratio is None
    assert (
        "| searching | 2 | needs more than the gradient"
        in rule_updates.section([row]).text
    )


def test_slower_update_is_told():
    spread, slow = clock.Spread(1.0, 1.0, 1.0), clock.Spread(0.5, 0.4, 0.6)
    both: dict[str, clock.Spread] = {way: spread for way in rule_updates.WAYS}
    rows = [rule_updates.CostRow("adam", 1, "", both, both, both, slow, spread, spread)]
    section = rule_updates.section(
        [*rows, rows[0]._replace(rule="lion", ratio=clock.Spread(0.9, 0.7, 1.1))]
    )
    assert (
        "in 2 pairs of rule and number of leaves: an update: level in 1, faster in 0, "
        "slower in 1" in section.answer
    )
    assert section.missed == [
        "adam, 1 leaf: an update takes 2.00 times what optax's takes"
    ]
    page = tables.page([], [], [], "command", "today", 1.0, [section])
    assert section.answer in page.partition("## An update")[0]
    assert page.endswith(f"## Where a goal is missed\n\n- {section.missed[0]}\n")


def test_unknown_name_is_refused():
    with pytest.raises(
        ValueError,
        match="no counterpart in optax is known of adm; known: gradient_descent",
    ):
        rule_updates.measure(True, print, ["adm"])
    with pytest.raises(
        ValueError, match="there is no problem rosenbrock; known: rosenbrock_2"
    ):
        minimising.measure(True, print, ["rosenbrock"])


@pytest.mark.on_ci("the other curves", but="Misra1a")
@pytest.mark.thorough("the other curves", but="Misra1a|Gauss3")
@pytest.mark.parametrize("name", minimiser_problems.CURVES)
def test_curve_has_the_certified_sum_of_squares(name):
    case = published("nist_nonlinear.json")[name]
    value = CASES[f"NIST {name}"].objective(jnp.array([float(b) for b in case["b"]]))
    assert 2 * value == pytest.approx(float(case["rss"]), rel=1e-9)


@pytest.mark.on_ci("wood", but="beale")
@pytest.mark.thorough("brown_dennis", but="beale|wood")
@pytest.mark.parametrize(
    ("name", "minimum"),
    [
        ("beale", [3.0, 0.5]),
        ("wood", [1.0, 1.0, 1.0, 1.0]),
        (
            "brown_dennis",
            [-11.59443990476217, 13.20363005120, -0.4034394881769, 0.2367787744557],
        ),
    ],
)
def test_problem_has_its_published_minimum(name, minimum):
    case, (reference, *_) = CASES[f"MGH {name}"], published("mgh.json")[name]["minima"]
    value, gradient = jax.value_and_grad(case.objective)(jnp.array(minimum))
    assert 2 * value == pytest.approx(float(reference["f"]), rel=1e-12, abs=1e-20)
    assert jnp.max(jnp.abs(gradient)) < 1e-4


def test_residuals_of_broyden_are_the_published_ones():
    # Problem 30 at its start, all -1: -(3 + 2) + 1 + 2 + 1 where there are both
    # neighbours, and one is 0 at each end.
    residuals = minimiser_problems.broyden_tridiagonal(-jnp.ones(10))
    np.testing.assert_array_equal(residuals, [-2.0, *[-1.0] * 8, -3.0])


@pytest.mark.thorough("the larger one", but=r"10000\]")
@pytest.mark.parametrize("n", minimiser_problems.LARGE)
def test_large_problem_is_rosenbrock_for_each_pair_of_variables(n):
    case, small = CASES[f"MGH extended_rosenbrock_{n}"], CASES["rosenbrock_2"]
    at_start, pair = case.objective(case.start), small.objective(small.start)
    assert 2 * float(at_start) == pytest.approx(n / 2 * float(pair), rel=1e-12)
    assert case.objective(jnp.ones(n)) == 0


def test_only_l_bfgs_minimises_a_large_problem():
    case = CASES[f"MGH extended_rosenbrock_{minimiser_problems.LARGE[0]}"]
    families = [c.family for c in minimising.contenders(case, 1e-6, False)]
    assert set(families) == {"L-BFGS"}


@pytest.mark.on_ci(
    "minimisers that are timed; "
    "test_a_peer_that_failed_counts_as_one_that_did_not_reach_the_tolerance has the "
    "counts"
)
def test_minimisers_are_compared_where_both_reach_the_tolerance(monkeypatch):
    case = CASES["MGH beale"]
    ends = {
        "ours: exact": [3.0, 0.5],
        "scipy: exact": [3.0, 0.5],
        "scipy: short": [3.1, 0.5],
    }

    def contenders(*_):
        return [
            minimising.Contender(
                "BFGS", name, lambda x=x: minimising.Ended(jnp.array(x), 7)
            )
            for name, x in ends.items()
        ]

    monkeypatch.setattr(minimising, "contenders", contenders)
    rows = minimising.measure_case(case, False, rounds=2)
    assert [row.reached for row in rows] == [True, True, False]
    assert [row.ratio is None for row in rows] == [True, False, True]
    section = minimising.section(rows)
    assert (
        "ours reach the tolerance in 1 of 1; scipy does in 1 of 2, and where both do"
        in section.answer
    )
    assert minimising.section(
        [rows[0]._replace(reached=False, gradient=0.5)]
    ).missed == [
        "MGH beale: ours: exact ends with a gradient of 5.0e-01, above the tolerance"
    ]


def test_a_peer_that_failed_counts_as_one_that_did_not_reach_the_tolerance():
    one = clock.Spread(1.0, 1.0, 1.0)
    mine = minimising.MinimiserRow(
        "a", "BFGS", "ours: bfgs", "", 5, 0.0, 0.0, True, one, 1.0
    )
    rows = [mine, mine._replace(contender="scipy: BFGS", ratio=one)]
    for name, note in (
        ("scipy: CG", "failed: ValueError"),
        ("optimistix", "not there"),
    ):
        rows.append(minimising.MinimiserRow("a", "BFGS", name, note))
    answer = minimising.section(rows).answer
    assert "scipy does in 1 of 2" in answer
    assert "optimistix" not in answer
    assert minimising.section([mine]).answer.endswith("the tolerance in 1 of 1.")


def test_each_contender_of_scipy_compiles_what_it_calls(monkeypatch):
    traced, case = [], CASES["MGH beale"]

    def objective(x):
        traced.append(1)
        return case.objective(x)

    counts = []
    for contender in minimising.scipys(case._replace(objective=objective), 1e-6):
        contender.solve()
        counts.append(len(traced))
    assert 0 < counts[0] < counts[1] < counts[2]


@pytest.mark.thorough(
    "four minimisers; tests/rules/test_least_squares.py has ours on NIST's problems"
)
def test_levenberg_marquardt_and_scipy_end_at_one_point():
    case = CASES["MGH beale, squares"]
    ours, theirs = minimising.ours(case, 1e-9), minimising.scipys(case, 1e-9)
    assert [contender.family for contender in ours + theirs] == ["least squares"] * 4
    for contender in ours + theirs:
        np.testing.assert_allclose(
            contender.solve().x, [3.0, 0.5], atol=1e-8, err_msg=contender.name
        )


@pytest.mark.on_ci("a compiled loop of Shampoo; nothing shorter shows this")
@pytest.mark.usefixtures("nothing_from_disk")
def test_no_product_of_a_matrix_rule_leaves_the_timed_loop():
    rule = update_rules.shampoo(1e-3, refresh_every=10)
    params = {"w": jnp.ones((6, 5), jnp.float32)}
    loop = jax.jit(matrix_rules.loop_of(rule))
    compiled = loop.lower(params, params, rule.init(params)).compile()
    _, _, entry = compiled.as_text().partition("\nENTRY ")
    assert " while(" in entry
    before, _, _ = entry.partition(" while(")
    assert " dot(" not in before
    assert " fusion(" not in before


@pytest.mark.on_ci(
    "roots of large matrices; test_slower_update_is_told has the same verdicts"
)
def test_a_step_of_a_matrix_rule_is_level_if_its_interval_holds_one():
    one = clock.Spread(1.0, 1.0, 1.0)
    rows = [
        matrix_rules.MatrixRow("lstm", "adam", "peer", one, one, ratio, 8, 8)
        for ratio in (
            clock.Spread(0.88, 0.78, 1.28),
            clock.Spread(0.9, 0.8, 0.95),
            clock.Spread(2.0, 1.5, 2.5),
            clock.Spread(3.0, 1.1, 4.0),
        )
    ]
    answer = matrix_rules.section(rows).answer
    assert "in 4 pairs: faster in 2, level in 1, slower in 1." in answer


def test_a_peer_may_be_missing_in_a_package_that_is_there():
    assert matrix_rules._is_there("optax", "adam")
    assert not matrix_rules._is_there("optax", "no_such_rule")
    assert not matrix_rules._is_there("no_such_package", "adam")


def test_a_difference_of_nan_in_any_leaf_is_infinite():
    def built(*leaves):
        update = lambda g, s, p: (list(map(jnp.asarray, leaves)), s)
        return rule_updates.Built(update, 0, 0, 0, 0)

    for bad in ((jnp.nan, 1.0), (1.0, jnp.nan)):
        both = {"ours": built(*bad), "optax": built(1.0, 1.0)}
        assert rule_updates.difference(both, 0, 0) == math.inf


@pytest.mark.parametrize(
    "words", [["--gradbench=x"], ["--gradbench", "x"], ["--grad", "x"]]
)
def test_the_command_of_the_page_is_that_of_its_flags(words):
    given = [*words, "--only", "steps", "--only", "gradbench", "--quick"]
    command = "--quick --only steps --only gradbench --gradbench FOLDER"
    assert benchmarks._words(benchmarks.parse(given)) == command.split()
