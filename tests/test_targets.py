"""Labels that are none never give a plausible number: concrete ones raise before
anything is traced, traced ones give NaN.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import descent, losses, models, objectives, samplers, update_rules
from research.types import Batch, Model, Workload

COMPILE_QUICKLY = True  # tests/conftest.py

N, K = 12, 3
X = jnp.asarray(np.random.default_rng(0).normal(size=(N, 4)))
CLASSES = np.arange(N) % K
GD = update_rules.gradient_descent(0.1)
# Loss, and its right targets for N examples.
PROBLEMS = {
    "softmax": (losses.softmax_cross_entropy, models.softmax(4, K), CLASSES),
    "logistic": (losses.logistic, models.logistic(4), CLASSES % 2),
    "hinge": (losses.hinge, models.logistic(4), CLASSES % 2),
    "one_hot": (
        losses.softmax_cross_entropy_one_hot,
        models.softmax(4, K),
        np.eye(K)[CLASSES],
    ),
}
# What becomes of right targets, and which losses have a value for them all the same.
WRONG = {
    "from 1": (lambda y: y + 1, ()),
    "one out of range": (
        lambda y: np.where(np.arange(N).reshape(-1, *[1] * (y.ndim - 1)) == 5, K, y),
        (),
    ),
    "-1 and 1": (lambda y: np.where(y > 0, 1, -1), ()),
    "negative": (lambda y: -1 - y, ()),
    "halves": (lambda y: y / 2 + 0.25, ("logistic",)),
    "NaN": (lambda y: y + np.nan, ()),
    "one-hot": (lambda y: np.eye(K)[CLASSES], ("one_hot",)),
    "one-hot integers": (lambda y: np.eye(K, dtype=int)[CLASSES], ("one_hot",)),
    "an axis too many": (lambda y: y[:, None], ()),
    "an axis too few": (lambda y: y[..., 0], ()),
    "words": (lambda y: np.full(y.shape, "cat"), ()),
}
CASES = [
    (problem, wrong)
    for problem in PROBLEMS
    for wrong, (_, fine) in WRONG.items()
    if problem not in fine
]


def problem(name):
    loss, model, y = PROBLEMS[name]
    objective = objectives.regularised(
        objectives.empirical_risk(model, loss), objectives.l2_penalty(0.1)
    )
    return objective, model, model.init(jax.random.key(0)), y


def beginnings(objective, model, params):
    """Every place where targets are still concrete, as a function of the batch."""
    workload = lambda batch: Workload(
        "w", batch, None, None, lambda key: params, objective, None, "", model, None
    )
    step = lambda batch: descent.build(objective, GD, batch).step
    init = descent.build(objective, GD, None).init
    state, key = init(params), jax.random.key(0)
    return {
        "objective": lambda b: objective(params, b),
        "gradient": lambda b: jax.grad(objective)(params, b),
        "slices": lambda b: objectives.in_slices(objective, 5)(params, b),
        "examples": lambda b: objectives.per_example_gradients(objective)(params, b),
        "step": lambda b: step(b)(state, descent.BatchIndices(jnp.array([0]))),
        "run": lambda b: descent.run(
            step(b), state, samplers.minibatch(N, 4), key, jnp.arange(2)
        ),
        "train": lambda b: descent.train(
            objective,
            GD,
            b,
            samplers.minibatch(N, 4),
            num_epochs=1,
            params=params,
            key=key,
        ),
        "lanes": lambda b: descent.compile_sweep(
            workload(b), update_rules.adam, samplers.minibatch(N, 4), 2, width=1
        ),
        "accuracy": lambda b: objectives.accuracy(model)(params, b),
        "accuracy in slices": lambda b: objectives.in_slices(
            objectives.accuracy(model), 5
        )(params, b),
    }


@pytest.mark.on_ci("logistic and hinge losses", but="^(softmax|one_hot)-")
@pytest.mark.thorough("of the other losses, most mistakes", but=r"^softmax-|-from 1\]")
@pytest.mark.parametrize(("name", "wrong"), CASES)
def test_wrong_targets_are_refused_wherever_a_training_begins(name, wrong):
    objective, model, params, y = problem(name)
    batch = Batch(X, WRONG[wrong][0](y))
    for place, call in beginnings(objective, model, params).items():
        if name == "one_hot" and place.startswith("accuracy"):
            continue
        with pytest.raises(
            (ValueError, TypeError),
            match=r"targets|labels|all arrays of a dataset|dataset must hold numbers|"
            r"contains NaN",
        ):
            call(batch)


TRACED = {
    "logistic": (losses.logistic, (), [-1, 2, 1.5, np.nan]),
    "hinge": (losses.hinge, (), [-1, 2, 0.5, np.nan]),
    "softmax": (losses.softmax_cross_entropy, (K,), [-1, K, 100, 2**31 - 1]),
    "sequence": (losses.sequence_cross_entropy, (2, K), [[0, K], [K, K], [-1, 99]]),
}


@pytest.mark.on_ci("logistic and hinge losses", but="sum-softmax")
@pytest.mark.thorough("the mean, and sequences", but="sum-(?!seq)")
@pytest.mark.parametrize("name", TRACED)
@pytest.mark.parametrize("reduce", [jnp.sum, jnp.mean], ids=["sum", "mean"])
def test_a_traced_label_out_of_range_makes_value_and_gradient_nan(name, reduce):
    """A gradient of 0 beside a loss of NaN would leave such an example out of a
    training in silence.
    """
    loss, shape, labels = TRACED[name]
    together = lambda z, y: reduce(jax.vmap(loss)(z, y))

    @jax.jit
    def derivatives(z, y):
        return *jax.value_and_grad(together)(z, y), jax.jacfwd(together)(z, y)

    for sign in (1, -1):  # Either side of a kink.
        logits = sign * np.linspace(0.5, 2.0, max(1, np.prod(shape, dtype=int)))
        logits = np.stack([logits.reshape(shape)] * 2)
        for label in labels:
            y = np.stack([np.zeros_like(label), label])
            value, slope, forwards = derivatives(logits, y)
            assert np.isnan(value)
            assert np.isnan(slope[1]).any()
            assert np.isfinite(slope[0]).all()  # The other example keeps its own.
            assert np.isnan(forwards).any()


@pytest.mark.on_ci("two classes", but="softmax")
@pytest.mark.parametrize("name", ["softmax", "logistic"])
def test_accuracy_of_traced_labels_that_are_none_is_nan(name):
    _, model, params, y = problem(name)
    metric = jax.jit(objectives.accuracy(model))
    for right in (y, y.astype(float), y.astype(np.uint8)):
        assert 0 <= metric(params, Batch(X, right)) <= 1
    for wrong in (
        "from 1",
        "one out of range",
        "-1 and 1",
        "negative",
        "halves",
        "NaN",
    ):
        assert np.isnan(metric(params, Batch(X, WRONG[wrong][0](y)))), wrong
    for wrong in ("one-hot", "an axis too many"):
        with pytest.raises(ValueError, match="labels must"):
            metric(params, Batch(X, WRONG[wrong][0](y)))


@pytest.mark.on_ci(
    "the accuracy; test_targets_of_one_class_are_sent_to_a_loss_for_two_classes has "
    "the loss"
)
def test_accuracy_of_one_logit_an_example_is_not_taken_for_that_of_one_class():
    """The argmax over one class is class 0: an accuracy of exactly the share of
    zeros.
    """
    model = models.softmax(4, 2)
    column = model._replace(
        apply=lambda params, x, key=None: model.apply(params, x)[..., :1]
    )
    metric, params = objectives.accuracy(column), model.init(jax.random.key(0))
    assert metric(params, Batch(X, CLASSES[:, None] % 2)) == np.mean(
        (np.asarray(column.apply(params, X))[:, 0] > 0) == CLASSES % 2
    )
    with pytest.raises(ValueError, match=r"have one class.*logits\[\.\.\., 0\]"):
        metric(params, Batch(X, CLASSES % 2))


def test_targets_of_one_class_are_sent_to_a_loss_for_two_classes():
    with pytest.raises(ValueError, match=r"have one class.* losses\.logistic"):
        losses.check_targets(
            losses.softmax_cross_entropy, jnp.zeros((2, 1)), np.array([0, 0])
        )


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (losses.softmax_cross_entropy, 0),
        (losses.multiclass_margin, 0),
        (losses.sequence_cross_entropy, 0),
        (losses.kl_divergence, 1.0),
    ],
)
def test_one_number_is_not_logits(loss, target):
    with pytest.raises(ValueError, match=r"with a last axis .* got shape \(\)"):
        losses.check_targets(loss, jnp.zeros(()), np.array(target))


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        (
            (N, 1),
            (N,),
            r"shape \(1,\), but the target has shape \(\). Use y\[..., N",
        ),
        (
            (N,),
            (N, 1),
            r"shape \(\), but the target has shape \(1,\). Use y\[..., 0",
        ),
        ((N, 3), (N, 2), "Give the targets the shape of the predictions"),
    ],
)
@pytest.mark.parametrize("jit", [False, True])
def test_targets_of_another_shape_are_refused_in_the_words_of_a_model(
    prediction, target, message, jit
):
    model = Model(lambda key: 0.0, lambda params, x, key=None: jnp.zeros(prediction))
    for loss in (losses.squared_error, functools.partial(losses.huber, delta=2.0)):
        objective = objectives.empirical_risk(model, loss)
        objective = jax.jit(objective) if jit else objective
        with pytest.raises(ValueError, match=message) as told:
            objective(0.0, Batch(jnp.zeros(N), jnp.zeros(target)))
        assert "vmap" not in str(told.value)


def test_targets_of_a_loss_of_ones_own_are_left_to_it():
    losses.check_targets(
        lambda z, y: jnp.sum(z) * y, jnp.zeros((2, 3)), np.array([7, 8])
    )
    jax.jit(lambda y: losses.check_targets(losses.logistic, jnp.zeros(2), y))(
        jnp.array([7, 8])
    )  # A tracer passes.


def test_check_labels_names_what_is_no_number_and_no_count():
    with pytest.raises(TypeError, match=r"labels must be numbers.*np\.unique.*text"):
        losses.check_labels(np.array(["cat"]), 2)
    for wrong in (2.0, True, "2", 0):
        with pytest.raises(
            ValueError, match="num_classes must be a positive integer; got num_classes="
        ):
            losses.check_labels(np.array([0]), wrong)


def test_a_loss_that_cannot_be_hashed_is_taken():
    class Scaled:
        __hash__ = None

        def __call__(self, prediction, target):
            return 2 * losses.squared_error(prediction, target)

    batch = Batch(jnp.ones((3, 1)), jnp.ones(3))
    risk = objectives.empirical_risk(models.linear(1), Scaled())
    params = {"weights": jnp.zeros(1), "intercept": jnp.zeros(())}
    assert risk(params, batch) == 1.0
