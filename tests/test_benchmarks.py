"""The benchmarks' pure parts: what they say of seconds, that every contender makes the
same training, and the page.
"""

import ast
import itertools
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import (
    NO_CACHES,
    clock,
    matrix_rules,
    peers_jax,
    peers_sklearn,
    problems,
    startup,
    steps,
    studies,
    sweep,
    sweep_runs,
    tables,
)
from benchmarks import __main__ as command
from research import descent, update_rules

COMPILE_QUICKLY = True  # tests/conftest.py

FOLDER = Path(__file__).parent.parent / "benchmarks"
REGIMES = problems.REGIMES


def logistic(regime):
    return problems.make_problem("logistic", regime, quick=True)


def by_hand(problem):
    """Gradient descent of logistic regression in numpy, on the batches that the peers
    are given.
    """
    x, y = problems.training_data(problem.workload)
    weights, intercept = (
        np.array(problem.params["weights"]),
        float(problem.params["intercept"]),
    )
    for i in range(problem.steps):
        chosen = slice(None) if problem.order is None else problem.order[i]
        residual = 1 / (1 + np.exp(-(x[chosen] @ weights + intercept))) - y[chosen]
        of_weights = x[chosen].T @ residual / len(residual) + problem.penalty * weights
        weights, intercept = (
            weights - problem.rate * of_weights,
            intercept - problem.rate * residual.mean(),
        )
    return weights, intercept


@pytest.mark.on_ci(
    "two trainings; make bench compares the losses at the end of all contenders"
)
@pytest.mark.thorough("the other regimes", but="full batch")
@pytest.mark.parametrize("regime", REGIMES)
def test_contenders_end_where_numpy_does(regime):
    problem = logistic(regime)
    weights, intercept = by_hand(problem)
    runners, _ = steps.contenders(problem, with_torch=False)
    assert len(runners) == (3 if regime == "stochastic" else 2)
    for runner in runners:
        params = runner.train()
        np.testing.assert_allclose(
            params["weights"], weights, rtol=1e-10, err_msg=runner.name
        )
        np.testing.assert_allclose(
            params["intercept"], intercept, rtol=1e-10, err_msg=runner.name
        )


@pytest.mark.thorough("what make bench checks before it measures")
def test_order_is_the_one_that_a_run_draws():
    problem, seen = logistic(REGIMES[1]), []
    init, step = descent.build(
        problem.workload.objective,
        update_rules.gradient_descent(0.1),
        problem.workload.train,
    )

    def watched(state, batch_indices):
        jax.debug.callback(
            lambda indices: seen.append(np.array(indices)),
            batch_indices.indices,
            ordered=True,
        )
        return step(state, batch_indices)

    state = init(problem.params)
    state, _ = descent.run(
        watched, state, problem.sampler, problem.key, np.arange(problem.num_epochs)
    )
    jax.block_until_ready(state)
    jax.effects_barrier()
    np.testing.assert_array_equal(np.stack(seen), problem.order)


@pytest.mark.on_ci("the batches of a peer; make bench compares the losses at the end")
def test_batches_are_the_rows_of_the_order():
    problem = logistic(REGIMES[2])
    x, y = problems.training_data(problem.workload)
    batches = peers_jax.place_batches(problem.workload, problem.order, problem.steps)
    assert len(batches) == problem.steps == len(x) * problem.num_epochs
    np.testing.assert_array_equal(
        np.concatenate([b for b, _ in batches]), x[problem.order[:, 0]]
    )
    np.testing.assert_array_equal(
        np.concatenate([b for _, b in batches]), y[problem.order[:, 0]]
    )


@pytest.mark.on_ci("a workload; make bench compares the losses at the end")
@pytest.mark.thorough("the other models", but="linear")
@pytest.mark.parametrize("model", problems.MODELS)
def test_penalty_is_the_workloads(model):
    problem = problems.make_problem(model, REGIMES[0], quick=True)
    params = jax.tree.map(np.ones_like, problem.params)
    doubled = {"weights": 2 * params["weights"], "intercept": 2 * params["intercept"]}
    # On inputs of zero and with no intercept the weights enter the objective through
    # the penalty alone.
    train = problem.workload.train
    nothing = train._replace(x=np.zeros_like(train.x))
    values = [
        float(
            problem.workload.objective(p | {"intercept": 0 * p["intercept"]}, nothing)
        )
        for p in (params, doubled)
    ]
    assert values[1] - values[0] == pytest.approx(
        1.5 * problem.penalty * params["weights"].size, abs=1e-12
    )


def test_only_the_same_job_is_given_to_scikit_learn():
    problem = logistic(REGIMES[0])
    jobs = [(m, r) for m in problems.MODELS for r in REGIMES]
    same = [
        job
        for job in jobs
        if peers_sklearn.does_the_same(problem._replace(model=job[0], regime=job[1]))
    ]
    assert same == [("linear", "stochastic"), ("logistic", "stochastic")]


@pytest.mark.thorough("what make bench checks before it measures")
def test_sweeps_one_by_one_see_what_our_sweep_sees():
    made = sweep_runs.make_sweep(REGIMES[1], quick=True)
    runners, absent = sweep.sweepers(made, with_torch=False)
    rows = sweep.measure_sweep(made, runners, rounds=2)
    assert [row.contender for row in rows] == ["ours", "optax, one by one"]
    assert absent == [("PyTorch", "not installed")]
    assert rows[1].apart < 1e-12
    assert rows[0].loss == pytest.approx(rows[1].loss, rel=1e-12)


@pytest.mark.parametrize("regime", REGIMES)
def test_sweep_has_the_runs_of_the_main_experiment(regime):
    rates, seeds = sweep_runs.runs_of(regime, quick=False)
    assert len(seeds) == len(rates) == 34
    tried = set(rates[:24].tolist())
    assert len(tried) == 8
    assert set(zip(seeds[:24].tolist(), rates[:24].tolist(), strict=True)) == set(
        itertools.product((100, 101, 102), tried)
    )
    assert seeds[24:].tolist() == list(range(10))
    assert set(rates[24:].tolist()) < tried


@pytest.mark.thorough("what make bench checks before it measures")
def test_sweeps_are_named_as_our_sweep_names_their_children():
    made = sweep_runs.make_sweep(REGIMES[1], quick=True)
    root = jax.random.key(100)
    expected = made.workload.init(jax.random.fold_in(root, descent.INIT))
    np.testing.assert_array_equal(made.starts[100]["weights"], expected["weights"])


def move_by_hand(rule, gradients, hyper, averages, taken):
    """What a rule adds to the params, in numpy, from the formulas of the papers."""
    rate, decay = hyper
    if rule == "heavy_ball":
        averages[0] = decay * averages[0] + gradients
        return -rate * averages[0]
    averages[0] = decay * averages[0] + (1 - decay) * gradients
    averages[1] = 0.999 * averages[1] + 0.001 * gradients**2
    mean, square = averages[0] / (1 - decay**taken), averages[1] / (1 - 0.999**taken)
    return -rate * mean / (np.sqrt(square) + 1e-8)


def end_of_study_by_hand(study, rule, cell):
    """The training objective at the end of one cell, by numpy."""
    x, y = problems.training_data(study.workload)
    x, seed = np.column_stack([x, np.ones(len(x))]), int(study.seeds[cell])
    penalty = np.append(np.full(x.shape[1] - 1, 0.01), 0.0)
    params = np.append(study.starts[seed]["weights"], study.starts[seed]["intercept"])
    averages = np.zeros((2, len(params)))
    for taken, chosen in enumerate(study.orders[seed], 1):
        residual = 1 / (1 + np.exp(-x[chosen] @ params)) - y[chosen]
        gradients = x[chosen].T @ residual / len(chosen) + penalty * params
        params = params + move_by_hand(
            rule, gradients, study.rates[cell], averages, taken
        )
    return np.mean(np.logaddexp(0, x @ params) - y * (x @ params)) + 0.5 * np.sum(
        penalty * params**2
    )


@pytest.mark.on_ci("two sweeps; only make bench needs their times")
def test_every_sweep_compiles_all_its_parts(monkeypatch):
    made, compiled = sweep_runs.make_sweep(REGIMES[0], quick=True), []
    lower = jax.stages.Traced.lower

    def counted(traced, *arguments, **options):
        lowered = lower(traced, *arguments, **options)
        own = types.SimpleNamespace(
            as_text=lowered.as_text,
            in_tree=lowered.in_tree,
            out_info=lowered.out_info,
            compile=lambda: compiled.append(1) or lowered.compile(),
        )
        return own

    monkeypatch.setattr(jax.stages.Traced, "lower", counted)
    counts = []
    for _ in range(2):
        sweep.ours(made)
        counts.append(len(compiled))
    assert counts[0] > 0
    assert counts[1] == 2 * counts[0]


@pytest.mark.on_ci("a timing")
def test_time_to_build_ours_has_its_first_training(monkeypatch):
    built = []

    def seconds_of(build):
        built.append(build)
        return clock.seconds_of(build)

    waited = []
    ready = jax.block_until_ready
    monkeypatch.setattr(peers_jax, "seconds_of", seconds_of)
    monkeypatch.setattr(
        jax, "block_until_ready", lambda tree: waited.append(1) or ready(tree)
    )
    peers_jax.ours(logistic(REGIMES[0]))
    assert len(built) == len(waited) == 1


@pytest.mark.thorough("a study; .ci/run has a training")
@pytest.mark.parametrize("rule", studies.SPACES)
def test_contenders_of_a_study_end_where_numpy_does(rule):
    terms = {"seeds": (3, 4), "num_epochs": 2}
    rows = studies.measure_study("breast_cancer", rule, False, (1, 2), 2, 2, **terms)
    assert [(row.contender, row.runs) for row in rows[:4]] == [
        ("ours", 2),
        ("ours", 4),
        ("optax, scans, one by one", 4),
        ("optax, steps, one by one", 4),
    ]
    made = studies.make_study("breast_cancer", rule, 2, **terms)
    by_hand = np.mean([end_of_study_by_hand(made, rule, cell) for cell in range(4)])
    for row in rows[1:4]:
        assert row.loss == pytest.approx(by_hand, rel=1e-12)
        assert row.apart < 1e-12
        assert (row.ratio is None) == (row.contender == "ours")
    assert rows[4].note == "not installed"
    text = studies.section(rows)
    assert text.answer.startswith("A study of 4 runs is ")
    assert "| breast_cancer | " + rule in text.text


@pytest.mark.on_ci("a study, made but not run; only make bench needs it")
def test_study_has_every_trial_on_every_seed_within_its_space():
    made = studies.make_study("breast_cancer", "adam", 3, seeds=(0, 7), num_epochs=2)
    runs = list(zip(made.seeds.tolist(), *made.rates.T.tolist(), strict=True))
    assert len(set(runs)) == 6
    assert [seed for seed, *_ in runs] == [0, 7] * 3
    assert len({(rate, b1) for _, rate, b1 in runs}) == 3
    for name, place in (("learning_rate", 0), ("b1", 1)):
        assert made.rates[:, place].min() >= studies.SPACES["adam"][name].low
        assert made.rates[:, place].max() <= studies.SPACES["adam"][name].high


@pytest.mark.parametrize(
    ("seconds", "off"), [((1.0, 4.0), 0.0), ((1.0, 3.0), 1 / 7), ((1.0, 5.0), 1 / 9)]
)
def test_line_of_a_study_misses_no_time_by_more_than_it_says(seconds, off):
    row = studies.StudyRow("digits", "adam", "ours", "", 8, 5)
    rows = [
        row._replace(runs=n, seconds=clock.Spread(s, s, s))
        for n, s in zip((8, 32), seconds, strict=True)
    ]
    line = studies.line_of(rows)
    misses = [
        abs(line.slope * n / s - 1) for n, s in zip((8, 32), seconds, strict=True)
    ]
    np.testing.assert_allclose(misses, off, atol=1e-12)
    assert line.off == pytest.approx(off, abs=1e-12)


def test_half_empty_block_counts_as_a_whole_one():
    row = studies.StudyRow("digits", "adam", "ours", "", 4, 5)
    rows = [
        row._replace(runs=n, seconds=clock.Spread(s, s, s))
        for n, s in ((4, 1.0), (16, 2.0))
    ]
    line = studies.line_of(rows)
    assert line.off_in_batches == pytest.approx(0, abs=1e-12)
    assert line.off == pytest.approx(1 / 3)


def test_ratio_is_of_medians_and_its_spread_of_rounds():
    theirs, ours = [10.0, 20.0, 60.0], [5.0, 4.0, 6.0]
    assert clock.ratio(theirs, ours) == (4.0, 2.0, 10.0)
    assert (
        clock.ratio([1.0, 1.0, 9.0], [1.0, 9.0, 9.0]).low
        <= clock.ratio([1.0, 1.0, 9.0], [1.0, 9.0, 9.0]).median
    )


def test_everyone_is_timed_once_a_round_and_begins_in_turn():
    calls = []
    seconds = clock.take_turns(
        {name: lambda name=name: calls.append(name) for name in "abc"}, 3
    )
    assert "".join(calls) == "abcbcacab"
    assert {name: len(values) for name, values in seconds.items()} == {
        "a": 3,
        "b": 3,
        "c": 3,
    }
    assert all((values > 0).all() for values in seconds.values())


def test_a_short_call_is_repeated_and_its_mean_counts(monkeypatch):
    ticks, calls = iter(range(100)), []
    now = types.SimpleNamespace(perf_counter=lambda: next(ticks) / 4)
    monkeypatch.setattr(clock, "time", now)
    seconds = clock.take_turns({"a": lambda: calls.append(1)}, 2, least=1.0)["a"]
    assert len(calls) == 8
    assert list(seconds) == [0.25, 0.25]


@pytest.mark.parametrize("theirs", [[1.0, 2.1], [1.0, np.nan], [np.inf, 2.0]])
def test_other_outcome_is_refused(theirs):
    with pytest.raises(ValueError, match="theirs did not do the same job"):
        clock.check_equal({"ours": [1.0, 2.0], "theirs": theirs}, "the loss", 1e-9)


def test_a_number_beside_none_is_named_as_such():
    values = {"ours": [1.0, np.inf], "theirs": [1.0, 2.0]}
    with pytest.raises(ValueError, match="is NaN or infinite for only one of them"):
        clock.check_equal(values, "the loss", 1e-9)


def test_two_zeros_are_equal_and_other_shapes_are_not():
    zeros = {"ours": [0.0, 2.0], "theirs": [0.0, 2.0]}
    assert clock.check_equal(zeros, "the loss", 1e-9) == 0
    for theirs in ([1e-300, 2.0], [[0.0, 2.0]], 2.0):
        with pytest.raises(ValueError, match="theirs did not do the same job"):
            clock.check_equal(zeros | {"theirs": theirs}, "the loss", 1e-9)


def test_difference_is_the_largest_relative_one():
    values = {
        "ours": [1.0, 100.0],
        "theirs": [1.0, 100.0 + 1e-9],
        "others": [1.0 + 4e-11, 100.0],
    }
    assert clock.check_equal(values, "the loss", 1e-9) == pytest.approx(4e-11, rel=1e-4)


def row(contender, ratio, note=""):
    spread = clock.Spread(ratio, ratio / 2, ratio * 2)
    mine = contender == "ours"
    return steps.StepRow(
        "linear",
        "stochastic",
        contender,
        note,
        9,
        spread,
        0.5,
        None if mine else spread,
        0.25,
        1e-16,
    )


def swept(contender, ratio):
    spread = clock.Spread(ratio, ratio, ratio)
    return sweep.SweepRow(
        "stochastic", contender, "", 34, 5, 1.0, spread, spread, 0.5, 0.25, 34, 0.0
    )


def test_page_tells_what_falls_short():
    rows = [
        row("ours", 1.0),
        row("optax, Python loop", 3.0),
        row("scikit-learn SGD", 0.4),
    ]
    rows.append(
        steps.StepRow(
            "linear", "stochastic", "torch.compile", "did not run: no compiler", 9
        )
    )
    sweeps = [swept("optax, one by one", 12.0), swept("torch.func.vmap", 0.8)]
    text = tables.page(rows, sweeps, [], "python -m benchmarks", "2026-01-02", 3.0)
    first, *_ = text.partition("## Steps per second")
    assert (
        "at least as fast as a peer in 1 of 2 (the ratios go from 0.400 to 3.00)"
        in first
    )
    assert "compilation apart, in 1 of 1" in first
    assert "`python -m benchmarks` on 2026-01-02 in 3 s" in first
    assert "| did not run: no compiler |" in text
    missed = text.partition("## Where a goal is missed")[2]
    assert "scikit-learn SGD is faster, ours has 0.400 of its speed" in missed
    assert "0.800 times as fast as torch.func.vmap, goal 1" in missed
    assert missed.count("with compiling: 0.500 times") == 2
    assert "optax, Python loop" not in missed


def test_page_without_shortfall_says_so():
    text = tables.page(
        [row("ours", 1.0), row("optax, Python loop", 3.0)],
        [],
        [],
        "command",
        "today",
        1.0,
    )
    assert text.endswith("## Where a goal is missed\n\nNowhere.\n")


def test_every_line_of_a_table_has_its_columns():
    text = tables.steps_table([row("ours", 1.0), row("optax, Python loop", 3.0)])
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {10}


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.99996, "1.00"), (123456.0, "123,000"), (0, "0"), (9.999, "10.0")],
)
def test_number_has_three_digits(value, words):
    assert tables.number(value) == words


def caches_as_they_are(monkeypatch):
    """Let the test undo the variables that a whole run sets."""
    for name, value in NO_CACHES.items():
        monkeypatch.setenv(name, value)


def test_startup_tells_why_a_program_did_not_run(monkeypatch):
    programs = {
        "good": ("-c", "pass"),
        "bad": ("-c", "raise ValueError('no such thing')"),
        "silent": ("-c", "raise SystemExit(3)"),
    }
    monkeypatch.setattr(startup, "PROGRAMS", programs)
    good, bad, silent = startup.measure(
        quick=True, with_torch=False, tell=lambda what: None
    )
    assert good.seconds.median > 0
    assert bad.seconds is None
    assert bad.note == "did not run: ValueError: no such thing"
    assert silent.note == "did not run: exit status 3"
    slow = subprocess.TimeoutExpired("python", 300)
    assert startup._why(slow) == "did not end within 300 s"


@pytest.mark.on_ci(
    "three runs; test_whole_run_without_a_peer_says_that_it_will_not_be_written has "
    "another that is not written"
)
def test_part_of_a_run_is_not_written_over_the_results(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(startup, "PROGRAMS", {"python": ("-c", "pass")})
    monkeypatch.setattr(command, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(
        command, "find_spec", lambda name: name
    )  # As if PyTorch were there, without which none is whole.
    caches_as_they_are(monkeypatch)
    command.main(["--quick", "--only", "startup"])
    assert "## Starting" in capsys.readouterr().out
    command.main(["--only", "startup"])
    assert not list(tmp_path.iterdir())
    command.main(
        ["--quick", "--only", "startup", "--output", str(tmp_path / "page.md")]
    )
    assert "| python |" in (tmp_path / "page.md").read_text(encoding="utf-8")


def test_whole_run_is_written_to_the_results(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "PARTS", ("startup",))
    monkeypatch.setattr(startup, "PROGRAMS", {"python": ("-c", "pass")})
    monkeypatch.setattr(command, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(command, "find_spec", lambda name: name)
    caches_as_they_are(monkeypatch)
    command.main([])
    assert "Written by `python -m benchmarks` on" in (
        tmp_path / "RESULTS.md"
    ).read_text(encoding="utf-8")


def test_whole_run_without_a_peer_says_that_it_will_not_be_written(monkeypatch, capsys):
    monkeypatch.setattr(
        command, "find_spec", lambda name: None if name == "tensorflow" else name
    )
    assert command._results(command.parse(["--quick"]), command.PARTS) is None
    assert capsys.readouterr().err == ""
    assert command._results(command.parse([]), command.PARTS) is None
    assert "does not find tensorflow" in capsys.readouterr().err
    monkeypatch.setattr(command, "find_spec", lambda name: name)
    assert command._results(command.parse([]), command.PARTS) == command.RESULTS
    assert "lack the columns of GradBench's C++" in capsys.readouterr().err


def test_part_that_fails_does_not_lose_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "PARTS", ("sweep", "startup", "matrix_rules"))
    monkeypatch.setattr(startup, "PROGRAMS", {"python": ("-c", "pass")})
    monkeypatch.setattr(command, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(command, "find_spec", lambda name: name)

    def fails(*_):
        raise MemoryError("none is left")

    monkeypatch.setattr(sweep, "measure", fails)
    monkeypatch.setattr(matrix_rules, "measure", fails)
    caches_as_they_are(monkeypatch)
    with pytest.raises(SystemExit, match=r"lacks sweep, matrix_rules.*only printed"):
        command.main([])
    shown = capsys.readouterr()
    assert "| python |" in shown.out
    assert shown.err.count("MemoryError: none is left") == 2
    assert not list(tmp_path.iterdir())
    page = tmp_path / "page.md"
    with pytest.raises(SystemExit, match=r"printed above\.$"):
        command.main(["--output", str(page)])
    assert "| python |" in page.read_text(encoding="utf-8")


def test_what_would_fail_at_the_end_is_refused_at_once(tmp_path, monkeypatch, capsys):
    for file in (tmp_path, tmp_path / "none" / "page.md"):
        with pytest.raises(SystemExit):
            command.parse(["--output", str(file)])
        assert "name a file in a folder that exists" in capsys.readouterr().err
    caches_as_they_are(monkeypatch)
    with pytest.raises(SystemExit, match="has no folder tools/manual"):
        command.main(["--only", "gradbench", "--gradbench", str(tmp_path)])


def test_flags_name_the_parts():
    assert command.parse(["--only", "steps", "--only", "sweep"]).only == [
        "steps",
        "sweep",
    ]
    with pytest.raises(SystemExit):
        command.parse(["--only", "everything"])


@pytest.mark.on_ci("the code of every benchmark; nothing shorter shows this")
def test_torch_is_imported_by_its_own_files_alone():
    for file in FOLDER.glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert ("torch" in names) == ("torch" in file.stem.split("_")), file.name
    assert "torch" not in sys.modules
