"""A workload's parts fit together: jax's gradient vanishes at an optimum that numpy
found, and no part leaks.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits

from research import datasets, descent, optima, samplers, update_rules, workloads
from research.types import Batch

COMPILE_QUICKLY = True  # tests/conftest.py

SMALL = {
    "overlapping_50k": {"n": 2_000},
    "overlapping_1m": {"n": 3_000},
    "ill_conditioned": {"n": 2_000},
    "noisy_quadratic": {"n": 500},
}
WITH_DATA = [
    name for name in workloads.WORKLOADS if name not in ("quadratic", "rosenbrock")
]
WITHOUT_DATA = ["quadratic", "rosenbrock"]
# Of those that are made alike, .ci/run has one, and make test has three of these: each
# compiles its own gradient.
FEW = (
    r"^(diabetes|breast_cancer|digits|noisy_quadratic|overlapping_50k|quadratic|"
    r"rosenbrock)(-True)?\]"
)
FEWEST = r"^(diabetes|digits|quadratic)(-True)?\]"


def make(name, **options):
    return workloads.make_workload(name, **SMALL.get(name, {}), **options)


@functools.cache
def value_and_gradient(name, **options):
    """(params, batch) -> the workload's objective and its gradient, one program."""
    return jax.jit(jax.value_and_grad(make(name, **options).objective))


def norm(tree):
    return float(jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))))


@pytest.mark.thorough("all rows in the training part, and half the workloads", but=FEW)
@pytest.mark.on_ci("the other workloads", but=FEWEST)
@pytest.mark.parametrize("holdout", [True, False])
@pytest.mark.parametrize("name", WITH_DATA)
def test_jax_gradient_vanishes_at_the_optimum(name, holdout):
    holdout_or_not = {} if holdout else {"holdout": False}
    workload = make(name, **holdout_or_not)
    gradient = lambda *at: value_and_gradient(name, **holdout_or_not)(*at)[1]
    zeros = jax.tree.map(jnp.zeros_like, workload.optimum.params)
    initial = norm(gradient(zeros, workload.train))
    assert norm(gradient(workload.optimum.params, workload.train)) <= 1e-12 * initial
    np.testing.assert_allclose(
        workload.optimum.initial_gradient_norm, initial, rtol=1e-13
    )
    assert workload.optimum.gradient_norm <= 1e-12 * initial


@pytest.mark.on_ci(
    "the quadratic function, whose value test_objective_at_the_optimum_is_its_value "
    "has",
    but="rosenbrock",
)
@pytest.mark.parametrize("name", WITHOUT_DATA)
def test_jax_gradient_vanishes_at_the_known_minimiser(name):
    workload = make(name)
    gradient = jax.grad(workload.objective)
    assert (
        norm(gradient(workload.optimum.params, None))
        <= 1e-14 * workload.optimum.initial_gradient_norm
    )
    np.testing.assert_allclose(
        workload.optimum.initial_gradient_norm,
        norm(gradient(jnp.zeros_like(workload.optimum.params), None)),
        rtol=1e-13,
    )


@pytest.mark.thorough("half of the workloads", but=FEW)
@pytest.mark.on_ci("the other workloads", but=FEWEST)
@pytest.mark.parametrize("name", workloads.WORKLOADS)
def test_objective_at_the_optimum_is_its_value(name):
    workload = make(name)
    value, _ = value_and_gradient(name)(workload.optimum.params, workload.train)
    assert float(value) == pytest.approx(workload.optimum.value, rel=1e-14, abs=0.0)


@pytest.mark.thorough("half of the workloads", but=FEW)
@pytest.mark.on_ci("the other workloads", but=FEWEST)
@pytest.mark.parametrize("name", workloads.WORKLOADS)
def test_initial_point_fits_and_follows_its_key(name):
    workload = make(name)
    drawn, other = (workload.init(jax.random.key(seed)) for seed in (0, 1))
    again = workload.init(jax.random.key(0))
    structure = jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), workload.optimum.params
    )
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), drawn) == structure
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, drawn, again)))
    assert norm(jax.tree.map(jnp.subtract, drawn, other)) > 0
    value, _ = value_and_gradient(name)(drawn, workload.train)
    assert value > workload.optimum.value


@pytest.mark.on_ci("the other workloads", but=r"^(diabetes|overlapping_50k)\]")
@pytest.mark.parametrize("name", WITH_DATA)
def test_parts_share_out_70_15_15(name):
    workload = make(name)
    sizes = [
        len(part.y) for part in (workload.train, workload.validation, workload.test)
    ]
    total = sum(sizes)
    assert all(
        abs(size - share * total) <= 1
        for size, share in zip(sizes, (0.7, 0.15, 0.15), strict=True)
    )
    assert name not in SMALL or sizes[0] == SMALL[name]["n"]
    whole = make(name, holdout=False)
    assert whole.validation is None
    assert whole.test is None
    assert len(whole.train.y) == (SMALL[name]["n"] if name in SMALL else total)


def test_parts_are_disjoint_and_cover_the_set():
    # Undo the scaling: each row of the set is in one part, once.
    workload = make("breast_cancer")
    dataset = datasets.load("breast_cancer")
    (train_x, _), *_ = datasets.split(dataset.x, dataset.y, workloads.SPLIT_SEED)
    mean, sd = datasets.mean_and_sd(train_x)
    rows = np.concatenate(
        [
            np.asarray(part.x) * sd + mean
            for part in (workload.train, workload.validation, workload.test)
        ]
    )
    labels = np.concatenate(
        [part.y for part in (workload.train, workload.validation, workload.test)]
    )
    ours, theirs = (
        table[np.lexsort(table.T)]
        for table in (
            np.column_stack([rows, labels]).round(9),
            np.column_stack([dataset.x, dataset.y]).round(9),
        )
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-8)


@pytest.mark.parametrize(
    "name", [name for name in WITH_DATA if name != "noisy_quadratic"]
)
def test_training_part_is_standardised(name):
    x = np.asarray(make(name).train.x)
    varying = x.max(axis=0) > x.min(axis=0)
    np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(x[:, varying].std(axis=0), 1.0, rtol=1e-12)
    assert not x[:, ~varying].any()
    assert varying.all() or name == "digits"


def test_test_part_is_not_seen_by_the_fit(monkeypatch):
    # Other rows in the test part: the training part and the optimum do not change by a
    # bit.
    before = make("diabetes")
    dataset = datasets.load("diabetes_raw")
    order = np.random.default_rng(workloads.SPLIT_SEED).permutation(len(dataset.y))
    held_out = order[len(before.train.y) :]
    x, y = dataset.x.copy(), dataset.y.copy()
    x[held_out] *= 100.0
    y[held_out] -= 1000.0
    monkeypatch.setattr(datasets, "load", lambda name: dataset._replace(x=x, y=y))
    after = workloads.diabetes.__wrapped__(dtype=np.dtype("float64"))
    np.testing.assert_array_equal(before.train.x, after.train.x)
    np.testing.assert_array_equal(before.train.y, after.train.y)
    np.testing.assert_array_equal(
        before.optimum.params["weights"], after.optimum.params["weights"]
    )
    assert (np.asarray(before.test.x) != np.asarray(after.test.x)).any()


# The least that training, validation and test part reach at the optimum.
SANE = {
    "diabetes": (0.5, 0.4, 0.3),
    "diabetes_ridge": (0.5, 0.4, 0.3),
    "diabetes_bmi": (0.35, 0.2, 0.1),
    "breast_cancer": (0.95, 0.95, 0.95),
    "breast_cancer_two_features": (0.9, 0.9, 0.9),
    "digits": (0.97, 0.94, 0.94),
    "ill_conditioned": (0.94, 0.94, 0.94),
}


@pytest.mark.on_ci("whole minimisations; nothing shorter shows this")
@pytest.mark.thorough("the other workloads", but=r"^(diabetes|breast_cancer)\]")
@pytest.mark.parametrize("name", SANE)
def test_metric_at_the_optimum_is_sane(name):
    workload = make(name)
    metric, params = jax.jit(workload.metric), workload.optimum.params
    metrics = [float(metric(params, part)) for part in workload[1:4]]
    assert all(
        least < metric <= 1 for metric, least in zip(metrics, SANE[name], strict=True)
    ), metrics


@pytest.mark.on_ci("a whole minimisation; nothing shorter shows this")
def test_diabetes_on_all_rows_reaches_the_published_r_squared():
    # 0.51775 for least squares on all 442 rows (scikit-learn's and the recorded
    # reference's).
    workload = make("diabetes", holdout=False)
    assert float(
        workload.metric(workload.optimum.params, workload.train)
    ) == pytest.approx(0.51774842222, abs=1e-10)


@pytest.mark.thorough("the full size; make test has 2,000 rows of it")
def test_overlapping_50k_is_large_ill_conditioned_and_as_good_as_bayes():
    workload = workloads.make_workload("overlapping_50k")
    assert workload.train.x.shape == (50_000, 20)
    p = np.asarray(
        jax.nn.sigmoid(workload.model.apply(workload.optimum.params, workload.train.x))
    )
    mu, smoothness = optima.curvature(np.asarray(workload.train.x), 1e-4, p * (1 - p))
    assert 50 < smoothness / mu < 500
    # Bayes errs at Φ(-1) = 0.1587; 10,715 test rows scatter by 0.0035.
    assert (
        abs(float(workload.metric(workload.optimum.params, workload.test)) - 0.8413)
        < 4 * 0.0035
    )


@pytest.mark.thorough("all rows in the training part", but="True")
@pytest.mark.parametrize(("holdout", "condition"), [(True, 10_205), (False, 10_400)])
def test_ill_conditioned_has_its_condition_number_once_standardised(holdout, condition):
    # By the Hessian that jax differentiates, not by the covariance that the data were
    # drawn with.
    workload = make("ill_conditioned", holdout=holdout)
    assert workload.train.x.shape == (2_000, 50)
    hessian_of = jax.jit(jax.hessian(workload.objective))
    blocks = hessian_of(workload.optimum.params, workload.train)
    inner, beside = (
        blocks["weights"]["weights"],
        blocks["weights"]["intercept"][:, None],
    )
    hessian = np.block([[inner, beside], [beside.T, blocks["intercept"]["intercept"]]])
    assert np.linalg.cond(hessian) == pytest.approx(condition, rel=5e-2)
    # What is left at the optimum is the noise of 0.5 on 2000 rows, less 51 parameters.
    assert workload.optimum.value == pytest.approx(
        0.5 * 0.25 * (1 - 51 / 2_000), rel=0.15
    )


@pytest.fixture(scope="module")
def hessian():
    workload = make("noisy_quadratic")
    of = jax.jit(jax.hessian(workload.objective))
    return np.asarray(of(jnp.zeros(100), workload.train))


@pytest.mark.on_ci("a Hessian of 100 params; nothing shorter has it")
def test_noisy_quadratic_is_steep_in_ten_directions_and_not_along_the_axes(hessian):
    eigenvalues = np.linalg.eigvalsh(hessian)
    assert ((eigenvalues > 0) & (eigenvalues < 1)).sum() == 90
    assert ((eigenvalues > 30) & (eigenvalues < 60)).sum() == 10
    off = hessian - np.diag(np.diag(hessian))
    assert np.linalg.norm(off) > np.linalg.norm(np.diag(hessian))


@pytest.mark.on_ci("a Hessian of 100 params; nothing shorter has it")
def test_noisy_quadratic_is_the_mean_over_its_examples_of_their_own_bowls(hessian):
    workload = make("noisy_quadratic")
    x, point = (
        np.asarray(workload.train.x),
        np.asarray(workload.init(jax.random.key(3))),
    )
    value = np.mean([0.5 * (point - row) @ hessian @ (point - row) for row in x])
    assert float(workload.objective(point, workload.train)) == pytest.approx(
        value, rel=1e-12
    )
    one = Batch(workload.train.x[7:8], workload.train.y[7:8])
    gradient = jax.grad(workload.objective)(point, one)
    np.testing.assert_allclose(gradient, hessian @ (point - x[7]), rtol=1e-9, atol=1e-9)
    # Exact, and no other point of the valley's flattest direction is as low.
    np.testing.assert_allclose(workload.optimum.params, x.mean(axis=0), rtol=1e-13)
    flattest = np.linalg.eigh(hessian)[1][:, 0]
    gap = (
        workload.objective(x.mean(axis=0) + flattest, workload.train)
        - workload.optimum.value
    )
    assert float(gap) == pytest.approx(0.5 * np.linalg.eigvalsh(hessian)[0], rel=1e-6)


def test_noisy_quadratic_parts_are_drawn_alike_but_apart():
    workload = workloads.make_workload("noisy_quadratic")
    parts = [np.asarray(part.x) for part in workload[1:4]]
    assert len(np.unique(np.concatenate(parts), axis=0)) == sum(map(len, parts))
    for x in parts:
        # 0.36 in every direction, with the scatter of n · 100 squares; the means differ
        # by that of n rows.
        assert abs(np.mean((x - x.mean(axis=0)) ** 2) / 0.36 - 1) < 4 * np.sqrt(
            2 / x.size
        ) + 1 / len(x)
        distance = np.sum((x.mean(axis=0) - parts[0].mean(axis=0)) ** 2)
        assert distance < 1.6 * 100 * 0.36 * (1 / len(x) + 1 / len(parts[0]))
    assert (
        np.linalg.norm(workload.optimum.params) > 5
    )  # Not at the origin, where decay of the weights would help.


@pytest.mark.parametrize("name", ["ill_conditioned", "noisy_quadratic"])
def test_generated_data_are_the_same_each_time(name):
    build = getattr(workloads, name).__wrapped__
    first, again = (build(n=200, dtype=np.dtype("float64")) for _ in range(2))
    assert first is not again
    jax.tree.map(np.testing.assert_array_equal, first[1:4], again[1:4])
    jax.tree.map(
        np.testing.assert_array_equal, first.optimum.params, again.optimum.params
    )


@pytest.mark.thorough(
    "what the two workloads are for; mini-batches: test_descent.py and test_training.py"
)
@pytest.mark.parametrize("name", ["ill_conditioned", "noisy_quadratic"])
def test_mini_batches_reach_a_hundredth_of_the_start(name):
    # What they are for: the budget and target of a comparison, at a rate that is not
    # tuned.
    workload = workloads.make_workload(name)
    program = descent.compile_sweep(
        workload, update_rules.gradient_descent, samplers.minibatch(2_000, 32), 30
    )
    values = descent.sweep(program, {"seed": [0], "learning_rate": [0.01]}).values[0]
    relative = (values - workload.optimum.value) / (values[0] - workload.optimum.value)
    assert relative[8] > 1e-2
    assert relative[-1] < 1e-2


def test_penalty_leaves_the_intercept_alone():
    workload = make("breast_cancer")
    params = jax.tree.map(jnp.zeros_like, workload.optimum.params)
    far = {**params, "intercept": jnp.asarray(1e3)}
    # The mean loss at logit 1000 is 1000 times the share of zeros; a penalty of 0.01 /
    # 2 · 1e6 would add 5000.
    share = np.mean(np.asarray(workload.train.y) == 0)
    assert float(workload.objective(far, workload.train)) == pytest.approx(
        1e3 * share, rel=1e-12
    )


@pytest.mark.on_ci("whole minimisations; nothing shorter shows this")
@pytest.mark.thorough(
    "the other workloads", but=r"^(breast_cancer_two_features|quadratic)\]"
)
@pytest.mark.parametrize("name", workloads.WORKLOADS)
def test_float32_is_kept_throughout(name):
    workload = make(name, dtype="float32")
    params = workload.init(jax.random.key(0))
    assert {
        leaf.dtype.name for leaf in jax.tree.leaves((params, workload.optimum.params))
    } == {"float32"}
    value, gradient = jax.jit(jax.value_and_grad(workload.objective))(
        params, workload.train
    )
    assert {leaf.dtype.name for leaf in jax.tree.leaves((value, gradient))} == {
        "float32"
    }
    if workload.train is not None:
        assert workload.train.x.dtype == jnp.float32
        assert workload.train.y.dtype == (
            jnp.int32 if workload.metric_name == "accuracy" else jnp.float32
        )
    at_optimum = float(workload.objective(workload.optimum.params, workload.train))
    assert at_optimum == pytest.approx(workload.optimum.value, rel=2e-6)


def test_float64_without_the_flag_names_the_line_to_add():
    jax.config.update("jax_enable_x64", False)
    try:
        make("diabetes", dtype="float32")
        with pytest.raises(
            ValueError, match=r"research\.backend\.configure\(x64=True\)"
        ):
            make("diabetes")
    finally:
        jax.config.update("jax_enable_x64", True)


@pytest.mark.parametrize("dtype", ["float64", jnp.float64, np.dtype("float64")])
def test_a_workload_is_built_once(dtype):
    assert make("breast_cancer", dtype=dtype) is make("breast_cancer")
    assert make("breast_cancer", holdout=False) is not make("breast_cancer")


def test_a_workload_made_under_jit_holds_no_tracer():
    # Options that no other test has, so that it is built here.
    build = functools.partial(
        workloads.breast_cancer_two_features, holdout=False, dtype="float32"
    )
    assert jnp.isfinite(jax.jit(lambda: jnp.sum(build().train.x))())
    leaves = jax.tree.leaves((build().train, build().optimum.params))
    assert not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)


@pytest.mark.on_ci("two optima of digits; nothing shorter shows this")
def test_optimum_has_the_same_bits_whatever_the_threads():
    optima_found = []
    for num_threads in (1, 2):
        with threadpool_limits(num_threads, "blas"):
            optima_found.append(
                workloads.digits.__wrapped__(dtype=np.dtype("float64")).optimum
            )
    np.testing.assert_array_equal(*(found.params["weights"] for found in optima_found))


@pytest.mark.thorough(
    "the other workloads", but=r"^(diabetes_bmi|breast_cancer_two_features)\]"
)
@pytest.mark.parametrize("name", WITH_DATA)
def test_float32_optimum_is_that_of_the_float32_data(name):
    # In float64 on the same numbers: rounding x* moves f by its square, rounding the
    # data would by itself.
    workload = make(name, dtype="float32")
    wide = lambda leaf: (
        leaf.astype("float64") if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
    )
    params, x, y = jax.tree.map(
        wide, (workload.optimum.params, workload.train.x, workload.train.y)
    )
    value = float(workload.objective(params, Batch(x, y)))
    assert value == pytest.approx(workload.optimum.value, rel=1e-12)


def test_table_names_each_constructor():
    for name, constructor in workloads.WORKLOADS.items():
        assert constructor is getattr(workloads, name)
        assert make(name).name == name
        assert f"| {name} |" in workloads.make_workload.__doc__


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            functools.partial(make, "brest_cancer"),
            ValueError,
            "'brest_cancer'; did you mean 'breast_cancer'",
        ),
        (
            functools.partial(make, "mlp_digits"),
            ValueError,
            r"'mlp_digits' is a network.* Use make_network\('mlp_digits'\)",
        ),
        (
            functools.partial(workloads.make_network, "digits"),
            ValueError,
            r"'digits' is a workload without a network\. Use make_workload",
        ),
        (
            functools.partial(make, "digits", dtype="int32"),
            TypeError,
            "dtype must be floating; got int32",
        ),
        (
            functools.partial(make, "digits", n=3),
            TypeError,
            "workload 'digits' has no option 'n'. Known: .*dtype",
        ),
        (
            lambda: workloads.overlapping_50k(n=0),
            ValueError,
            "n must be a positive integer; got n=0",
        ),
        (
            lambda: workloads.noisy_quadratic(n=-1),
            ValueError,
            "n must be a positive integer; got n=-1",
        ),
        (
            lambda: workloads.overlapping_1m(n=1e6),
            ValueError,
            "n must be a positive integer; got n=1000000.0",
        ),
        (
            lambda: workloads.quadratic(condition=0.5),
            ValueError,
            "condition must be a finite number >= 1; got 0.5",
        ),
        (
            lambda: workloads.rosenbrock(dimension=1),
            ValueError,
            "dimension must be an integer >= 2; got 1",
        ),
    ],
)
def test_bad_requests_are_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.thorough("several classes", but="linear|logistic")
@pytest.mark.on_ci("the linear regression", but="logistic")
@pytest.mark.parametrize("kind", workloads.convex.REGRESSIONS)
def test_regression_of_own_data_has_the_optimum_of_scikit_learn(kind):
    random = np.random.default_rng(0)
    x = random.normal(size=(120, 3)) * [1.0, 10.0, 0.1] + [0.0, 5.0, 1.0]
    score = (x - x.mean(axis=0)) / x.std(axis=0) @ [1.0, -2.0, 0.5]
    noisy = score + random.normal(size=120)
    y = {"linear": noisy, "logistic": (noisy > 0).astype(int)}.get(
        kind, np.digitize(noisy, [-1.0, 1.0])
    )
    mine = workloads.regression_workload("mine", x, y, kind, holdout=False)
    inputs, n, penalty = np.asarray(mine.train.x), 120, 0.01
    np.testing.assert_allclose(inputs.std(axis=0), 1.0)
    if kind == "linear":
        theirs = Ridge(alpha=penalty * n, tol=1e-12).fit(inputs, y)
    else:
        theirs = LogisticRegression(C=1 / (penalty * n), tol=1e-12, max_iter=10**4)
        theirs.fit(inputs, y)
    weights = np.asarray(mine.optimum.params["weights"])
    # Of two classes, one vector belongs to class 1.
    coefficients = np.squeeze(theirs.coef_.T)
    np.testing.assert_allclose(weights, coefficients, rtol=2e-4, atol=1e-4)
    at_optimum = float(mine.objective(mine.optimum.params, mine.train))
    assert abs(at_optimum - mine.optimum.value) <= 1e-12
    assert len(workloads.regression_workload("mine", x, y, kind).test.y) == 18


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "logit"}, "did you mean 'logistic'"),
        ({"y": np.arange(40) % 3}, "only 0 or 1 .* got 2"),
        ({"y": np.linspace(0, 1, 40)}, r"only 0 or 1 .* got 0\.02564"),
        ({"y": np.linspace(0, 2, 40), "kind": "softmax"}, r"got 0\.05128"),
        ({"y": np.arange(40) % 3 - 1, "kind": "softmax"}, "labels 0, 1, .* got -1"),
        ({"y": np.where(np.arange(40) % 3, 3, 0), "kind": "softmax"}, r"each label 0"),
        ({"y": np.arange(40) % 3 + 1, "kind": "softmax"}, r"np\.unique"),
        ({"x": np.eye(3), "y": np.ones(3), "holdout": True}, "Pass holdout=False"),
        ({"name": ""}, "name must not be empty"),
        ({"x": np.full((40, 2), np.nan)}, "NaN"),
        ({"x": np.arange(40.0)}, r"shape \(n, d\)"),
        ({"y": np.arange(30)}, "same length"),
        ({"penalty": -1.0}, "penalty"),
        ({"penalty": 0.0, "y": (np.arange(40) > 20).astype(int)}, "separable|penalty"),
    ],
)
def test_bad_data_of_a_regression_are_refused(arguments, words):
    x = np.stack([np.arange(40.0), np.arange(40.0) ** 2], axis=1)
    given = {"x": x, "y": np.arange(40) % 2, "kind": "logistic", "holdout": False}
    with pytest.raises(ValueError, match=words):
        workloads.regression_workload(**{"name": "mine"} | given | arguments)


@pytest.mark.parametrize("kind", ["logistic", "softmax"])
@pytest.mark.parametrize("row", range(0, 40, 3))
def test_a_label_that_is_wrong_is_refused_in_whatever_part_it_falls(kind, row):
    x, y = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2
    y[row] = -1
    with pytest.raises(ValueError, match="got -1"):
        workloads.regression_workload("mine", x, y, kind)
