"""Exact optima against numbers computed elsewhere in 34 digits, against scikit-learn,
and their own definition.
"""

import ast
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits

from research import datasets, optima

REFERENCE = Path(__file__).parent / "reference"
LINEAR = {
    case["id"]: case
    for case in json.loads((REFERENCE / "linear_regression.json").read_text())["cases"]
}
LOGISTIC = {
    case["id"]: case
    for case in json.loads((REFERENCE / "logistic_regression.json").read_text())[
        "cases"
    ]
}
ROUNDING = 2.0**-53


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """BLAS threads spin while they wait for each other, which on busy cores takes ten
    times the time of the work.
    """
    with threadpool_limits(1, "blas"):
        yield


def largest(values):
    return np.max(np.abs(np.asarray(values, np.float64)))


def check_against_reference(optimum, case, condition):
    # Rounding in the gradient, some ε |H w|, moves the solution by up to ε cond |w|; as
    # it has no preferred direction, √cond is what is seen (with a factor of at most 3
    # here), and sixteen times that is what is allowed.
    bound = 16 * np.sqrt(condition) * ROUNDING
    weights, intercept = (
        np.array(case["coef"], np.float64),
        np.array(case["intercept"], np.float64),
    )
    assert largest(optimum.params["weights"] - weights) <= bound * largest(weights)
    assert largest(optimum.params["intercept"] - intercept) <= bound * max(
        largest(weights), largest(intercept)
    )
    assert abs(optimum.value / float(case["objective"]) - 1) <= 1e-14
    assert optimum.gradient_norm <= 1e-12 * optimum.initial_gradient_norm


@pytest.mark.parametrize("case", LINEAR.values(), ids=LINEAR)
def test_linear_optimum_equals_reference(case):
    dataset = datasets.load(
        {"diabetes_scaled": "diabetes", "diabetes_raw": "diabetes_raw"}[case["dataset"]]
    )
    optimum = optima.ridge(dataset.x, dataset.y, case["lam"])
    check_against_reference(optimum, case, case["condition_number_gram"])
    residual = (
        dataset.y - dataset.x @ optimum.params["weights"] - optimum.params["intercept"]
    )
    np.testing.assert_allclose(residual @ residual, float(case["rss"]), rtol=1e-13)
    if case["lam"] == 0:
        assert optima.least_squares(dataset.x, dataset.y).value == optimum.value


def classification_data(case):
    dataset = datasets.load(case["dataset"])
    x, y = dataset.x, dataset.y
    if case["classes"] is not None:
        kept = np.isin(y, case["classes"])
        x, y = x[kept], np.searchsorted(case["classes"], y[kept])
    if case["columns"] is not None:
        x = x[:, case["columns"]]
    if case["features"] == "standardised":
        return datasets.standardise(x)[0], y
    return x / {"raw": 1.0, "divided by 16": 16.0}[case["features"]], y


@pytest.mark.parametrize("case", LOGISTIC.values(), ids=LOGISTIC)
def test_logistic_and_softmax_optimum_equals_reference(case):
    x, y = classification_data(case)
    assert x.shape == (case["n"], case["d"])
    if case["n_classes"] == 2:
        optimum = optima.logistic_regression(
            x, y, case["lam"], case["intercept_penalised"]
        )
        probability = scipy.special.expit(
            x[:5] @ optimum.params["weights"] + optimum.params["intercept"]
        )
        expected = case["prob_class1_first5"]
    else:
        optimum = optima.softmax_regression(
            x, y, case["n_classes"], case["lam"], case["intercept_penalised"]
        )
        probability = scipy.special.softmax(
            x[:5] @ optimum.params["weights"] + optimum.params["intercept"], axis=1
        )
        expected = case["prob_first5"]
        assert np.max(np.abs(optimum.params["weights"].sum(axis=1))) < 1e-12
        assert abs(optimum.params["intercept"].sum()) < 1e-12
    check_against_reference(optimum, case, case["hessian_condition_number"])
    # A logit t carries an error of ε √cond |t|, which is the relative error of a small
    # probability.
    np.testing.assert_allclose(probability, np.array(expected, float), rtol=1e-10)


def one_hot(y):
    return np.eye(y.max() + 1)[y]


OBJECTIVES = {
    "ridge": (
        lambda x, y, penalty: optima.ridge(x, y[:, 0] - 0.3 * y[:, -1], penalty),
        lambda t, y: 0.5 * (t - (y[:, 0] - 0.3 * y[:, -1])) ** 2,
    ),
    "logistic": (
        lambda x, y, penalty: optima.logistic_regression(
            x, y[:, 0].astype(int), penalty
        ),
        lambda t, y: np.logaddexp(0, t) - y[:, 0] * t,
    ),
    "softmax": (
        lambda x, y, penalty: optima.softmax_regression(
            x, y.argmax(axis=1), 3, penalty
        ),
        lambda t, y: scipy.special.logsumexp(t, axis=1) - (t * y).sum(axis=1),
    ),
}


@pytest.mark.parametrize(("solve", "losses"), OBJECTIVES.values(), ids=OBJECTIVES)
@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_every_direction_from_the_optimum_goes_up(solve, losses, penalty):
    # f convex: x* is least if and only if f(x* + h v) + f(x* - h v) - 2 f(x*) >= 0 and
    # the slope along v vanishes.
    dataset = datasets.load("iris")
    y = one_hot(dataset.y)
    optimum = solve(dataset.x, y, penalty)
    weights, intercept = optimum.params["weights"], optimum.params["intercept"]

    def objective(w, b):
        return losses(dataset.x @ w + b, y).mean() + 0.5 * penalty * np.sum(w**2)

    assert objective(weights, intercept) == pytest.approx(optimum.value, rel=1e-14)
    random = np.random.default_rng(0)
    for _ in range(20):
        v, u = (
            random.standard_normal(weights.shape),
            random.standard_normal(intercept.shape),
        )
        up, down = (
            objective(weights + h * v, intercept + h * u) for h in (1e-3, -1e-3)
        )
        assert min(up, down) > optimum.value
        assert (
            abs(up - down) / 2e-3 < 1e-4
        )  # Third derivatives times h²; a wrong penalty gives 1e-2.


def test_ridge_equals_scikit_learn():
    dataset = datasets.load("wine")
    n, y = len(dataset.x), dataset.x[:, 0]
    optimum = optima.ridge(dataset.x[:, 1:], y, 0.01)
    theirs = Ridge(alpha=0.01 * n, solver="svd").fit(dataset.x[:, 1:], y)
    np.testing.assert_allclose(optimum.params["weights"], theirs.coef_, rtol=1e-9)
    np.testing.assert_allclose(
        optimum.params["intercept"], theirs.intercept_, rtol=1e-9
    )


def test_logistic_regression_equals_scikit_learn():
    dataset = datasets.load("breast_cancer")
    (x,) = datasets.standardise(dataset.x)
    optimum = optima.logistic_regression(x, dataset.y, 0.1)
    theirs = LogisticRegression(
        C=1 / (0.1 * len(x)), solver="newton-cholesky", tol=1e-12
    ).fit(x, dataset.y)
    np.testing.assert_allclose(optimum.params["weights"], theirs.coef_[0], rtol=1e-9)
    np.testing.assert_allclose(
        optimum.params["intercept"], theirs.intercept_[0], rtol=1e-9
    )


def test_softmax_of_two_classes_is_logistic_regression_with_half_the_penalty():
    # With W = (-w/2, w/2), |W|² is |w|²/2.
    dataset = datasets.load("breast_cancer")
    (x,) = datasets.standardise(dataset.x)
    two = optima.softmax_regression(x, dataset.y, 2, 0.02)
    one = optima.logistic_regression(x, dataset.y, 0.01)
    np.testing.assert_allclose(
        np.diff(two.params["weights"])[:, 0], one.params["weights"], rtol=1e-12
    )
    np.testing.assert_allclose(two.value, one.value, rtol=1e-14)


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_raw_units_and_offsets_cost_no_digits_of_the_gradient(shift):
    dataset = datasets.load("breast_cancer")
    x = dataset.x * np.geomspace(1e-3, 1e3, 30) + shift
    for optimum in (
        optima.logistic_regression(x, dataset.y, 1e-3),
        optima.ridge(x, dataset.x[:, 0], 1e-3),
    ):
        assert optimum.gradient_norm <= 1e-12 * optimum.initial_gradient_norm


def test_known_coefficients_are_found():
    problem = datasets.linear_problem(0, n=300, d=8, noise=0.0, condition=1e6)
    optimum = optima.least_squares(problem.x, problem.y)
    assert largest(
        optimum.params["weights"] - problem.weights
    ) <= 16 * 1e3 * ROUNDING * largest(problem.weights)
    assert optimum.value < 1e-28


@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_curvature_is_that_of_the_generated_spectrum(penalty):
    problem = datasets.linear_problem(0, n=100, d=5, noise=1.0, condition=50.0)
    np.testing.assert_allclose(
        optima.curvature(problem.x, penalty),
        (1 / 50 + penalty, 1 + penalty),
        rtol=1e-12,
    )


def test_curvature_bounds_the_logistic_hessian_from_above():
    (x,) = datasets.standardise(datasets.load("wine").x)
    p = scipy.special.expit(x @ np.random.default_rng(0).standard_normal(13))
    assert optima.curvature(x, 0.1, p * (1 - p))[1] <= optima.curvature(x, 0.1, 0.25)[1]
    assert optima.curvature(x, 0.1, np.full(len(x), 0.25)) == optima.curvature(
        x, 0.1, 0.25
    )


@pytest.mark.parametrize("num_classes", [2, 3])
def test_separable_classes_without_a_penalty_are_refused(num_classes):
    if num_classes == 2:
        problem = datasets.separable_classes(0, n=50, d=3, margin=0.1)
        solve, x, y = optima.logistic_regression, problem.x, problem.y
    else:
        x, y = np.repeat(np.eye(3), 4, axis=0)[:, :2], np.repeat(np.arange(3), 4)
        solve = lambda x, y, penalty: optima.softmax_regression(x, y, 3, penalty)
    with pytest.raises(
        ValueError, match=r"classes are separable: .* no finite optimum.*penalty > 0"
    ):
        solve(x, y, 0.0)
    assert solve(x, y, 1e-3).gradient_norm < 1e-12


def test_optimum_whose_gradient_is_exactly_zero_is_returned():
    # f'(w) = 0 reads: penalty w = σ(-2w) + σ(-w) / 2, for these symmetric points.
    x, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([0, 0, 1, 1])
    optimum = optima.logistic_regression(x, y, 1e-3)
    slope = lambda w: (
        1e-3 * w - scipy.special.expit(-2 * w) - 0.5 * scipy.special.expit(-w)
    )
    root = scipy.optimize.brentq(slope, 0.0, 20.0, xtol=1e-15)
    assert optimum.gradient_norm == 0.0
    np.testing.assert_allclose(optimum.params["weights"], [root], rtol=1e-13)


@pytest.mark.parametrize("penalty", [0.0, 0.1, 10.0])
def test_classes_with_the_same_inputs_are_predicted_with_equal_probabilities(penalty):
    # The loss is convex and does not change if classes are exchanged, so w = 0, b = 0.
    # Its gradient there is a sum of terms that cancel, up to their rounding errors.
    random = np.random.default_rng(0)
    for shift, number in ((0.0, 2), (1e3, 2), (0.0, 3)):
        x = np.tile(random.standard_normal((9, 3)) + shift, (number, 1))
        y = np.repeat(np.arange(number), 9)
        order = random.permutation(len(y))
        for penalise_intercept in (False, True):
            settings = (penalty, penalise_intercept)
            optimum = (
                optima.logistic_regression(x[order], y[order], *settings)
                if number == 2
                else optima.softmax_regression(x[order], y[order], number, *settings)
            )
            assert largest(optimum.params["weights"]) <= 64 * ROUNDING
            np.testing.assert_allclose(optimum.value, np.log(number), rtol=1e-15)


@pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-9])
def test_classes_with_almost_the_same_inputs_are_not_called_separable(distance):
    # To first order in the distance, w = -H⁻¹ g for the derivatives g, H at 0.
    x = np.tile(np.random.default_rng(0).standard_normal((10, 2)), (2, 1))
    x[0, 0] += distance
    y = np.repeat([0.0, 1.0], 10)
    design = np.column_stack([x, np.ones(20)])
    first = -np.linalg.solve(design.T @ design / 4, design.T @ (0.5 - y))
    optimum = optima.logistic_regression(x, y, 0.0)
    np.testing.assert_allclose(
        np.append(optimum.params["weights"], optimum.params["intercept"]),
        first,
        atol=1e-3 * distance,
    )


def test_classes_that_touch_without_a_penalty_are_refused():
    # One point of each class at 0: no plane parts them strictly, yet the loss falls for
    # ever.
    x, y = (
        np.array([[-2.0], [-1.0], [0.0], [0.0], [1.0], [3.0]]),
        np.array([0, 0, 0, 1, 1, 1]),
    )
    with pytest.raises(ValueError, match=r"points on the boundary.*no finite optimum"):
        optima.logistic_regression(x, y, 0.0)


def test_classes_that_overlap_by_one_point_are_solved_without_a_penalty():
    x, y = (
        np.array([[-2.0], [-1.0], [0.1], [0.0], [1.0], [3.0]]),
        np.array([0, 0, 0, 1, 1, 1]),
    )
    optimum = optima.logistic_regression(x, y, 0.0)
    assert optimum.gradient_norm <= 1e-12 * optimum.initial_gradient_norm


def test_dependent_columns_without_a_penalty_are_named():
    x = np.random.default_rng(0).standard_normal((40, 3))
    y = np.arange(40) % 2
    constant = np.column_stack([x, np.full(40, 0.1)])
    for solve in (
        lambda x: optima.least_squares(x, y * 1.0),
        lambda x: optima.logistic_regression(x, y, 0.0),
    ):
        with pytest.raises(
            ValueError, match=r"columns \[3\] of x are constant or depend"
        ):
            solve(constant)
        with pytest.raises(ValueError, match=r"columns \[\d\] of x"):
            solve(np.column_stack([x, x @ [1.0, 2.0, 3.0]]))
    assert optima.ridge(constant, y * 1.0, 0.1).params["weights"][3] == 0
    with pytest.raises(ValueError, match=r"of x are constant or depend"):
        optima.least_squares(x[:3], np.ones(3))


def test_failure_to_converge_says_how_far_it_came(monkeypatch):
    monkeypatch.setattr(sys.modules["research.optima.logistic"], "_MAX_STEPS", 3)
    dataset = datasets.load("wine")
    with pytest.raises(
        RuntimeError, match=r"stopped at gradient norm \d\.\d+e[+-]\d+; it must reach"
    ):
        optima.softmax_regression(dataset.x, dataset.y, 3, 1e-4)


X, Y = np.array([[0.0], [1.0], [2.0]]), np.array([0, 1, 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: optima.ridge(X, Y, -1.0),
            "penalty must be a finite number >= 0; got penalty=-1.0",
        ),
        (
            lambda: optima.ridge(X[:, 0], Y, 1.0),
            r"x must be floating of shape \(n, d\).* got float64 of shape \(3,\)",
        ),
        (
            lambda: optima.ridge(X.astype(int), Y, 1.0),
            "x must be floating .* got int64",
        ),
        (lambda: optima.ridge(X, Y[:2], 1.0), r"y must have shape \(3,\).* got \(2,\)"),
        (lambda: optima.ridge(X * np.nan, Y, 1.0), "x contains NaN or infinity"),
        (
            lambda: optima.logistic_regression(X, Y * 2, 1.0),
            r"y must contain each label 0\.\.1 .* got \[0.0, 2.0\]",
        ),
        (
            lambda: optima.logistic_regression(X, Y * 0, 1.0),
            r"y must contain each label .* got \[0.0\]",
        ),
        (
            lambda: optima.softmax_regression(X, Y, 3, 1.0),
            r"y must contain each label 0\.\.2 .* got \[0.0, 1.0\]",
        ),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_digits_take_a_second_or_two():
    (x, y), *_ = datasets.split(*datasets.load("digits")[1:3])
    (x,) = datasets.standardise(x)
    with threadpool_limits(1, "blas"):
        start = time.process_time()
        optimum = optima.softmax_regression(x, y, 10, 0.01)
        assert time.process_time() - start < 2.0  # 0.2 s here.
    assert optimum.gradient_norm <= 1e-12 * optimum.initial_gradient_norm


def test_optima_share_no_code_with_what_they_judge():
    imported = set()
    for path in Path(optima.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                imported.add(node.module)
    standard = {
        name for name in imported if name.partition(".")[0] in sys.stdlib_module_names
    }
    ours = {name for name in imported if name.startswith("research.optima.")}
    assert imported - standard - ours == {
        "jaxtyping",
        "numpy",
        "scipy.linalg",
        "scipy.special",
        "research.checks",
        "research.sizes",
        "research.types",
    }
