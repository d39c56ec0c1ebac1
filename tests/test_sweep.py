"""Laws of lanes: a cell's result is its own, whatever stands beside it."""

import collections
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import research
from research import descent, runs, samplers, tuning, types, update_rules, workloads
from research.descent import (
    _codec,
    _host_loop,
    _shared_programs,
    _sweep,
    _sweep_batch,
    _sweep_program,
)
from research.descent._shared_programs import compile_once

COMPILE_QUICKLY = True  # tests/conftest.py


@pytest.fixture(scope="module")
def workload():
    return workloads.make_workload("breast_cancer_two_features")


@pytest.fixture(scope="module")
def program(workload):
    sampler = samplers.minibatch(len(workload.train.y), 100)
    return descent.compile_sweep(
        workload, update_rules.adam, sampler, 6, chunk=2, width=4
    )


RUNS = {"seed": np.arange(10), "learning_rate": np.geomspace(0.001, 0.5, 10)}


def train(program, rows):
    return descent.sweep(program, {name: values[rows] for name, values in RUNS.items()})


def assert_same_bits(a, b):
    jax.tree.map(
        np.testing.assert_array_equal, a._replace(seconds=0.0), b._replace(seconds=0.0)
    )


def take(trained, rows):
    first = jax.tree.map(
        lambda a: a[rows],
        trained._replace(passes=np.zeros(len(RUNS["seed"])), seconds=np.zeros(10)),
    )
    return first._replace(passes=trained.passes, seconds=0.0)


@pytest.mark.on_ci(
    "the other order and the full block; other neighbours and cells alone show the "
    "same",
    but="alone|twice",
)
@pytest.mark.parametrize(
    "rows",
    [
        np.arange(10)[::-1],
        np.array([3]),
        np.array([7, 2, 5, 5, 1]),
        np.array([0, 1, 2, 3]),
    ],
    ids=["permuted", "alone", "other neighbours and twice", "a full block"],
)
def test_a_cell_has_the_same_bits_in_any_company(program, rows):
    assert_same_bits(train(program, rows), take(train(program, np.arange(10)), rows))


@pytest.mark.on_ci("a second program; tests/bits/test_bit_contract.py has the law")
@pytest.mark.parametrize(
    "chunk", [3, pytest.param(6, marks=pytest.mark.thorough("a second chunk length"))]
)
def test_chunk_length_leaves_the_bits_alone(workload, program, chunk):
    other = descent.compile_sweep(
        workload, update_rules.adam, program.sampler, 6, chunk=chunk, width=4
    )
    whole = train(program, np.arange(10))
    assert_same_bits(train(other, np.arange(10)), whole)


FULL_BATCH = {
    "adam": update_rules.adam,
    "an average of the params": update_rules.polyak_averaging,
    "a line search": lambda learning_rate: update_rules.backtracking_descent(
        100 * learning_rate
    ),
}


@pytest.mark.on_ci("test_a_cell_has_the_same_bits_in_any_company has mini-batches")
@pytest.mark.thorough("the other rules", but="average")
@pytest.mark.parametrize("make_rule", FULL_BATCH.values(), ids=FULL_BATCH)
def test_full_batch_sweep_equals_one_run_alone(workload, make_rule):
    sampler = samplers.full_batch(len(workload.train.y))
    parts = ("validation", "train")
    program = descent.compile_sweep(
        workload, make_rule, sampler, 6, width=4, evaluate_on=parts
    )
    trained = train(program, np.arange(5))
    for i in (0, 4):
        key, rate = jax.random.key(RUNS["seed"][i]), RUNS["learning_rate"][i]
        init, step = descent.build(workload.objective, make_rule(rate), workload.train)
        _, info = descent.run(
            step,
            init(workload.init(jax.random.fold_in(key, descent.INIT))),
            sampler,
            jax.random.fold_in(key, descent.EPOCHS),
            jnp.arange(6),
            evaluate=lambda x: [
                workload.objective(x, getattr(workload, part)) for part in parts
            ],
        )
        for part, alone in zip(parts, info.evaluations, strict=True):
            together = trained.values_on[part][i, 1:]
            np.testing.assert_allclose(together, alone[:, 0], rtol=1e-12)
        np.testing.assert_allclose(trained.info.loss[i], info.loss, rtol=1e-12)
        np.testing.assert_allclose(
            trained.info.update_norm[i], info.update_norm, rtol=1e-10
        )
        # Where a rule averages, the params are the average, at which it is evaluated.
        params = jax.tree.map(lambda a, i=i: a[i], trained.params)
        last = workload.objective(params, workload.train)
        np.testing.assert_allclose(trained.values_on["train"][i, -1], last, rtol=1e-12)


@pytest.mark.thorough("a second chunk length", but="6")
@pytest.mark.on_ci(
    "two programs; test_a_cell_has_the_same_bits_in_any_company has mini-batches"
)
@pytest.mark.parametrize("chunk", [2, 6])
def test_full_batch_bits_depend_on_no_chunk_and_no_neighbour(workload, chunk):
    sampler = samplers.full_batch(len(workload.train.y))
    program, other = (
        descent.compile_sweep(
            workload, update_rules.adam, sampler, 6, chunk=length, width=4
        )
        for length in (3, chunk)
    )
    whole = train(program, np.arange(10))
    assert_same_bits(train(other, np.arange(10)), whole)
    rows = np.array([7, 2, 5])
    assert_same_bits(train(other, rows), take(whole, rows))


def test_full_batch_sweep_records_one_objective_for_a_dataset_with_a_key():
    def objective(x, batch):
        return jnp.mean((x - batch.x) ** 2) + (0.0 if batch.key is None else 1000.0)

    data = research.types.Batch(jnp.arange(3.0), None, jax.random.key(0))
    keyed = workloads.make_workload("quadratic")._replace(
        init=lambda key: jnp.zeros(()), objective=objective, train=data
    )
    program = descent.compile_sweep(
        keyed, update_rules.gradient_descent, samplers.full_batch(3), 4
    )
    values = descent.sweep(program, {"seed": [0], "learning_rate": [0.1]}).values
    assert (values > 1000).all()


@pytest.mark.thorough("a width that is stated", but="None")
@pytest.mark.on_ci("a program to read one number; nothing shorter shows this")
@pytest.mark.parametrize(("width", "wanted"), [(None, 16), (4, 4)])
def test_full_batch_has_a_width_of_its_own(workload, width, wanted):
    sampler = samplers.full_batch(len(workload.train.y))
    program = descent.compile_sweep(
        workload, update_rules.gradient_descent, sampler, 2, width=width
    )
    assert program.width == wanted


def test_full_batch_sweep_evaluates_the_objective_once_in_a_step():
    evaluated = []

    def objective(x, batch):
        jax.debug.callback(lambda x: evaluated.append(x), x)
        return (x - 1.0) ** 2

    bowl = workloads.make_workload("quadratic")._replace(
        init=lambda key: jnp.zeros(()), objective=objective, train=None
    )
    program = descent.compile_sweep(
        bowl, update_rules.gradient_descent, samplers.full_batch(1), 20, width=1
    )
    jax.effects_barrier()
    evaluated.clear()
    descent.sweep(program, {"seed": [0], "learning_rate": [0.1]})
    jax.effects_barrier()
    # The first value is recorded by the program that the rules share.
    assert len(evaluated) == 20 + 2


@pytest.mark.thorough("a sampler that does not state n", but="of n")
@pytest.mark.on_ci("two programs; nothing shorter shows this")
@pytest.mark.parametrize("stated", [True, False], ids=["of n", "of unstated n"])
def test_orders_drawn_beforehand_leave_the_bits_alone(workload, stated, monkeypatch):
    sampler = samplers.minibatch(len(workload.train.y), 100)
    if not stated:
        sampler = sampler._replace(num_examples=None)
    arguments = (workload, update_rules.adam, sampler, 6)
    beforehand = descent.compile_sweep(*arguments, chunk=2, width=4)
    monkeypatch.setattr(_sweep_program, "MOST_BYTES_OF_ORDERS", 0)
    inside = descent.compile_sweep(*arguments, chunk=2, width=4)
    runs = {name: values[:4] for name, values in RUNS.items()}
    epochs = np.arange(2, dtype=np.int32)
    assert beforehand.orders[0](runs, epochs).shape == (4, 2, 3, 100)
    assert inside.orders[0](runs, epochs) is None
    assert_same_bits(descent.sweep(beforehand, runs), descent.sweep(inside, runs))


@pytest.mark.thorough(
    "three sweeps; test_only_equal_programs_are_shared has how programs are shared"
)
def test_rules_share_the_programs_that_do_not_depend_on_the_rule(workload, monkeypatch):
    monkeypatch.setattr(_shared_programs, "_entries", collections.OrderedDict())
    sampler = samplers.minibatch(len(workload.train.y), 100)
    counts = []
    for rule in (update_rules.adam, update_rules.heavy_ball, update_rules.heavy_ball):
        program = descent.compile_sweep(workload, rule, sampler, 6, width=4)
        assert np.isfinite(train(program, np.arange(4)).values).all()
        counts.append(len(_shared_programs._entries))
    # The initial points, the orders, the rule's state and its epochs; of a second rule
    # only the last two; of the same rule nothing.
    assert counts == [4, 6, 6]


def test_only_equal_programs_are_shared():
    x = jnp.arange(3.0)
    add = lambda constant: lambda x: x + constant
    two, again = compile_once(add(2.0), x), compile_once(add(2.0), x)
    assert two is again
    quickly = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", not quickly)
    otherwise = compile_once(add(2.0), x)
    jax.config.update("jax_disable_most_optimizations", quickly)
    assert otherwise is not two  # It is compiled with more or less optimisation.
    table = np.array([1.0, 2.0, 3.0])
    for constant in (3.0, table, table + 1):
        other = compile_once(add(constant), x)
        assert other is not two
        np.testing.assert_array_equal(other(x), np.arange(3.0) + constant)
    # Programs that call Python have one text, whatever function they call.
    by_python = lambda factor: (
        lambda x: jax.pure_callback(lambda x: factor * np.asarray(x), x, x)
    )
    for factor in (2.0, 3.0):
        multiple = compile_once(by_python(factor), x)(x)
        np.testing.assert_array_equal(multiple, factor * np.arange(3.0))
    # Without their unused arguments, these two programs are equal.
    one, ten = jnp.asarray(1.0), jnp.asarray(10.0)
    for unused_first in (True, False):
        function = (lambda a, b: b + 1) if unused_first else (lambda a, b: a + 1)
        assert compile_once(function, one, ten)(one, ten) == 11 - 9 * (not unused_first)
    # These two, too: only the size of an unused array differs.
    for size in (3, 2):
        unused = jnp.arange(float(size))
        assert compile_once(lambda a, b: a + 1, one, unused)(one, unused) == 2
    # Of equal operations: one result is weakly typed, or has another name.
    as_pair = [compile_once(lambda x, n=n: {n: x + 2.0}, x)(x) for n in "ab"]
    assert [*map(list, as_pair)] == [["a"], ["b"]]
    kinds = [jnp.asarray(1.0), jnp.asarray(np.float64(1.0))]
    assert [one.weak_type for one in kinds] == [True, False]
    for one in kinds:
        assert compile_once(lambda x: x, one)(one).weak_type == one.weak_type


def test_lanes_agree_with_the_lone_run(workload, program):
    trained = train(program, np.array([6]))
    rate, seed = float(RUNS["learning_rate"][6]), int(RUNS["seed"][6])
    root = jax.random.key(seed)
    rule = update_rules.adam(rate)
    init, step = descent.build(workload.objective, rule, workload.train)
    state = init(workload.init(jax.random.fold_in(root, descent.INIT)))
    evaluate = lambda params: workload.objective(params, workload.train)
    last, info = descent.run(
        step,
        state,
        program.sampler,
        jax.random.fold_in(root, descent.EPOCHS),
        jnp.arange(6),
        evaluate=evaluate,
    )
    # The sums of a vmapped product run in another order: rounding, over 18 steps.
    np.testing.assert_allclose(
        trained.params["weights"][0], last.params["weights"], rtol=1e-12
    )
    np.testing.assert_allclose(trained.values[0, 0], evaluate(state.params), rtol=1e-14)
    np.testing.assert_allclose(trained.values[0, 1:4], info.evaluations[0], rtol=1e-12)
    np.testing.assert_allclose(
        trained.values[0, 4:], info.evaluations[1:, -1], rtol=1e-12
    )
    np.testing.assert_allclose(trained.info.loss[0], info.loss, rtol=1e-12)


def test_passes_count_example_gradients(workload, program):
    n = len(workload.train.y)
    np.testing.assert_allclose(
        train(program, np.array([0])).passes * n,
        [0, 100, 200, 300, 600, 900, 1200, 1500, 1800],
    )


def test_the_initial_point_depends_on_the_seed_alone(workload, program):
    same_seed = descent.sweep(
        program,
        {"seed": np.array([4, 4, 5]), "learning_rate": np.array([0.1, 0.2, 0.1])},
    )
    assert same_seed.values[0, 0] == same_seed.values[1, 0]
    assert same_seed.values[0, 0] != same_seed.values[2, 0]
    assert same_seed.values[0, 1] != same_seed.values[1, 1]


def test_a_diverged_cell_is_a_result_and_leaves_its_neighbours_alone():
    quadratic = workloads.make_workload("quadratic")
    program = descent.compile_sweep(
        quadratic, update_rules.gradient_descent, samplers.full_batch(1), 1000, width=4
    )
    rates = np.array([0.5, 1e3, 0.9])
    trained = descent.sweep(program, {"seed": np.arange(3), "learning_rate": rates})
    assert (trained.first_bad_step[[0, 2]] == -1).all()
    # f grows by (1 - ηλ)² a step until it passes 1.8e308: log(1e308) / (2 log 999) is
    # about 51 steps.
    assert 45 < trained.first_bad_step[1] < 60
    assert not np.isfinite(trained.values[1, -1])
    alone = descent.sweep(program, {"seed": np.array([0]), "learning_rate": rates[:1]})
    np.testing.assert_array_equal(alone.values[0], trained.values[0])


@pytest.mark.on_ci(
    "epochs of several steps; "
    "test_a_diverged_cell_is_a_result_and_leaves_its_neighbours_alone has epochs of "
    "one"
)
def test_first_bad_step_counts_the_steps_of_the_epochs_before_it(workload):
    """A step multiplies the params by about -20 times the mean of x², so that it takes
    more than one epoch until the loss passes 1.8e308.
    """
    steep = lambda w, batch: 1e30 * jnp.mean((batch.x @ w["weights"]) ** 2)
    program = descent.compile_sweep(
        workload._replace(objective=steep),
        update_rules.gradient_descent,
        samplers.minibatch(len(workload.train.y), 100),
        40,
        width=2,
    )
    trained = descent.sweep(program, {"seed": [1], "learning_rate": [1e-29]})
    bad = np.asarray(trained.info.first_bad_step[0])
    epoch = np.argmax(bad >= 0)
    assert epoch > 0
    assert trained.first_bad_step[0] == 3 * epoch + bad[epoch]


def test_a_sweep_traces_nothing(workload):
    traced = []

    def make_rule(learning_rate):
        traced.append(learning_rate)
        return update_rules.gradient_descent(learning_rate)

    program = descent.compile_sweep(
        workload, make_rule, samplers.full_batch(398), 2, width=4
    )
    once = len(traced)
    for rates in ([0.1], [0.1, 0.2, 0.3], np.geomspace(0.01, 1, 9)):
        descent.sweep(
            program,
            {"seed": np.zeros(len(rates), int), "learning_rate": np.array(rates)},
        )
    assert len(traced) == once


@pytest.mark.on_ci(
    "two programs, a run and a resume; nothing shorter records norms in a sweep"
)
def test_a_sweep_may_record_norms_of_gradients_and_its_other_results_stay(
    workload, tmp_path
):
    """The norms are those of a run of the same descent, also after a resume."""
    sampler = samplers.minibatch(len(workload.train.y), 100)
    cells = {"seed": np.arange(3), "learning_rate": np.array([0.1, 0.2, 0.3])}
    plain, recording = (
        descent.compile_sweep(
            *(workload, update_rules.adam, sampler, 4),
            chunk=2,
            width=2,
            gradient_norms=norms,
        )
        for norms in (False, True)
    )
    without, with_norms = (descent.sweep(p, cells) for p in (plain, recording))
    assert without.info.gradient_norm is None
    others = with_norms.info._replace(gradient_norm=None)
    assert_same_bits(without, with_norms._replace(info=others))

    root = jax.random.key(0)
    init, step = descent.build(
        workload.objective, update_rules.adam(0.1), workload.train
    )
    start = init(workload.init(jax.random.fold_in(root, descent.INIT)))
    order = jax.random.fold_in(root, descent.EPOCHS)
    _, info = descent.run(step, start, sampler, order, jnp.arange(4))
    np.testing.assert_allclose(
        with_norms.info.gradient_norm[0], info.gradient_norm, rtol=1e-12
    )

    made = runs.checkpoints_in(tmp_path)
    stopped = []

    def stop(progress):
        stopped.append(progress)
        if len(stopped) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        descent.sweep(recording, cells, stop, made)
    assert_same_bits(descent.sweep(recording, cells, checkpoints=made), with_norms)
    # The other program makes a checkpoint of another name.
    assert_same_bits(descent.sweep(plain, cells, checkpoints=made), without)


def test_progress_grows_to_one(program):
    seen = []
    descent.sweep(program, RUNS, seen.append)
    # Three blocks of three chunks.
    np.testing.assert_allclose([at.share for at in seen], np.arange(1, 10) / 9)
    assert [at.runs_done for at in seen] == [0, 0, 4, 4, 4, 8, 8, 8, 10]
    assert {at.runs for at in seen} == {10}


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ({"seed": [0]}, "runs must name"),
        ({"seed": [0], "learning_rate": [0.1], "momentum": [0.9]}, "runs must name"),
        ({"seed": [0, 1], "learning_rate": [0.1]}, "same shape"),
        ({"seed": [], "learning_rate": []}, "same shape"),
        ({"seed": [0.5], "learning_rate": [0.1]}, "seeds must be integers"),
        ({"seed": [-1], "learning_rate": [0.1]}, "seeds must be integers"),
        ({"seed": [0], "learning_rate": [np.nan]}, "learning_rate must be finite.*nan"),
        (
            {"seed": [0, 1], "learning_rate": [0.1, -0.1]},
            "at least 0; got learning_rate=-0.1 in run 1",
        ),
    ],
)
def test_bad_runs_are_named(program, runs, message):
    with pytest.raises(ValueError, match=message):
        descent.sweep(
            program, {name: np.array(values) for name, values in runs.items()}
        )


@pytest.mark.parametrize(
    "way",
    [
        lambda make_rule, names: descent.compile_sweep(
            workloads.make_workload("quadratic"),
            make_rule,
            samplers.full_batch(1),
            2,
            hyperparameters=names,
        ),
        lambda make_rule, names: tuning.time_alone(
            workloads.make_workload("quadratic"),
            make_rule,
            samplers.full_batch(1),
            dict.fromkeys(names, 0.1),
            2,
        ),
        lambda make_rule, names: tuning.measure(
            workloads.make_workload("quadratic"),
            make_rule if names == ("learning_rate",) else lambda lr: make_rule(lr),
            samplers.full_batch(1),
            2,
            seeds=[0],
            tuning_seeds=[1],
        ),
    ],
    ids=["sweep", "time", "measure"],
)
def test_a_function_that_does_not_make_the_rule_is_named(way):
    with pytest.raises(
        TypeError,
        match=r"a rule that is already made\. Pass its constructor, such as update_rul",
    ):
        way(update_rules.adam(0.1), ("learning_rate",))
    with pytest.raises(
        TypeError,
        match=r"hyperparameters must name the arguments of make_rule; got .* takes l",
    ):
        way(update_rules.adam, ("lr",))


def test_a_seed_is_no_hyperparameter(workload):
    with pytest.raises(ValueError, match="hyperparameters must not contain 'seed'"):
        descent.compile_sweep(
            *(workload, update_rules.adam, samplers.full_batch(398), 6),
            hyperparameters=("seed", "learning_rate"),
        )


@pytest.mark.parametrize(
    ("epochs", "chunk"), [(0, None), (6, 4), (6, 7), (6, 1), (True, None)]
)
def test_bad_lengths_are_named(workload, epochs, chunk):
    with pytest.raises(ValueError, match="num_epochs"):
        descent.compile_sweep(
            workload, update_rules.adam, samplers.full_batch(398), epochs, chunk=chunk
        )


@pytest.mark.parametrize("chunk", [2.5, np.float64(0.5), 0, math.nan])
def test_a_chunk_is_a_whole_number_of_epochs(workload, chunk):
    with pytest.raises(ValueError, match="chunk must be a positive integer; got chunk"):
        descent.compile_sweep(
            workload, update_rules.adam, samplers.full_batch(398), 10, chunk=chunk
        )


@pytest.mark.on_ci(
    "six programs; resume/test_blocks.py has other seeds, rates and lengths"
)
def test_runs_of_other_samplers_and_parts_are_not_taken_from_a_checkpoint(
    workload, tmp_path, monkeypatch
):
    monkeypatch.setattr(_host_loop, "SECONDS_WORTH_KEEPING", 0.0)
    kept = runs.checkpoints_in(tmp_path)
    n = len(workload.train.y)
    for sampler in (
        samplers.minibatch(n, 100),
        samplers.minibatch(n, 100, replacement=True),
        samplers.minibatch(n, 90),
    ):
        for parts in (("train",), ("test",)):
            program = descent.compile_sweep(
                workload, update_rules.adam, sampler, 2, evaluate_on=parts
            )
            alone = train(program, [0])
            found = descent.sweep(
                program,
                {name: values[:1] for name, values in RUNS.items()},
                checkpoints=kept,
            )
            assert_same_bits(found, alone)


@pytest.mark.on_ci("a second program; nothing shorter shows this")
def test_programs_of_other_chunks_and_widths_may_share_a_folder_of_checkpoints(
    workload, program, tmp_path, monkeypatch
):
    monkeypatch.setattr(_host_loop, "SECONDS_WORTH_KEEPING", 0.0)
    kept, few = runs.checkpoints_in(tmp_path), {n: v[:3] for n, v in RUNS.items()}
    other = descent.compile_sweep(
        workload, update_rules.adam, program.sampler, 6, chunk=3, width=4
    )
    found = [descent.sweep(one, few, checkpoints=kept) for one in (program, other)]
    assert_same_bits(*found)
    programs = program, other, program._replace(width=2)
    assert len({_sweep._name(one, few) for one in programs}) == 3


def test_seeds_of_any_integer_dtype_are_the_same_seeds(program):
    found = [
        descent.sweep(
            program,
            {"seed": np.array([4, 5], dtype), "learning_rate": np.array([0.1, 0.2])},
        ).values
        for dtype in (np.int64, np.int32, np.uint8)
    ]
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()


def test_values_in_bfloat16_come_back_from_a_checkpoint():
    values = jnp.array([[1.5, -2.0, jnp.inf]], jnp.bfloat16)
    back = _sweep_batch._decoded(_codec.as_numbers(values))
    assert back.dtype == jnp.bfloat16
    np.testing.assert_array_equal(back, np.asarray(values))


@pytest.mark.thorough(
    "three sweeps; test_only_equal_programs_are_shared has how programs are shared"
)
def test_data_of_two_sizes_and_dtypes_are_swept_in_one_process():
    objective = lambda w, batch: jnp.mean((batch.x @ w - batch.y) ** 2)
    finals = []
    for size, dtype in ((30, np.float64), (10, np.float64), (10, np.float32)):
        random = np.random.default_rng(0)
        x = random.normal(size=(size, 3)).astype(dtype)
        data = types.Batch(x, (x @ np.arange(3.0, dtype=dtype)).astype(dtype))
        workload = types.Workload(
            "mine", data, None, None, lambda key: jnp.zeros(3), objective, None, "",
            None, None,
        )  # fmt: skip
        rule, sampler = update_rules.heavy_ball, samplers.minibatch(size, 5)
        program = descent.compile_sweep(workload, rule, sampler, 20)
        runs = {"seed": [0], "learning_rate": [0.02]}
        finals.append(descent.sweep(program, runs).values[0, -1])
    assert np.allclose(finals, 0.0, atol=1e-2), finals
    assert len(set(finals)) == 3
