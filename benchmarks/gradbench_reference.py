"""The functions of GradBench in NumPy, for complex numbers, and their derivatives.

They are written from their definitions, without regard to speed, and share nothing with
`gradbench_functions`. All are analytic where they are evaluated, so a derivative is the
imaginary part of f(x + i h v) / h with h = 1e-200: without any cancellation.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

STEP = 1e-200


def complex_step(f: Callable[[Any], Any], x: np.ndarray) -> np.ndarray:
    """Return the derivatives of f, with the axes of x first and those of f(x) last.

    Example:
      >>> complex_step(lambda x: x[0] * x[1], np.array([2.0, 5.0])).tolist()
      [5.0, 2.0]
    """
    columns = []
    for index in np.ndindex(x.shape):
        moved = x.astype(complex)
        moved[index] += 1j * STEP
        columns.append(np.imag(f(moved)) / STEP)
    return np.array(columns).reshape(x.shape + np.shape(columns[0]))


def gmm(alpha: Any, mu: Any, q: Any, below: Any, given: dict[str, Any]) -> Any:
    """Return the log of likelihood times prior, from the densities."""
    d, k, x = given["d"], given["k"], np.asarray(given["x"])
    weights = np.exp(alpha) / np.sum(np.exp(alpha))
    prior, densities = 0.0, []
    freedom = d + given["m"] + 1
    for j in range(k):
        factor = np.diag(np.exp(q[j]))
        at = itertools.count()
        for column in range(d):
            for row in range(column + 1, d):
                factor[row, column] = below[j][next(at)]
        precision = factor.T @ factor
        root = np.prod(np.exp(q[j]))  # Of the determinant.
        away = (x - mu[j]) @ factor.T
        densities.append(
            weights[j]
            * np.exp(-np.sum(away * away, axis=1) / 2)
            * root
            / (2 * np.pi) ** (d / 2)
        )
        gamma = given["gamma"]
        prior += (freedom - d - 1) / 2 * np.log(root**2)
        prior -= gamma**2 * np.trace(precision) / 2
        prior -= freedom * d / 2 * math.log(2) - freedom * d * math.log(gamma)
        prior -= d * (d - 1) / 4 * math.log(math.pi)
        prior -= sum(math.lgamma((freedom - i) / 2) for i in range(d))
    return np.sum(np.log(np.sum(densities, axis=0))) + prior


def kmeans(given: dict[str, Any]) -> tuple[Any, Any]:
    """Return the cost, and the centroids minus the means of their clusters."""
    points, centroids = np.asarray(given["points"]), np.asarray(given["centroids"])
    squares = np.sum((points[:, None] - centroids[None]) ** 2, axis=2)
    nearest = np.argmin(squares, axis=1)
    means = [points[nearest == j].mean(axis=0) for j in range(len(centroids))]
    return np.sum(np.min(squares, axis=1)), centroids - np.array(means)


def llsq(x: Any, n: int) -> Any:
    """Return half the sum of squares of sign(t) minus the polynomial."""
    t = -1 + 2 * np.arange(n) / (n - 1)
    polynomial = sum(x[j] * t**j for j in range(len(x)))
    return np.sum((np.sign(t) - polynomial) ** 2) / 2


def lse(x: Any) -> Any:
    """Return log Σ exp(x)."""
    shift = np.max(np.real(x))
    return np.log(np.sum(np.exp(x - shift))) + shift


def ode(x: Any, s: int) -> Any:
    """Return y(2) after s classical Runge-Kutta steps."""
    y, h = np.zeros_like(x), 2 / s
    slope = lambda y: np.concatenate([x[:1], x[1:] * y[:-1]])
    for _ in range(s):
        k1 = slope(y)
        k2 = slope(y + h * k1 / 2)
        k3 = slope(y + h * k2 / 2)
        k4 = slope(y + h * k3)
        y = y + h * (k1 + 2 * k2 + 2 * k3 + k4) / 6
    return y


def det(a: Any, size: int) -> Any:
    """Return the determinant as a sum over permutations."""
    matrix, total = a.reshape(size, size), 0.0
    for chosen in itertools.permutations(range(size)):
        order = sum(a > b for a, b in itertools.combinations(chosen, 2))
        total += (-1) ** order * np.prod([matrix[i, j] for i, j in enumerate(chosen)])
    return total


def lstm(main: Any, extra: Any, state: Any, sequence: Any) -> Any:
    """Return the mean loss, step by step and layer by layer."""
    bits = main.shape[1] // 4
    sigmoid = lambda z: 1 / (1 + np.exp(-z))
    state = [row.astype(complex) for row in np.asarray(state)]
    total = 0.0
    for t in range(len(sequence) - 1):
        signal = sequence[t] * extra[0]
        for layer in range(len(main) // 2):
            w, b = main[2 * layer], main[2 * layer + 1]
            part = lambda i, seen, w=w, b=b: (
                seen * w[i * bits : (i + 1) * bits] + b[i * bits : (i + 1) * bits]
            )
            hidden, cell = state[2 * layer], state[2 * layer + 1]
            cell = cell * sigmoid(part(0, signal)) + sigmoid(part(1, hidden)) * np.tanh(
                part(3, hidden)
            )
            hidden = sigmoid(part(2, signal)) * np.tanh(cell)
            state[2 * layer], state[2 * layer + 1] = hidden, cell
            signal = hidden
        predicted = signal * extra[1] + extra[2]
        predicted = predicted - np.log(2 + np.sum(np.exp(predicted)))
        total += np.sum(sequence[t + 1] * predicted)
    return -total / (bits * (len(sequence) - 1))


def rotated(angles: Any, x: Any) -> Any:
    """Return x, turned about the axis `angles` by its length, by Rodrigues' formula."""
    angle = np.sqrt(np.sum(angles * angles))
    axis = angles / angle
    return (
        x * np.cos(angle)
        + np.cross(axis, x) * np.sin(angle)
        + axis * np.sum(axis * x) * (1 - np.cos(angle))
    )


def ba(camera: Any, point: Any, weight: Any, feature: Any) -> Any:
    """Return the two errors of one observation."""
    at = rotated(camera[:3], point - camera[3:6])
    flat = at[:2] / at[2]
    square = np.sum(flat * flat)
    flat = flat * (1 + camera[9] * square + camera[10] * square * square)
    return weight * (flat * camera[6] + camera[7:9] - feature)


def ht(theta: Any, us: Any, given: dict[str, Any]) -> Any:
    """Return the errors of the points, (c, 3), bone by bone and vertex by vertex."""
    model, data = given["data"]["model"], given["data"]
    angles = np.zeros((len(model["parents"]), 3), theta.dtype)
    for finger in range(5):
        own = theta[6 + 4 * finger : 10 + 4 * finger]
        bone = 2 + 4 * finger
        angles[bone, :2], angles[bone + 1, 0], angles[bone + 2, 0] = (
            own[:2],
            own[2],
            own[3],
        )
    axes = np.eye(3)
    absolute: list[Any] = []
    for bone, parent in enumerate(model["parents"]):
        turn = np.eye(4, dtype=theta.dtype)
        about_x, about_z, about_y = angles[bone]
        for j in range(3):  # First about x, then y, then z.
            column = axes[j].astype(theta.dtype)
            for axis, angle in ((0, about_x), (1, about_y), (2, about_z)):
                column = (
                    column * np.cos(angle)
                    + np.cross(axes[axis], column) * np.sin(angle)
                    + axes[axis] * column[axis] * (1 - np.cos(angle))
                )
            turn[:3, j] = column
        relative = np.asarray(model["base_relatives"][bone]) @ turn
        absolute.append(relative if parent < 0 else absolute[parent] @ relative)
    places = []
    for base, weights in zip(model["base_positions"], model["weights"], strict=True):
        place: Any = sum(
            weights[bone]
            * (
                absolute[bone]
                @ np.asarray(model["inverse_base_absolutes"][bone])
                @ base
            )
            for bone in range(len(absolute))
        )
        places.append(rotated(theta[:3], place[:3]) + theta[3:6])
    errors = []
    for i, triangle in enumerate(data["correspondences"]):
        corners = [places[j] for j in model["triangles"][triangle]]
        u = (us[i, 0], us[i, 1], 1 - us[i, 0] - us[i, 1])
        errors.append(
            data["points"][i] - sum(a * b for a, b in zip(u, corners, strict=True))
        )
    return np.array(errors)


def landing(w: Any) -> Any:
    """Return the squared place of the landing, with the force written by hand."""
    charges = np.array([[10.0, 10.0 - w], [10.0, 0.0]])
    x, v = np.array([0.0, 8.0]), np.array([0.75, 0.0])
    while True:
        away = x - charges
        cubes = np.sum(away * away, axis=1) ** 1.5
        force = np.sum(away / cubes[:, None], axis=0)
        x = x + 0.1 * v
        if np.real(x[1]) <= 0:
            return (x[0] - x[1] / v[1] * v[0]) ** 2
        v = v + 0.1 * force


def descended(f: Callable[[Any], Any], slope: Callable[[Any], Any], x: Any) -> Any:
    """Return the last point of GradBench's descent."""
    value, g, rate, count = f(x), slope(x), 1e-5, 0
    while np.linalg.norm(g) > 1e-5:
        if count == 10:
            rate, count = 2 * rate, 0
            continue
        trial = x - rate * g
        if np.linalg.norm(trial - x) <= 1e-5:
            return x
        if f(trial) < value:
            x, value, g, count = trial, f(trial), slope(trial), count + 1
        else:
            rate, count = rate / 2, 0
    return x


def particle(w: float) -> float:
    """Return the parameter at which the particle lands at the origin."""
    f = lambda w: float(np.real(landing(w[0])))
    slope = lambda w: np.array([np.imag(landing(w[0] + 1j * STEP)) / STEP])
    return float(descended(f, slope, np.array([w]))[0])


def saddle(start: np.ndarray) -> np.ndarray:
    """Return both points of the saddle, with derivatives written by hand.

    The inner descent does not depend on x, so the outer gradient is 2 x.
    """
    f = lambda x, y: x @ x - y @ y
    best = lambda x: descended(lambda y: -f(x, y), lambda y: 2 * y, start)
    x = descended(lambda x: f(x, best(x)), lambda x: 2 * x, start)
    return np.concatenate([x, best(x)])
