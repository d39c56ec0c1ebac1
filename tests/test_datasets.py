"""Data is what its source says, parts do not leak into each other, and generated
answers are true.
"""

import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import sklearn.datasets
from sklearn.preprocessing import StandardScaler

from research import datasets

SHAPES = {
    "diabetes": (442, 10, None),
    "diabetes_raw": (442, 10, None),
    "breast_cancer": (569, 30, 2),
    "digits": (1797, 64, 10),
    "iris": (150, 4, 3),
    "wine": (178, 13, 3),
}


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_bundled_set_has_its_shape_and_provenance(name):
    n, d, num_classes = SHAPES[name]
    dataset = datasets.load(name)
    assert (dataset.name, dataset.x.shape, dataset.x.dtype, dataset.y.shape) == (
        name,
        (n, d),
        np.float64,
        (n,),
    )
    assert len(dataset.feature_names) == d
    assert all((dataset.source, dataset.licence, dataset.citation))
    if num_classes is None:
        assert dataset.y.dtype == np.float64
    else:
        assert dataset.y.dtype == np.int64
        assert len(dataset.target_names) == num_classes
        np.testing.assert_array_equal(np.unique(dataset.y), np.arange(num_classes))
    datasets.check_xy(dataset.x, dataset.y)


def test_breast_cancer_label_1_means_benign():
    # 357 benign and 212 malignant tumours, by the set's own description.
    dataset = datasets.load("breast_cancer")
    assert dataset.target_names == ("malignant", "benign")
    assert np.bincount(dataset.y).tolist() == [212, 357]


def test_bundled_set_equals_scikit_learn():
    bunch = sklearn.datasets.load_digits()
    np.testing.assert_array_equal(datasets.load("digits").x, bunch["data"])
    np.testing.assert_array_equal(datasets.load("digits").y, bunch["target"])


def test_unknown_set_is_answered_with_the_nearest():
    with pytest.raises(
        ValueError, match="'brest_cancer'; did you mean 'breast_cancer'"
    ):
        datasets.load("brest_cancer")


@pytest.mark.on_ci("a process of its own; nothing shorter shows this")
def test_datasets_need_neither_jax_nor_a_loaded_scikit_learn():
    code = (
        "import sys, research.datasets; print([m for m in ('jax', 'sklearn') if m in "
        "sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True
        ).stdout.strip()
        == "[]"
    )


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (
            [[1, 2]],
            [0],
            TypeError,
            r"x must be floating; got dtype int64.*x\.astype\(np\.float64\)",
        ),
        (
            [[1.0]],
            ["a"],
            TypeError,
            r"y must be an array of real numbers; np.unique.*numbers classes; got y=an "
            "array of text",
        ),
        (
            np.zeros((0, 3)),
            [],
            ValueError,
            r"x must have at least one row; got shape \(0, 3\)",
        ),
        (
            np.zeros((3, 0)),
            [0, 1, 1],
            ValueError,
            r"x must have at least one row; got shape \(3, 0\)",
        ),
        (1.0, [0], ValueError, r"x must have at least one row; got shape \(\)"),
        (
            np.zeros((3, 2)),
            [0, 1],
            ValueError,
            "x and y must have the same length; got 3 rows and 2 targets",
        ),
        (
            [[0.0], [np.inf], [np.nan]],
            [0, 1, 1],
            ValueError,
            "x has 2 rows of 3 with NaN or infinity; the first is row 1",
        ),
        (
            [[0.0], [1.0]],
            [0.0, np.nan],
            ValueError,
            "y has 1 row of 2 with NaN or infinity; the first is row 1",
        ),
    ],
)
def test_bad_data_is_refused_by_name(x, y, error, message):
    with pytest.raises(error, match=message):
        datasets.check_xy(np.asarray(x), np.asarray(y))


@pytest.mark.parametrize("n", [3 * 7, 100, 569, 1797, 1000])
def test_parts_are_disjoint_and_cover_the_data(n):
    x, y = np.arange(2.0 * n).reshape(n, 2), np.arange(n)
    parts = datasets.split(x, y)
    assert len(parts) == 3
    np.testing.assert_array_equal(
        np.sort(np.concatenate([labels for _, labels in parts])), y
    )
    for rows, labels in parts:
        np.testing.assert_array_equal(rows, x[labels])
    assert abs(len(parts[0][1]) - 0.7 * n) < 1


def test_split_depends_on_its_seed_alone():
    x, y = np.ones((50, 1)), np.arange(50)
    once, again, other = (datasets.split(x, y, seed)[0][1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()
    # numpy promises the stream of a bit generator, and these are its first rows.
    np.testing.assert_array_equal(once, np.random.default_rng(0).permutation(50)[:35])


@pytest.mark.parametrize(
    "fractions", [(0.7, 0.7), (1.2, -0.2), (0.5, 0.5, 0.0), (), (np.nan, 1.0)]
)
def test_fractions_must_share_out_the_whole(fractions):
    with pytest.raises(ValueError, match="fractions must be positive with sum 1"):
        datasets.split(np.ones((10, 1)), np.ones(10), fractions=fractions)


def test_an_empty_part_is_refused():
    with pytest.raises(ValueError, match="of 3 rows leave a part empty"):
        datasets.split(np.ones((3, 1)), np.ones(3))


def test_standardise_equals_scikit_learn():
    (train, _), (validation, _), _ = datasets.split(*datasets.load("wine")[1:3])
    scaler = StandardScaler().fit(train)
    ours = datasets.standardise(train, validation)
    for array, part in zip(ours, (train, validation), strict=True):
        np.testing.assert_allclose(
            array, scaler.transform(part), rtol=1e-13, atol=1e-13
        )
    np.testing.assert_allclose(ours[0].mean(axis=0), 0.0, atol=1e-14)
    np.testing.assert_allclose(ours[0].std(axis=0), 1.0, rtol=1e-14)


def test_a_constant_column_becomes_zero_everywhere():
    # The mean of three times 0.1 is not 0.1 in binary, so that the computed sd is not
    # 0.
    train = np.array([[0.1, 1.0], [0.1, 2.0], [0.1, 6.0]])
    for part in datasets.standardise(train, np.array([[7.0, 1.0]])):
        assert not part[:, 0].any()
        assert np.isfinite(part).all()


def test_standardising_learns_from_the_training_part_alone():
    train = np.array([[0.0], [2.0], [4.0]])
    near, far = (
        datasets.standardise(train, np.array([[value]])) for value in (1.0, 1e9)
    )
    np.testing.assert_array_equal(near[0], far[0])
    np.testing.assert_array_equal(datasets.standardise(train)[0], near[0])


@pytest.mark.parametrize(
    "function",
    [
        datasets.quadratic(0, [0.5, 2.0, 100.0]),
        datasets.rosenbrock(),
        datasets.rosenbrock(5),
    ],
)
def test_known_function_is_least_where_it_says(function):
    x_star = function.minimiser
    assert abs(function.f(x_star) - function.minimum) < 1e-13 * max(
        1.0, abs(function.minimum)
    )
    np.testing.assert_allclose(function.gradient(x_star), 0.0, atol=1e-13)
    hessian = jax.jit(jax.hessian(function.f))(jnp.asarray(x_star))
    np.testing.assert_allclose(
        np.linalg.eigvalsh(hessian), function.eigenvalues, rtol=1e-12, atol=1e-12
    )
    found = scipy.optimize.minimize(
        function.f,
        x_star + 0.1,
        jac=function.gradient,
        method="BFGS",
        options={"gtol": 1e-9},
    )
    np.testing.assert_allclose(found.x, x_star, atol=1e-8)


@pytest.mark.on_ci(
    "JAX's gradients and dtypes; test_known_function_is_least_where_it_says and "
    "test_rosenbrock_equals_scipy have the gradients"
)
@pytest.mark.thorough(
    "each function in one dtype", but="function0-float64|function1-float32"
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(
    "function", [datasets.quadratic(3, [1.0, 2.0, 3.0, 4.0]), datasets.rosenbrock(4)]
)
def test_known_gradient_is_jax_gradient_and_keeps_the_dtype(function, dtype):
    x = jax.random.normal(jax.random.key(0), (4,), dtype)
    gradient = jax.jit(jax.grad(function.f))(x)
    assert gradient.dtype == function.f(x).dtype == function.gradient(x).dtype == dtype
    np.testing.assert_allclose(
        gradient, function.gradient(x), rtol=200 * jnp.finfo(dtype).eps
    )
    assert function.gradient(np.asarray(x)).dtype == dtype


def test_rosenbrock_equals_scipy():
    x = np.random.default_rng(0).normal(size=6)
    np.testing.assert_allclose(
        datasets.rosenbrock(6).f(x), scipy.optimize.rosen(x), rtol=1e-14
    )
    np.testing.assert_allclose(
        datasets.rosenbrock(6).gradient(x), scipy.optimize.rosen_der(x), rtol=1e-12
    )
    np.testing.assert_allclose(
        datasets.rosenbrock(6).eigenvalues,
        np.linalg.eigvalsh(scipy.optimize.rosen_hess(np.ones(6))),
        rtol=1e-12,
    )


def test_linear_problem_has_the_condition_number_it_was_asked_for():
    problem = datasets.linear_problem(0, n=200, d=6, noise=0.5, condition=1e4)
    centred = problem.x - problem.x.mean(axis=0)
    np.testing.assert_allclose(
        np.linalg.eigvalsh(centred.T @ centred / 200),
        np.geomspace(1e-4, 1.0, 6),
        rtol=1e-11,
    )
    np.testing.assert_allclose(problem.x.mean(axis=0), 0.0, atol=1e-13)


def test_linear_problem_without_noise_is_solved_by_its_coefficients():
    problem = datasets.linear_problem(1, n=50, d=4, noise=0.0, condition=10.0)
    np.testing.assert_allclose(
        problem.x @ problem.weights + problem.intercept, problem.y, rtol=1e-14
    )


def test_linear_problem_has_the_noise_it_was_asked_for():
    problem = datasets.linear_problem(2, n=100_000, d=3, noise=0.5, condition=10.0)
    residual = problem.y - problem.x @ problem.weights - problem.intercept
    # The sd of a sample sd is σ / √(2n); five of them.
    assert abs(residual.std() - 0.5) < 5 * 0.5 / np.sqrt(2 * 100_000)


def test_overlapping_classes_err_as_bayes_says():
    n = 200_000
    problem = datasets.overlapping_classes(0, n, d=5, separation=1.5, condition=50.0)
    error = np.mean((problem.x @ problem.weights > 0) != problem.y)
    bayes = scipy.stats.norm.cdf(-0.75)
    assert abs(error - bayes) < 4 * np.sqrt(bayes * (1 - bayes) / n)


def test_overlapping_classes_minimise_the_expected_loss_at_their_weights():
    # The gradient of the sample's loss at the Bayes weights has mean 0; its scatter is
    # known from the sample.
    n = 200_000
    problem = datasets.overlapping_classes(1, n, d=4, separation=2.0, condition=20.0)
    probability = 1 / (1 + np.exp(-problem.x @ problem.weights))
    gradients = (probability - problem.y)[:, None] * np.column_stack(
        [np.ones(n), problem.x]
    )
    assert (
        np.abs(gradients.mean(axis=0)) < 4 * gradients.std(axis=0) / np.sqrt(n)
    ).all()


def test_overlapping_classes_have_the_condition_number_they_were_asked_for():
    problem = datasets.overlapping_classes(
        2, 400_000, d=4, separation=2.0, condition=100.0
    )
    within = [np.cov(problem.x[problem.y == label], rowvar=False) for label in (0, 1)]
    np.testing.assert_allclose([np.linalg.cond(c) for c in within], 100.0, rtol=0.03)


def test_separable_classes_have_the_known_largest_margin():
    problem = datasets.separable_classes(0, n=60, d=3, margin=0.5)
    signs = 2 * problem.y - 1
    margins = signs * (problem.x @ problem.weights)
    np.testing.assert_allclose(margins.min(), 0.5, rtol=1e-14)
    # The hard-margin programme, min |w|²/2 with s (x w + b) >= 1, has the margin 1 /
    # |w| and the direction w / |w|.
    found = scipy.optimize.minimize(
        lambda v: 0.5 * v[:3] @ v[:3],
        np.append(3 * problem.weights, 0.1),
        jac=lambda v: np.append(v[:3], 0.0),
        constraints={
            "type": "ineq",
            "fun": lambda v: signs * (problem.x @ v[:3] + v[3]) - 1,
            "jac": lambda v: signs[:, None] * np.column_stack([problem.x, np.ones(60)]),
        },
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    np.testing.assert_allclose(found.x[:3], problem.weights / 0.5, atol=1e-6)
    np.testing.assert_allclose(found.x[3], 0.0, atol=1e-6)


GENERATORS = {
    "quadratic": lambda seed: datasets.quadratic(seed, [1.0, 2.0]).minimiser,
    "linear_problem": lambda seed: datasets.linear_problem(seed, 20, 2, 0.1, 2.0).x,
    "overlapping_classes": lambda seed: (
        datasets.overlapping_classes(seed, 20, 2, 1.0).x
    ),
    "separable_classes": lambda seed: datasets.separable_classes(seed, 20, 2, 1.0).x,
}


@pytest.mark.parametrize("generate", GENERATORS.values(), ids=GENERATORS)
def test_generated_data_depends_on_the_seed(generate):
    np.testing.assert_array_equal(generate(0), generate(0))
    assert (generate(0) != generate(1)).any()
    with pytest.raises(TypeError, match="seed must be an integer >= 0"):
        generate(jax.random.key(0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: datasets.quadratic(0, [-1.0, 1.0]),
            r"eigenvalues must be .* got \[-1.0, 1.0\]",
        ),
        (lambda: datasets.quadratic(0, [0.0]), "eigenvalues must be"),
        (lambda: datasets.rosenbrock(1), "dimension must be an integer >= 2; got 1"),
        (
            lambda: datasets.linear_problem(0, 3, 3, 0.0, 1.0),
            "n must exceed d .* got n=3, d=3",
        ),
        (
            lambda: datasets.linear_problem(0, 9, 3, -1.0, 1.0),
            "noise must be .* got noise=-1.0",
        ),
        (
            lambda: datasets.linear_problem(0, 9, 3, 0.0, 0.5),
            "condition must be .* got condition=0.5",
        ),
        (
            lambda: datasets.overlapping_classes(0, 0, 3, 1.0),
            "n must be a positive integer; got n=0",
        ),
        (
            lambda: datasets.overlapping_classes(0, 9, 3, 0.0),
            "separation must be .* got separation=0.0",
        ),
        (lambda: datasets.separable_classes(0, 1, 3, 1.0), "n must be at least 2"),
        (
            lambda: datasets.separable_classes(0, 9, 3, np.nan),
            "margin must be .* got margin=nan",
        ),
    ],
)
def test_impossible_requests_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.thorough(
    "how long it takes; test_overlapping_classes_err_as_bayes_says draws 200,000 rows"
)
def test_a_million_rows_take_seconds():
    # About 0.4 s of processor time on the machine this was written on; the bound leaves
    # room for slower ones.
    start = time.process_time()
    problem = datasets.overlapping_classes(0, 1_000_000, 10, 2.0)
    assert problem.x.shape == (1_000_000, 10)
    assert time.process_time() - start < 4.0


def test_large_values_in_float32_are_centred():
    x = np.float32([[1.7e9], [1.7e9 + 128]])
    (found,) = datasets.standardise(x)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[-1.0], [1.0]])
    assert datasets.rosenbrock(np.int64(4)).f(np.ones(4)) == 0.0
