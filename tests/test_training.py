"""Laws of the training of one network: it is `descent.run`, and neither looks nor kills
nor checkpoints change a bit.
"""

import functools
import json
import math
import os
import subprocess
import sys
import types
from itertools import count
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research import (
    descent,
    losses,
    models,
    objectives,
    runs,
    samplers,
    schedules,
    update_rules,
)
from research.descent import _host_loop
from research.descent import _train as loop
from research.descent._train_loop import compile_training, loop_over
from research.descent._train_progress import Progress
from research.runs import checkpoints
from research.types import Batch, Checkpoint, Sampler

COMPILE_QUICKLY = CHILDREN_COMPILE_QUICKLY = True  # tests/conftest.py

TOP = Path(__file__).parent.parent
MODEL = models.mlp(
    (3, 4, 2), activation="tanh", initialiser="lecun_normal", dtype=jnp.float32
)
OBJECTIVE = objectives.empirical_risk(MODEL, losses.softmax_cross_entropy)
KEY = jax.random.key(7)
SAMPLER = samplers.minibatch(20, 6)  # Three steps an epoch; two examples sit each out.
RULE = update_rules.adam(schedules.inverse_time(0.05, 4.0))
EPOCHS = 2
_generator = np.random.default_rng(0)
DATA = Batch(
    jnp.array(_generator.normal(size=(20, 3)), jnp.float32),
    jnp.array(_generator.integers(0, 2, 20), jnp.int32),
)


def noisy_objective(params, batch):
    """With a mask on the inputs, as dropout makes one."""
    kept = jax.random.uniform(batch.key, batch.x.shape, jnp.float32) < 0.5
    return OBJECTIVE(params, batch._replace(x=jnp.where(kept, batch.x, 0)))


def start(model=MODEL):
    return model.init(jax.random.key(0))


def fit(objective=OBJECTIVE, rule=RULE, dataset=DATA, sampler=SAMPLER, **options):
    """A training with defaults."""
    options = {
        "num_epochs": EPOCHS,
        "params": start(),
        "key": jax.random.key(1),
    } | options
    return descent.train(objective, rule, dataset, sampler, **options)


def bits(trained):
    """All that a training leaves, but for the seconds."""
    return jax.tree.map(
        lambda a: np.asarray(a).tobytes(),
        trained._replace(seconds=0, compile_seconds=0),
    )


@pytest.fixture
def one_program(monkeypatch):
    """Every training of a test uses the program that the first has compiled; the
    program keeps no place of its own.
    """
    made = []

    def once(*words, **options):
        made[:] = made or [compile_training(*words, **options)]
        return made[0]

    monkeypatch.setattr(loop, "compile_training", once)


@pytest.fixture
def every_step_is_looked_at(monkeypatch):
    monkeypatch.setattr(loop, "FIRST_LOOK", 1)
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_LOOKS", 0.0)


@pytest.mark.on_ci(
    "noise and descent.run; "
    "test_a_rule_that_averages_is_evaluated_and_given_at_its_average has the same "
    "batches step by step"
)
@pytest.mark.thorough("without noise", but="True")
@pytest.mark.parametrize("noisy", [False, True])
def test_a_training_is_a_run_of_descent_on_the_same_batches(noisy):
    """Up to the rounding of float32: descent's loops have lengths that XLA knows, and
    may be compiled otherwise.
    """
    objective = noisy_objective if noisy else OBJECTIVE
    trained = fit(objective, noisy=noisy)
    init, step = descent.build(objective, RULE, DATA)
    run = lambda state: descent.run(
        step,
        state,
        SAMPLER,
        jax.random.key(1),
        jnp.arange(EPOCHS),
        noisy=noisy,
        observe=lambda state, info: info,
    )
    state, info = jax.jit(run)(init(start()))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)
    jax.tree.map(close, (trained.params, trained.steps), (state.params, info.steps))
    assert trained.steps.loss.shape == (EPOCHS, SAMPLER.num_batches)
    rates = [0.05 / (1 + t / 4) for t in range(6)]
    np.testing.assert_allclose(trained.steps.learning_rate.ravel(), rates, rtol=1e-6)
    assert trained.first_bad_step == -1


@pytest.mark.thorough(
    "two trainings; test_a_training_is_a_run_of_descent_on_the_same_batches has "
    "the keys of noisy steps"
)
def test_each_step_of_a_noisy_training_has_a_key_of_its_own():
    """Of steps on the same examples, from the same params, the losses differ by the
    noise alone.
    """
    sampler = samplers.Sampler(
        5, 20, lambda key: jnp.broadcast_to(jnp.arange(20), (5, 20))
    )
    options = {"rule": update_rules.gradient_descent(0.0), "sampler": sampler}
    assert (
        len(np.unique(fit(noisy_objective, noisy=True, **options).steps.loss))
        == 5 * EPOCHS
    )
    assert len(np.unique(fit(**options).steps.loss)) == 1


@pytest.mark.on_ci(
    "four trainings; test_a_kill_at_any_step_and_a_resumption_leave_the_bits_alone "
    "looks after every step"
)
def test_looks_of_any_length_leave_the_bits_alone(one_program, monkeypatch):
    whole = fit()
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_LOOKS", 0.0)
    for steps in (
        3,
        2,
        1,
    ):  # The first look is at so many steps; each later one, at the next.
        monkeypatch.setattr(loop, "FIRST_LOOK", steps)
        looks = []
        assert bits(fit(on_progress=lambda *look, to=looks: to.append(look))) == bits(
            whole
        )
        np.testing.assert_allclose(
            [share for share, _ in looks], np.arange(steps, 7) / 6
        )
    assert [words for _, words in looks] == [
        f"epoch {t // 3 + 1} of 2, loss {loss:.3g}, rate {0.05 / (1 + t / 4):.2g}"
        for t, loss in enumerate(whole.steps.loss.ravel())
    ]


def test_the_loss_that_is_shown_is_the_mean_of_the_latest_tenth_of_an_epoch():
    looks, none = [], jnp.full(30, jnp.nan)
    reporter = loop.ProgressReporter(lambda *look: looks.append(look), 2, 30)
    info = descent.Info(jnp.arange(30.0) ** 2, none, none, none)
    at = Progress(1, 20, None, info, (), (), 0.0, "")
    reporter.show(at)
    reporter.show(at._replace(step=2))
    reporter.show(at._replace(step=0))  # Of this epoch no step is done.
    of_three, of_two = (17**2 + 18**2 + 19**2) / 3, (0 + 1) / 2
    assert [words for _, words in looks] == [
        f"epoch 2 of 2, loss {loss:.3g}" for loss in (of_three, of_two)
    ]
    np.testing.assert_allclose([share for share, _ in looks], [50 / 60, 32 / 60])


@pytest.mark.on_ci("seconds that are reported; nothing shorter shows this")
def test_the_seconds_of_a_training_are_those_of_all_its_looks(
    one_program, every_step_is_looked_at, monkeypatch
):
    """A clock that ticks by 1 when it is read: a look is a second, and there are six.
    Evaluations do not count.
    """
    clock = types.SimpleNamespace(perf_counter=functools.partial(next, count()))
    monkeypatch.setattr(loop, "time", clock)
    trained = fit(evaluate=lambda params: {"none": clock.perf_counter()})
    assert trained.seconds == EPOCHS * SAMPLER.num_batches
    assert trained.compile_seconds == 1


class Killed(Exception):
    pass


@pytest.mark.on_ci("Ctrl-C", but="Killed")
@pytest.mark.parametrize("error", [Killed, KeyboardInterrupt])
def test_a_kill_at_any_step_and_a_resumption_leave_the_bits_alone(
    tmp_path, monkeypatch, one_program, every_step_is_looked_at, error
):
    """What is killed has saved itself before; on Ctrl-C it saves itself then."""
    monkeypatch.setattr(
        checkpoints, "LARGEST_SHARE", math.inf
    )  # However long saving takes.
    evaluate = lambda params: {"loss": OBJECTIVE(params, DATA)}
    whole = fit(evaluate=evaluate)
    for last in range(1, EPOCHS * SAMPLER.num_batches + 1):
        between = 0.0 if error is Killed else math.inf
        kept = runs.checkpoints_in(tmp_path / str(last), between)("training")
        seen = []

        def kill(share, words, last=last, seen=seen):
            seen.append(share)
            if len(seen) == last:
                raise error

        with pytest.raises(error):
            fit(evaluate=evaluate, checkpoint=kept, on_progress=kill)
        again = []
        resumed = fit(
            evaluate=evaluate,
            checkpoint=kept,
            on_progress=lambda share, _, to=again: to.append(share),
        )
        assert bits(resumed) == bits(whole)
        # What is done is not done again.
        np.testing.assert_allclose(again, np.arange(last + 1, 7) / 6)


def test_a_finished_training_is_read_and_not_done_again(
    tmp_path, one_program, monkeypatch
):
    monkeypatch.setattr(_host_loop, "SECONDS_WORTH_KEEPING", 0.0)
    kept = runs.checkpoints_in(tmp_path)("training")
    whole, looks = fit(checkpoint=kept), []
    assert bits(
        fit(checkpoint=kept, on_progress=lambda *look: looks.append(look))
    ) == bits(whole)
    assert not looks


@pytest.mark.thorough(
    "four trainings; the tests of averaging and of divergence, below, read evaluations"
)
def test_evaluations_stand_before_the_first_epoch_and_after_each():
    evaluate = jax.jit(
        lambda params: {
            "loss": OBJECTIVE(params, DATA),
            "norm": jnp.sum(params["dense_1"]["bias"] ** 2),
        }
    )
    found = fit(evaluate=evaluate).evaluations
    for epochs in range(EPOCHS + 1):
        params = fit(num_epochs=epochs).params if epochs else start()
        for name, value in evaluate(params).items():
            np.testing.assert_array_equal(found[name][epochs], value)
    assert {name: values.shape for name, values in found.items()} == {
        "loss": (3,),
        "norm": (3,),
    }
    assert fit().evaluations == {}


def test_a_rule_that_averages_is_evaluated_and_given_at_its_average():
    rule = update_rules.polyak_averaging(0.5)
    trained = fit(
        rule=rule, evaluate=lambda params: {"bias": params["dense_2"]["bias"][0]}
    )
    init, step = descent.build(OBJECTIVE, rule, DATA)
    state, step = init(start()), jax.jit(step)
    for epoch in range(EPOCHS):
        for indices in SAMPLER.indices(jax.random.fold_in(jax.random.key(1), epoch)):
            state, _ = step(state, descent.BatchIndices(indices))
    average = update_rules.evaluation_params(state.rule, state.params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7),
        trained.params,
        average,
    )
    np.testing.assert_array_equal(
        trained.evaluations["bias"][-1], trained.params["dense_2"]["bias"][0]
    )
    assert not np.allclose(
        average["dense_2"]["bias"], state.params["dense_2"]["bias"], rtol=1e-3
    )


def test_a_training_that_diverges_ends_with_a_result_and_the_first_bad_step():
    """x <- x - 1e10 x from 1 in float32: the second step's update is 1e20, and the
    square in its norm overflows.
    """
    objective = lambda x, batch: 0.5 * x**2 + 0 * jnp.sum(batch.x)
    params = jnp.ones((), jnp.float32)
    trained = fit(
        objective,
        update_rules.gradient_descent(1e10),
        params=params,
        evaluate=lambda x: {"f": x**2},
    )
    with np.errstate(over="ignore", invalid="ignore"):
        x, good = np.float32(1), []
        for _ in range(6):
            update = -np.float32(1e10) * x
            good.append(
                np.isfinite(np.float32(0.5) * x * x)
                and np.isfinite(np.sqrt(update * update))
            )
            x = x + update
    assert trained.first_bad_step == good.index(False) == 1
    assert trained.steps.loss.shape == (EPOCHS, 3)
    assert not np.isfinite(trained.params)
    np.testing.assert_array_equal(
        np.isfinite(trained.evaluations["f"]), [True, False, False]
    )


def test_nothing_is_widened_to_float64():
    """No array of the results, or of whatever the compiled loop computes; a schedule's
    rate, a scalar, may be wide.
    """
    trained = fit()
    assert {
        leaf.dtype for leaf in jax.tree.leaves((trained.params, trained.steps))
    } == {np.dtype("float32")}
    batches = jax.eval_shape(
        lambda key: descent.epoch_batches(SAMPLER, key, True), jax.random.key(0)
    )
    state = descent.build(OBJECTIVE, RULE, DATA).init(start())
    info = descent.Info(
        *(jax.ShapeDtypeStruct((3,), jnp.float32) for _ in descent.Info._fields)
    )
    make_step = lambda dataset: descent.build(noisy_objective, RULE, dataset).step
    traced = jax.make_jaxpr(loop_over(make_step))(
        state, info, batches, DATA, np.int32(0), np.int32(3)
    )
    wide = [
        (eqn.primitive, var.aval)
        for eqn in equations(traced.jaxpr)
        for var in eqn.outvars
        if is_wide(var.aval)
    ]
    assert not wide
    widened = jax.make_jaxpr(lambda x: x * np.float64(2.0))(jnp.ones(3, jnp.float32))
    assert any(
        is_wide(var.aval) for eqn in equations(widened.jaxpr) for var in eqn.outvars
    )  # So it can be seen.


def equations(jaxpr):
    """Those of a jaxpr and of all that it calls."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def is_wide(aval):
    return getattr(aval, "dtype", None) == jnp.float64 and aval.ndim > 0


def test_what_cannot_be_trained_is_refused_by_name():
    for wrong in (0, -1, 2.0, True):
        with pytest.raises(
            ValueError, match=r"num_epochs must be a positive integer; got num_epochs="
        ):
            fit(num_epochs=wrong)
        with pytest.raises(
            ValueError, match=r"devices must be a positive integer; got devices="
        ):
            fit(devices=wrong)
    with pytest.raises(
        ValueError,
        match=(
            r"devices=2, but JAX has only 1\..*backend\.configure\(devices=2, pool=2\)"
        ),
    ):
        fit(devices=2)
    with pytest.raises(TypeError, match="params must be floating"):
        fit(params={"w": jnp.arange(3)})
    with pytest.raises(TypeError, match="rule"):
        fit(rule=update_rules.adam)


@pytest.mark.thorough("four of six values", but=r"^(1\.0|values2)-")
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (1.0, r"it returns 1\.0\. Return for example"),
        (None, "it returns None"),
        ({"f": np.ones(2)}, r"the value of 'f' is an array of float64\[2\]"),
        ({"f": "a"}, "the value of 'f' is 'a'"),
        ({"f": None}, "the value of 'f' is None"),
        ({"f": 1j}, "the value of 'f' is 1j"),
    ],
)
def test_evaluations_that_are_not_numbers_are_refused_by_name(values, message):
    with pytest.raises(
        TypeError,
        match=f"evaluate must return a dict from names to numbers; {message}",
    ):
        fit(evaluate=lambda params: values)


def test_names_of_evaluations_that_change_are_refused_at_once():
    names = iter([("f",), ("f", "more")])
    message = r"names each time; it returns \['f', 'more'\] after epoch 1, and \['f'\]"
    with pytest.raises(ValueError, match=message):
        fit(evaluate=lambda params: dict.fromkeys(next(names), 1.0))


@pytest.mark.on_ci("a training in each of two dtypes; nothing shorter shows this")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_training_in_half_precision_records_its_rate_and_its_steps(dtype, tmp_path):
    params, data = (
        jax.tree.map(
            lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, t
        )
        for t in (start(), DATA)
    )
    rate = 1.23e-8  # Below the range of float16.
    trained = fit(
        rule=update_rules.heavy_ball(rate), params=params, dataset=data, num_epochs=1
    )
    assert trained.steps.loss.dtype == dtype
    np.testing.assert_allclose(trained.steps.learning_rate, rate, rtol=1e-6)
    runs.write_step_metrics(tmp_path / "a.csv", trained.steps)
    lines = (tmp_path / "a.csv").read_text().splitlines()
    column = lines[0].split(",").index("loss")
    written = [float(line.split(",")[column]) for line in lines[1:]]
    np.testing.assert_array_equal(written, trained.steps.loss.astype(float).ravel())


def test_data_that_do_not_belong_together_are_refused():
    train = lambda dataset, n=20, key=KEY: descent.train(
        OBJECTIVE,
        RULE,
        dataset,
        samplers.minibatch(n, 6),
        num_epochs=1,
        params=start(),
        key=key,
    )
    with pytest.raises(
        ValueError,
        match=(
            r"built for num_examples=30, but the dataset has 20 examples\. Build it "
            r"with n=20"
        ),
    ):
        train(
            DATA, n=30
        )  # JAX would take the last example in the place of those that there are not.
    late = Sampler(
        1,
        2,
        lambda key: (
            jnp.where(jax.random.bernoulli(key, 0.1), 20, 0) * jnp.ones((1, 2), int)
        ),
    )
    negative = Sampler(1, 2, lambda key: jnp.full((1, 2), -1))
    for sampler, index in (
        (late, 20),
        (negative, -1),
    ):  # In some epoch, not in the first.
        with pytest.raises(
            ValueError,
            match=(
                f"the sampler draws index {index}, which is outside the dataset of 20"
            ),
        ):
            fit(
                sampler=sampler, num_epochs=100, rule=update_rules.gradient_descent(0.1)
            )
    with pytest.raises(
        ValueError,
        match="all arrays of a dataset must have the same number of examples",
    ):
        train(Batch(DATA.x, DATA.y[:-1]))
    with pytest.raises(ValueError, match="the dataset has no examples"):
        train(Batch(DATA.x[:0], DATA.y[:0]))
    with pytest.raises(TypeError, match=r"must be a research\.types\.Batch; got tuple"):
        train((DATA.x, DATA.y))
    with pytest.raises(
        TypeError, match=r"key must be a key, such as jax\.random\.key\(0\); got key=0"
    ):
        train(DATA, key=0)
    with pytest.raises(TypeError, match="key must be a JAX key"):
        train(DATA, key=jax.random.PRNGKey(0))
    with pytest.raises(TypeError, match="Pass split keys one at a time"):
        train(DATA, key=jax.random.split(KEY))


ON_TWO_DEVICES = """
import json, jax, numpy as np
from research import backend
backend.configure(devices=2, pool=2)
import sys
from tests import test_training
print(json.dumps(test_training.on_two_devices(sys.argv[1] == "True")))
"""


def many_kinds():
    """Parameters of several dtypes and sizes; the large one has a mean of its own."""
    return {
        "a": jnp.ones(3, jnp.float32),
        "b": jnp.ones((), float),
        "c": jnp.zeros((2, 2**14)),
        "d": jnp.ones((2, 1)),
    }


def of_many_kinds(params, batch):
    """The mean over examples of a squared sum, in which each parameter has a slope of
    its own.
    """
    ramp = jnp.arange(params["c"].size).reshape(params["c"].shape) / params["c"].size
    weights = params["a"] + params["d"][0] * jnp.sum(ramp * params["c"])
    return jnp.mean(
        (batch.x @ weights + params["b"] * batch.y[:, None] @ params["d"][1] - 1.0) ** 2
    )


def on_two_devices(of_kinds):
    """What the process with two devices finds; the losses of the noisy steps are also
    worked out by hand.
    """
    one, two = (
        fit(devices=devices, evaluate=lambda p: {"loss": OBJECTIVE(p, DATA)})
        for devices in (1, 2)
    )
    apart = jax.tree.map(lambda a, b: float(np.max(np.abs(a - b))), one[:3], two[:3])
    frozen = update_rules.gradient_descent(0.0)
    noisy = fit(
        noisy_objective, frozen, noisy=True, devices=2, num_epochs=1
    ).steps.loss[0]
    key = jax.random.fold_in(jax.random.key(1), 0)
    batches = descent.epoch_batches(SAMPLER, key, True)
    expected = []
    for step in range(3):
        halves = jnp.split(batches.indices[step], 2)
        keys = [jax.random.fold_in(batches.key[step], device) for device in range(2)]
        parts = [
            noisy_objective(start(), descent.gather(DATA, descent.BatchIndices(*own)))
            for own in zip(halves, keys, strict=True)
        ]
        expected.append(float(sum(parts) / 2))
    kinds = [], []
    # The last two are of one dtype, beside a loss of float64.
    single = [{"c": jnp.zeros((2, 2**14))}, {"a": jnp.ones(3, jnp.float32)}]
    for params in [many_kinds(), *single] if of_kinds else single[:1]:
        few = lambda params, batch: of_many_kinds(many_kinds() | params, batch)
        for leaves, devices in zip(kinds, (1, 2), strict=True):
            leaves += jax.tree.leaves(
                fit(few, RULE, devices=devices, params=params).params
            )
    refused = []
    for sampler, rule in (
        (samplers.minibatch(20, 5), RULE),
        (samplers.full_batch(20), RULE),
        (
            SAMPLER,
            update_rules.saga(0.1, 20),
        ),  # It looks at the indices, of which each device has its own.
    ):
        try:
            fit(sampler=sampler, rule=rule, devices=2)
        except ValueError as error:
            refused.append(str(error))
    return {
        "apart": max(jax.tree.leaves(apart)),
        "same bits": bits(one) == bits(two),
        "noisy": noisy.tolist(),
        "kinds": [[str(a.dtype) for a in leaves] for leaves in kinds],
        "kinds apart": [
            float(jnp.max(jnp.abs(a - b))) for a, b in zip(*kinds, strict=True)
        ],
        "expected": expected,
        "refused": refused,
    }


@pytest.mark.on_ci("a process with two devices; nothing shorter shows this")
@pytest.mark.thorough("params of several dtypes, four more trainings", but="False")
@pytest.mark.parametrize("of_kinds", [False, True])
def test_two_devices_share_each_batch_and_agree_with_one_up_to_rounding(of_kinds):
    path = os.pathsep.join([str(TOP), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, "-c", ON_TWO_DEVICES, str(of_kinds)]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["apart"] < 3e-6
    np.testing.assert_allclose(found["noisy"], found["expected"], rtol=1e-6)
    kinds = ["float32", "float64", "float64", "float64", "float64", "float32"]
    assert found["kinds"] == [kinds if of_kinds else ["float64"]] * 2
    assert max(found["kinds apart"]) < 1e-6
    assert (
        "batch_size must be a multiple of devices; got batch_size=5, devices=2"
        in found["refused"][0]
    )
    assert "samplers.minibatch(n, n)" in found["refused"][1]
    assert "this rule uses the indices of the batch itself" in found["refused"][2]


@pytest.mark.on_ci(
    "other params, keys, data and rules; "
    "test_a_checkpoint_of_another_program_is_refused and "
    "test_a_checkpoint_beyond_the_last_epoch_is_refused have other refusals"
)
def test_a_checkpoint_of_another_training_is_refused():
    objective, data = (
        lambda x, batch: jnp.mean((x - batch.x) ** 2),
        Batch(jnp.arange(4.0), jnp.zeros(4)),
    )
    kept = []
    keep = Checkpoint(lambda: kept[-1] if kept else None, kept.append, lambda: True)
    options = {"params": jnp.array(9.0), "key": jax.random.key(0), "checkpoint": keep}
    rule = update_rules.gradient_descent(0.1)
    descent.train(
        objective, rule, data, samplers.minibatch(4, 2), num_epochs=3, **options
    )
    for size, num_epochs, evaluate in (
        (2, 1, None),
        (1, 3, None),
        (2, 3, lambda x: {"f": x}),
    ):
        with pytest.raises(
            ValueError, match="the checkpoint belongs to another training"
        ):
            descent.train(
                objective,
                rule,
                data,
                samplers.minibatch(4, size),
                num_epochs=num_epochs,
                evaluate=evaluate,
                **options,
            )
    for changed in (
        {"params": jnp.array(8.0)},
        {"key": jax.random.key(1)},
    ):  # All of the same shapes.
        with pytest.raises(ValueError, match="other params, state of the rule, key"):
            descent.train(
                objective,
                rule,
                data,
                samplers.minibatch(4, 2),
                num_epochs=3,
                **options | changed,
            )
    with pytest.raises(ValueError, match="state of the rule, key, data"):
        descent.train(
            objective,
            rule,
            data._replace(x=2 * data.x),
            samplers.minibatch(4, 2),
            num_epochs=3,
            **options,
        )
    for other, params in (
        (update_rules.adam(0.1), jnp.array(9.0)),
        (update_rules.gradient_descent(0.2), jnp.array(9.0)),
        (rule, jnp.array([9.0])),
    ):
        with pytest.raises(ValueError, match=r"state of the rule.*Use --fresh"):
            descent.train(
                objective,
                other,
                data,
                samplers.minibatch(4, 2),
                num_epochs=3,
                **options | {"params": params},
            )


def other_programs():
    """Another objective or rule whose initial state is that of the first training."""
    data = Batch(jnp.arange(4.0), jnp.zeros(4))
    squares = lambda x, batch: jnp.mean((x - batch.x) ** 2)
    penalised = lambda c: lambda x, batch: squares(x, batch) + c * x**2
    shifted = lambda a: lambda x, batch: squares(x, batch) + (x * a).sum()
    adamw, momentum = update_rules.adamw, update_rules.heavy_ball
    decay = lambda factor: update_rules.adam(schedules.step(0.1, factor, 2))
    arrays = jnp.linspace(0, 1, 300), jnp.linspace(0, 2, 300)
    yield "weight_decay", data, *[(squares, adamw(0.1, weight_decay=w)) for w in (0, 1)]
    yield "momentum", data, *[(squares, momentum(0.1, momentum=m)) for m in (0.8, 0.9)]
    yield "schedule", data, *[(squares, decay(factor)) for factor in (0.5, 0.1)]
    yield "penalty", data, *[(penalised(c), adamw(0.1)) for c in (0.1, 0.2)]
    yield "an array", data, *[(shifted(a), adamw(0.1)) for a in arrays]


@pytest.mark.on_ci(
    "the other changes of a rule and of an objective",
    but="momentum",
)
@pytest.mark.parametrize(
    ("data", "first", "other"),
    [pytest.param(*case, id=name) for name, *case in other_programs()],
)
def test_a_checkpoint_of_another_program_is_refused(data, first, other):
    kept = []
    keep = Checkpoint(lambda: kept[-1] if kept else None, kept.append, lambda: True)

    def train(objective, rule, num_epochs=3):
        return descent.train(
            objective,
            rule,
            data,
            samplers.minibatch(4, 2),
            num_epochs=num_epochs,
            params=jnp.array(9.0),
            key=jax.random.key(0),
            checkpoint=keep,
        )

    before = train(*first)
    with pytest.raises(ValueError, match=r"the program of a step differs.*use --fresh"):
        train(*other)
    assert train(*first).params == before.params
    longer = train(*first, num_epochs=4)
    assert longer.steps.loss.shape == (4, 2)
    # Programs of another version of JAX cannot be compared.
    *values, program = kept[-1].values
    kept.append(kept[-1]._replace(values=[*values, program | {"jax": "0.0.1"}]))
    train(*other, num_epochs=4)
    # A checkpoint of an older version of the code has no program.
    kept.append(kept[-1]._replace(values=values))
    with pytest.raises(ValueError, match=r"another version of this code\. Use --fresh"):
        train(*first, num_epochs=4)


def test_a_step_that_calls_python_is_resumed():
    kept, heard = [], []
    keep = Checkpoint(lambda: kept[-1] if kept else None, kept.append, lambda: True)

    def objective(x, batch):
        jax.debug.callback(heard.append, x)
        return jnp.mean((x - batch.x) ** 2)

    for num_epochs in (2, 3):
        trained = descent.train(
            objective,
            update_rules.adam(0.1),
            Batch(jnp.arange(4.0), jnp.zeros(4)),
            samplers.minibatch(4, 2),
            num_epochs=num_epochs,
            params=jnp.array(9.0),
            key=jax.random.key(0),
            checkpoint=keep,
        )
        assert trained.steps.loss.shape == (num_epochs, 2)
    assert heard


def test_a_checkpoint_beyond_the_last_epoch_is_refused():
    objective = lambda x, batch: jnp.mean((x - batch.x) ** 2)
    data, kept = Batch(jnp.arange(4.0), jnp.zeros(4)), []
    keep = Checkpoint(lambda: kept[-1] if kept else None, kept.append, lambda: True)
    options = {"params": jnp.array(9.0), "key": jax.random.key(0), "checkpoint": keep}
    arguments = objective, update_rules.adam(0.1), data, samplers.minibatch(4, 2)
    descent.train(*arguments, num_epochs=3, **options)
    within = next(one for one in kept if one.values[1] == 1)
    kept[:] = [within._replace(values=[*within.values[:2], 1, *within.values[3:]])]
    with pytest.raises(ValueError, match="belongs to another training"):
        descent.train(*arguments, num_epochs=1, **options)


FORGETFUL = {
    "no state": lambda grads, state: jax.tree.map(jnp.negative, grads),
    "None": lambda grads, state: None,
    "None for a leaf": lambda grads, state: (
        jax.tree.map(lambda _: None, grads),
        state,
    ),
    "the wrong order": lambda grads, state: (state, grads),
    "one number": lambda grads, state: (jax.tree.map(jnp.sum, grads), state),
    "complex numbers": lambda grads, state: (
        jax.tree.map(lambda grad: grad * 1j, grads),
        state,
    ),
}


@pytest.mark.thorough("the other forms", but=r"^(no state|None for a leaf|complex)")
@pytest.mark.parametrize("name", FORGETFUL)
def test_update_that_does_not_return_updates_and_state_is_refused(name):
    rule = optax.GradientTransformation(
        lambda params: (),
        lambda grads, state, params=None: FORGETFUL[name](grads, state),
    )
    with pytest.raises(TypeError, match=r"update must return|the update at"):
        descent.train(
            OBJECTIVE, rule, DATA, SAMPLER, num_epochs=1, params=start(), key=KEY
        )
    with pytest.raises(TypeError, match=r"update must return|the update at"):
        descent.minimise(lambda params: OBJECTIVE(params, DATA), rule, start())


RESTLESS = {
    "shape": (lambda: jnp.zeros(1), lambda state: jnp.append(state, 0.0)),
    "dtype": (lambda: jnp.zeros((), jnp.int32), lambda state: state + 0.5),
    "structure": (lambda: None, lambda state: {"count": jnp.zeros(())}),
}


@pytest.mark.thorough("the other two", but="shape")
@pytest.mark.parametrize("name", RESTLESS)
def test_a_rule_whose_state_changes_its_form_is_refused_by_name(name):
    make, change = RESTLESS[name]
    rule = optax.GradientTransformation(
        lambda params: {"own": make()},
        lambda grads, state, params=None: (grads, {"own": change(state["own"])}),
    )
    told = "update must keep the structure, the shapes and the dtypes of the state"
    init, step = descent.build(OBJECTIVE, rule, DATA)
    for call in (
        lambda: descent.train(
            OBJECTIVE, rule, DATA, SAMPLER, num_epochs=1, params=start(), key=KEY
        ),
        lambda: descent.run(step, init(start()), SAMPLER, KEY, jnp.arange(2)),
        lambda: descent.minimise(lambda params: OBJECTIVE(params, DATA), rule, start()),
    ):
        with pytest.raises(TypeError, match=told):
            call()
    # A Python loop may go on.
    state, _ = step(init(start()), descent.BatchIndices(None))
    assert jax.tree.structure(state.params) == jax.tree.structure(start())


@pytest.mark.on_ci(
    "the place, and an objective that takes NaN; test_targets.py has NaN in labels, "
    "which is refused"
)
def test_data_with_an_empty_field_are_refused_with_its_place():
    data = DATA._replace(x=DATA.x.at[3, 1].set(jnp.nan))
    with pytest.raises(ValueError, match=r"dataset\.x contains NaN: 1 of 60.*\[3, 1\]"):
        descent.train(
            OBJECTIVE, RULE, data, SAMPLER, num_epochs=1, params=start(), key=KEY
        )
    # An objective may take NaN for a missing target.
    known = lambda params, batch: jnp.sum(
        jnp.where(jnp.isnan(batch.y), 0.0, (batch.x @ params["w"] - batch.y) ** 2)
    )
    masked = Batch(DATA.x, jnp.ones(20, jnp.float32).at[3].set(jnp.nan))
    options = {"num_epochs": 1, "params": {"w": jnp.zeros(3, jnp.float32)}, "key": KEY}
    descent.train(known, RULE, masked, SAMPLER, **options)


def test_infinities_whose_sum_is_nan_are_no_empty_fields():
    data = DATA._replace(
        x=DATA.x.at[3].set(jnp.array([jnp.inf, -jnp.inf, 0], jnp.float32))
    )
    descent.train(OBJECTIVE, RULE, data, SAMPLER, num_epochs=1, params=start(), key=KEY)
