"""The audit of other libraries' optimizers: rows, judgements, and table."""

import json
from typing import Any

import numpy as np
import pytest

from experiments import _audit_deviations as deviations
from experiments import _audit_judging as judging
from experiments import _audit_rows as rows
from experiments import audit_of_rules as experiment
from experiments._audit_deviations import ROWS
from experiments.reports import audit_of_rules as report
from research import backend, runs

KEPT = json.loads(experiment.FILE.read_text("utf-8"))
BY_KEY = {row.key: row for row in ROWS}
# One of each kind: agrees, a convention, a deviation, a row with a part of the
# params, a separable function.
FEW = [
    "torch: Adam",
    "keras: Adam",
    "optax: rprop",
    "timm: Lookahead",
    "timm: Adahessian",
    "torch: Muon (float64 inside)",
    "pytorch_optimizer: ASGD",
    "pytorch_optimizer: A2Grad",
]


@pytest.fixture(scope="module", autouse=True)
def float64():
    backend.configure(x64=True)


def again(key: str) -> dict[str, Any]:
    row = BY_KEY[key]
    return experiment.short(experiment.entry(row, judging.judge(row)))


def assert_the_same(found, kept):
    """Sizes near rounding may differ in their digits."""
    for name in found.keys() | kept.keys():
        a, b = found[name], kept[name]
        if isinstance(b, float):
            assert abs(np.log10(a / b)) < 0.1 or max(a, b) < judging.BOUND, (name, a, b)
        else:
            assert a == b, (name, a, b)


def kept_row(key: str) -> dict[str, Any]:
    return next(
        row for row in KEPT["rows"] if f"{row['library']}: {row['optimizer']}" == key
    )


@pytest.mark.on_ci(
    "the other rules", but=r"^(torch: Adam|optax: rprop|pytorch_optimizer: A2Grad)\]"
)
@pytest.mark.parametrize("key", FEW)
def test_judging_again_gives_the_kept_row(key):
    assert_the_same(again(key), kept_row(key))


@pytest.mark.thorough("all rows; the few above are of every kind")
def test_judging_all_again_gives_the_kept_table():
    for row in ROWS:
        assert_the_same(again(row.key), kept_row(row.key))


def test_kept_table_has_every_row_and_keeps_what_is_expected():
    names = [f"{row['library']}: {row['optimizer']}" for row in KEPT["rows"]]
    assert names == [row.key for row in ROWS]
    assert len(set(names)) == len(names)
    assert set(BY_KEY) >= set(deviations.DEVIATIONS)
    assert KEPT["versions"] == rows.traces()["versions"]
    agreeing = [r for r in KEPT["rows"] if r["verdict"] == rows.AGREES]
    assert all(row["largest"] <= judging.BOUND for row in agreeing)
    numbers = experiment.numbers_of(KEPT["rows"], experiment.LIBRARIES)
    for name, (low, high) in experiment.EXPECTED.items():
        assert low <= numbers[name] <= high, name


def test_every_recorded_trajectory_has_a_row_a_licence_and_fifty_steps():
    recorded = rows.traces()
    judged = {row.key for row in ROWS if not row.reason}
    assert set(recorded["traces"]) == judged
    assert {row.library for row in ROWS} <= set(recorded["licences"])
    for row in ROWS:
        for problem in () if row.reason else row.problems:
            found = recorded["traces"][row.key][problem]
            start = rows.ALL_PROBLEMS[problem].start
            size = sum(
                np.size(a) for a in (start if isinstance(start, list) else [start])
            )
            assert found.shape == (rows.STEPS, size), (row.key, problem)


def test_a_bug_has_a_reproducer_and_a_second_reader():
    folder = experiment.FILE.parents[1] / "benchmarks/audit"
    for key, name in deviations.REPRODUCERS.items():
        assert deviations.DEVIATIONS[key]["verdict"] == rows.BUG
        assert (folder / f"{name}.py").exists()
    bugs = {row.key for row in ROWS if row.verdict == rows.BUG}
    assert bugs == set(deviations.CONFIRMED)
    assert bugs <= set(deviations.REPRODUCERS)


def test_wrong_claims_contradict_what_is_found():
    """A wrong formula, a cause that explains nothing, a cause without deviation."""
    adam, keras = BY_KEY["torch: Adam"], BY_KEY["keras: Adam"]
    wrong = adam._replace(rule="adamax")
    assert experiment.contradicts(wrong, judging.judge(wrong))
    change = rows.Change("(1 - b2) * g**2", "(1 - b2) * m**2")
    wrong = keras._replace(changes=(change,))
    assert experiment.contradicts(wrong, judging.judge(wrong))
    wrong = adam._replace(verdict=rows.DIFFERS, cause="none")
    assert experiment.contradicts(wrong, judging.judge(wrong))
    rounded = adam._replace(verdict=rows.CONVENTION, cause="float32", within=1e-7)
    for largest in (0.9e-7, 1.1e-7, float("nan")):
        found = judging.Judgement(rows.CONVENTION, largest)
        assert experiment.contradicts(rounded, found) == (not largest <= 1e-7)
    for row in (adam, keras):
        assert not experiment.contradicts(row, judging.judge(row))


def test_a_change_that_does_not_fit_raises():
    with pytest.raises(ValueError, match="must occur once in adam; it occurs 0 times"):
        judging.changed(judging.formula_of("adam"), (rows.Change("not there", ""),))


def test_first_step_and_size_of_a_planted_deviation():
    reference = np.ones((5, 2))
    found = reference.copy()
    found[3:, 1] += 0.5
    steps = judging.apart(found, reference)
    np.testing.assert_allclose(steps, [0, 0, 0, 0.25, 0.25])
    assert judging.first_of(steps) == 4
    found[4] = np.nan
    assert np.isinf(judging.apart(found, reference)[4])


def test_what_is_saved_is_read_again_to_its_rounding(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    sizes = 10.0 ** generator.uniform(-12, 300, (rows.STEPS, 3))
    iterates = sizes * generator.choice([-1, 1], sizes.shape)
    iterates[:40] = generator.standard_normal((40, 3))
    broken = iterates.copy()
    broken[-3:, 0] = np.inf, -np.inf, np.nan
    monkeypatch.setattr(rows, "FILE", tmp_path / "traces.xz")
    traces = {
        "a": {"p": iterates, "q": "ValueError: no"},
        "b": {"p": iterates * (1 + 1e-15)},
        "c": {"p": broken[:, :2]},
    }
    rows.save({"versions": {}}, traces)
    rows.traces.cache_clear()
    try:
        found = rows.traces()["traces"]
        assert found["a"]["q"] == "ValueError: no"
        assert judging.apart(found["a"]["p"], iterates).max() <= 3e-11
        np.testing.assert_array_equal(found["a"]["p"], found["b"]["p"])
        np.testing.assert_array_equal(found["c"]["p"][-3:, 0], broken[-3:, 0])
        assert judging.apart(found["c"]["p"][:-3], broken[:-3, :2]).max() <= 3e-11
        before = rows.FILE.read_bytes()
        rows.save({"versions": {}}, found)
        assert rows.FILE.read_bytes() == before  # Nothing is lost by saving again.
    finally:
        rows.traces.cache_clear()


def test_report_counts_every_row_once(headline_of):
    numbers = experiment.numbers_of(KEPT["rows"], experiment.LIBRARIES)
    numbers |= {"rows": KEPT["rows"], "versions": KEPT["versions"]}
    findings = runs.Findings({}, numbers)
    headline_of(report.answer(findings))
    wrong = findings._replace(numbers=numbers | {"contradictions": 2})
    assert report.answer(wrong).endswith("contradict what was found: 2.")
    counts, *tables = report.tables(
        findings._replace(
            numbers=numbers | {"rows": [unshort(r) for r in KEPT["rows"]]}
        )
    )
    assert counts.rows[-1][-1] == len(ROWS) == sum(len(t.rows) for t in tables)
    assert [table.title.split()[0] for table in tables] == list(experiment.LIBRARIES)


def unshort(row: dict[str, Any]) -> dict[str, Any]:
    numbers = {"explained": row["explained"], "largest": row["largest"]}
    return row | {
        k: float("nan") if v is None else float(v) for k, v in numbers.items()
    }


def test_unknown_library_is_named():
    with pytest.raises(ValueError, match=r"library must be one of optax.*got 'jax'"):
        experiment.run(experiment.Config(library=("jax",)))
