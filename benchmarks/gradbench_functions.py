"""The eleven functions of GradBench and their derivatives, in JAX.

Each is written from its description, in the form that is fast in XLA. All derivatives
are computed by `research.derivatives` or by transformations of JAX.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, logsumexp

from research.derivatives import (
    checkpoint_scan,
    directional_derivative,
    gradient,
    hessian_vector_product,
    jacobian,
)

Array = Any


class Evaluation(NamedTuple):
    """One evaluation of GradBench.

    Attributes:
      value, derivative: Functions of the arrays that `arrays` returns, to be compiled.
      arrays: From an input in GradBench's format to the arguments. Those that are not
        arrays are static.
      names: What GradBench calls value and derivative.
      note: What makes the row special, or "".
    """

    value: Callable[..., Any]
    derivative: Callable[..., Any]
    arrays: Callable[[dict[str, Any]], tuple[Any, ...]]
    names: tuple[str, str]
    note: str = ""


def numbers(*names: str) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    """Return a function from an input to the named entries, as arrays of float64."""
    return lambda given: tuple(np.asarray(given[name], float) for name in names)


# Gaussian mixture.


def mixture(params: dict[str, Array], x: Array, m: Array, gamma: Array) -> Array:
    """Return the log posterior of a Gaussian mixture with a Wishart prior."""
    alpha, mu, q, below = (params[name] for name in ("alpha", "mu", "q", "l"))
    (n, d), k = x.shape, alpha.shape[0]
    # The entries of l fill the strict lower triangle column by column.
    columns, rows = np.triu_indices(d, 1)
    diagonal = jnp.exp(q)
    factors = jnp.zeros((k, d, d), x.dtype).at[:, rows, columns].set(below)
    factors = factors.at[:, np.arange(d), np.arange(d)].set(diagonal)
    # Q (x - μ) as one product for all components, minus Q μ.
    turned = (x @ factors.reshape(k * d, d).T).reshape(n, k, d)
    centred = turned - jnp.einsum("kij,kj->ki", factors, mu)[None]
    sums = jnp.sum(q, axis=1)
    inner = (alpha + sums)[None] - 0.5 * jnp.sum(centred**2, axis=2)
    likelihood = -0.5 * n * d * math.log(2 * math.pi)
    likelihood += jnp.sum(logsumexp(inner, axis=1)) - n * logsumexp(alpha)
    freedom = d + m + 1
    multigamma = d * (d - 1) / 4 * math.log(math.pi)
    multigamma += jnp.sum(gammaln(0.5 * (freedom - jnp.arange(d))))
    constant = freedom * d * (jnp.log(gamma) - 0.5 * math.log(2)) - multigamma
    squares = jnp.sum(diagonal**2) + jnp.sum(below**2)
    return likelihood + k * constant - 0.5 * gamma**2 * squares + m * jnp.sum(sums)


def mixture_arrays(given: dict[str, Any]) -> tuple[Any, ...]:
    """Return the params as a dictionary, and the data."""
    params = {name: np.asarray(given[name], float) for name in ("alpha", "mu", "q")}
    params["l"] = np.asarray(given["l"], float).reshape(given["k"], -1)
    return params, np.asarray(given["x"], float), float(given["m"]), given["gamma"]


# k-means.


def spread_of_clusters(centroids: Array, points: Array) -> Array:
    """Return the sum of the squared distances of the points to the nearest centroid."""
    nearest = jnp.min(_lengthened(centroids) @ _with_ones(points).T, axis=0)
    return jnp.sum(points**2) + jnp.sum(nearest)


def _lengthened(centroids: Array) -> Array:
    """Return (-2 c, |c|²), whose product with (p, 1) is |p - c|² - |p|²."""
    squares = jnp.sum(centroids**2, axis=1, keepdims=True)
    return jnp.concatenate([-2 * centroids, squares], axis=1)


def _with_ones(points: Array) -> Array:
    return jnp.concatenate([points, jnp.ones((len(points), 1), points.dtype)], axis=1)


def newton_direction(centroids: Array, points: Array) -> Array:
    """Return the gradient divided by the diagonal of the Hessian, which is diagonal.

    Which centroid is the nearest does not change near a point where f is
    differentiable, so f is there the sum over the clusters. A point that is as near to
    several centroids is shared by them.
    """
    ones, table = _with_ones(points), _lengthened(centroids)
    # In parts, so that the distances of a part stay in the cache.
    rows = max(r for r in range(1, 513) if len(points) % r == 0)

    def add(sums: Array, part: Array) -> tuple[Array, None]:
        squares = table @ part.T
        least = jnp.min(squares, axis=0, keepdims=True)
        nearest = (squares == least).astype(points.dtype)
        return sums + nearest @ (part / jnp.sum(nearest, axis=0)[:, None]), None

    parts = ones.reshape(-1, rows, ones.shape[1])
    sums = jax.lax.scan(add, jnp.zeros_like(table), parts)[0]
    f = lambda c: jnp.sum(_lengthened(c) * sums)
    curvature = hessian_vector_product(f, centroids, jnp.ones_like(centroids))
    return gradient(f, centroids) / curvature


# Least squares.


def least_squares(x: Array, n: int) -> Array:
    """Return half the squared distance of a polynomial from sign(t), on a grid.

    The powers of t are products of few powers: t^(a w + b) = t^(a w) t^b.
    """
    m = x.shape[0]
    width = max(1, math.isqrt(m))
    rows = -(-m // width)
    i = jnp.arange(n, dtype=x.dtype)
    t = -1 + 2 * i / (n - 1)
    powers = lambda base, count: jnp.stack(
        functools.reduce(
            lambda made, _: [*made, made[-1] * base], range(count - 1), [base**0]
        )
    )
    small = powers(t, width)
    large = powers(small[-1] * t, rows)
    coefficients = jnp.pad(x, (0, rows * width - m)).reshape(rows, width)
    residual = jnp.sum(large * (coefficients @ small), axis=0) - jnp.sign(t)
    return 0.5 * jnp.sum(residual**2)


# An ordinary differential equation.


def runge_kutta(x: Array, s: int) -> Array:
    """Return y(2) of y_0' = x_0, y_i' = x_i y_(i-1), y(0) = 0, after s steps of RK4."""
    h = 2.0 / s
    slope = lambda y: x * jnp.concatenate([jnp.ones(1, x.dtype), y[:-1]])

    def step(y: Array, _: Array) -> tuple[Array, None]:
        k1 = slope(y)
        k2 = slope(y + h / 2 * k1)
        k3 = slope(y + h / 2 * k2)
        k4 = slope(y + h * k3)
        return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

    # With checkpoints the gradient stores 2 √s of the s states.
    return checkpoint_scan(step, jnp.zeros_like(x), jnp.arange(s))[0]


# The determinant.


def determinant(entries: Array, size: int) -> Array:
    """Return the determinant by expansion by minors, each minor computed once.

    The minor of the last r rows and a set of r columns is a sum over its columns. There
    are 2^n sets of columns, so this takes n 2^n products instead of n!.
    """
    matrix = entries.reshape(size, size)
    minors = jnp.ones(1, entries.dtype)
    sets: list[tuple[int, ...]] = [()]
    for row in range(size - 1, -1, -1):
        place = {chosen: at for at, chosen in enumerate(sets)}
        sets = [tuple(chosen) for chosen in _subsets(range(size), size - row)]
        columns = np.array(sets)
        below = np.array(
            [
                [place[chosen[:j] + chosen[j + 1 :]] for j in range(len(chosen))]
                for chosen in sets
            ]
        )
        signs = (-1.0) ** np.arange(size - row)
        minors = jnp.sum(signs * matrix[row][columns] * minors[below], axis=1)
    return minors[0]


def _subsets(items: range, size: int) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = [()]
    for item in items:
        found += [(*chosen, item) for chosen in found if len(chosen) < size]
    return [chosen for chosen in found if len(chosen) == size]


# A recurrent network.


def recurrent_loss(params: tuple[Array, Array], state: Array, sequence: Array) -> Array:
    """Return the loss of a network of elementwise LSTM layers that predicts bits."""
    main, extra = params
    layers, bits = main.shape[0] // 2, main.shape[1] // 4
    inputs = sequence[:-1] * extra[0]
    for layer in range(layers):
        weights, biases = (
            main[2 * layer + i].reshape(4, bits) for i in range(2)
        )  # Of the gates: forget, in, out, change.
        # Two gates see the input alone, so they are computed for all steps at once.
        forget = jax.nn.sigmoid(inputs * weights[0] + biases[0])
        leave = jax.nn.sigmoid(inputs * weights[2] + biases[2])

        def step(
            carry: tuple[Array, Array],
            gates: tuple[Array, Array],
            weights: Array = weights,
            biases: Array = biases,
        ) -> tuple[tuple[Array, Array], Array]:
            hidden, cell = carry
            enter = jax.nn.sigmoid(hidden * weights[1] + biases[1])
            change = jnp.tanh(hidden * weights[3] + biases[3])
            cell = cell * gates[0] + enter * change
            hidden = gates[1] * jnp.tanh(cell)
            return (hidden, cell), hidden

        start = (state[2 * layer], state[2 * layer + 1])
        inputs = jax.lax.scan(step, start, (forget, leave))[1]
    predicted = inputs * extra[1] + extra[2]
    total = jnp.log(2 + jnp.sum(jnp.exp(predicted), axis=1, keepdims=True))
    return -jnp.mean(sequence[1:] * (predicted - total))


# Bundle adjustment.


def rotation(angles: Array) -> Array:
    """Return the rotation matrix of an axis times an angle, by Rodrigues' formula."""
    square = jnp.sum(angles**2)
    angle = jnp.sqrt(jnp.where(square == 0, 1.0, square))
    x, y, z = axis = angles / angle
    cross = jnp.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turned = (
        jnp.cos(angle) * jnp.eye(3)
        + jnp.sin(angle) * cross
        + (1 - jnp.cos(angle)) * jnp.outer(axis, axis)
    )
    x, y, z = angles
    small = jnp.eye(3) + jnp.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return jnp.where(square == 0, small, turned)


def projected(
    at: list[Array], lens: list[Array], weight: Array, feature: list[Array]
) -> list[Array]:
    """Return the two weighted errors of the pictures of points.

    All are vectors with an entry for each observation, which XLA fuses; matrices with
    axes of length 2 and 3 took 27 ms instead of 17.

    Args:
      at: Coordinates of the points in the camera's frame, three vectors.
      lens: Focal length, principal point and radial distortion, five vectors.
      weight, feature: The weight, and the two coordinates of the observed picture.
    """
    focal, *principal, first, second = lens
    flat = [at[0] / at[2], at[1] / at[2]]
    square = flat[0] ** 2 + flat[1] ** 2
    scale = focal * (1 + square * (first + second * square))
    return [weight * (flat[i] * scale + principal[i] - feature[i]) for i in range(2)]


def _times(rows: Any, vector: list[Array]) -> list[Array]:
    return [sum(rows[i, j] * vector[j] for j in range(3)) for i in range(3)]


def reprojection(
    cameras: Array, points: Array, weights: Array, features: Array, p: int
) -> tuple[Array, Array]:
    """Return the errors of the pictures, (2, p), and of the weights, (p,)."""
    camera, point = _observations(len(cameras), len(points), p)
    turns = jax.vmap(rotation, out_axes=-1)(cameras[:, :3])[..., camera]
    away = [points[:, i][point] - cameras[:, 3 + i][camera] for i in range(3)]
    lens = [cameras[:, 6 + i][camera] for i in range(5)]
    errors = projected(_times(turns, away), lens, weights, list(features.T))
    return jnp.stack(errors), 1 - weights**2


def reprojection_jacobian(
    cameras: Array, points: Array, weights: Array, features: Array, p: int
) -> tuple[Array, Array]:
    """Return the entries that are not 0: (2, 15, p) and (p,).

    The 15 columns of an observation are those of its camera, its point and its weight.
    A rotation and its Jacobian are computed once for each camera. The camera's centre
    enters by the difference from the point, so its derivatives are those of the point
    with the other sign.
    """
    camera, point = _observations(len(cameras), len(points), p)
    angles = cameras[:, :3]
    turns = jax.vmap(rotation, out_axes=-1)(angles)[..., camera]  # (3, 3, p).
    slope = lambda a: jacobian(rotation, a)
    slopes = jax.vmap(slope, out_axes=-1)(angles)[..., camera]  # (3, 3, 3, p).
    away = [points[:, i][point] - cameras[:, 3 + i][camera] for i in range(3)]
    lens = [cameras[:, 6 + i][camera] for i in range(5)]
    turned = [_times(slopes[:, :, a], away) for a in range(3)]
    parts = (_times(turns, away), lens, weights)
    rows = []
    for row in range(2):
        error = lambda a, b, c, row=row: projected(a, b, c, list(features.T))[row]
        of_at, of_lens, of_weight = jax.vjp(error, *parts)[1](jnp.ones(p))
        along = lambda move, of_at=of_at: sum(of_at[i] * move[i] for i in range(3))
        turning = [along(turned[a]) for a in range(3)]
        moving = [along(turns[:, j]) for j in range(3)]
        centre = [-part for part in moving]
        rows.append(jnp.stack([*turning, *centre, *of_lens, *moving, of_weight]))
    return jnp.stack(rows), gradient(lambda w: jnp.sum(1 - w**2), weights)


def _observations(n: int, m: int, p: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(p) % n, np.arange(p) % m


def bundle_arrays(given: dict[str, Any]) -> tuple[Any, ...]:
    """Return cameras, points, weights and features, each repeated."""
    repeated = lambda name, count: np.tile(np.asarray(given[name], float), (count, 1))
    return (
        repeated("cam", given["n"]),
        repeated("x", given["m"]),
        np.full(given["p"], float(given["w"])),
        repeated("feat", given["p"]),
        given["p"],
    )


# Hand tracking.


def hand_errors(
    theta: Array, us: Array, model: dict[str, Array], parents: tuple[int, ...]
) -> Array:
    """Return the distances of the observed points from points on the hand, (c, 3).

    A point on a triangle has the coordinates u_0, u_1 and 1 - u_0 - u_1.
    """
    moves, shift = hand_moves(theta, model, parents)
    mixed, corners = skin(model)
    places = mixed @ moves + shift
    return model["points"] - _on_triangles(us, places, corners)


def hand_moves(
    theta: Array, model: dict[str, Array], parents: tuple[int, ...]
) -> tuple[Array, Array]:
    """Return the movement of each bone as rows (4 bones, 3), and the hand's shift."""
    turned = rotation_or_identity(theta[:3]) @ hand_transforms(theta, model, parents)
    return jnp.moveaxis(turned, 1, 2).reshape(-1, 3), theta[3:6]


def skin(model: dict[str, Array]) -> tuple[Array, np.ndarray]:
    """Return the matrix from moves to the used vertices, and the triangles' corners.

    A vertex is a weighted mean of what the bones do to it, so it is linear in them.
    """
    verts, base, weights = model["verts"], model["base_positions"], model["weights"]
    used, corners = np.arange(len(base)), verts
    if verts.size < len(base):
        used, corners = verts.reshape(-1), np.arange(verts.size).reshape(-1, 3)
    mixed = jnp.asarray(weights)[used][:, :, None] * jnp.asarray(base)[used][:, None]
    return mixed.reshape(len(used), -1), corners


def _on_triangles(us: Array, places: Array, corners: np.ndarray) -> Array:
    """Return the points with coordinates u on triangles, (c, *places.shape[1:])."""
    shares = (us[:, 0], us[:, 1], 1 - us[:, 0] - us[:, 1])
    axes = (1,) * (places.ndim - 1)
    return sum(
        share.reshape(-1, *axes) * places[corners[:, k]]
        for k, share in enumerate(shares)
    )


def rotation_or_identity(angles: Array) -> Array:
    """Return the rotation matrix, or the identity for an angle below 0.0001."""
    return jnp.where(jnp.sum(angles**2) < 1e-8, jnp.eye(3), rotation(angles))


def hand_transforms(
    theta: Array, model: dict[str, Array], parents: tuple[int, ...]
) -> Array:
    """Return the movement of each bone, (bones, 3, 4)."""
    bones = len(parents)
    angles = jnp.zeros((bones, 3), theta.dtype)  # About the axes x, z and y.
    finger = theta[6:].reshape(5, 4)
    first = 2 + 4 * np.arange(5)
    angles = angles.at[first, 0].set(finger[:, 0]).at[first, 1].set(finger[:, 1])
    angles = angles.at[first + 1, 0].set(finger[:, 2])
    angles = angles.at[first + 2, 0].set(finger[:, 3])
    own = model["base_relatives"] @ jax.vmap(_turn)(angles)
    absolute: list[Array] = []
    for bone, parent in enumerate(parents):
        absolute.append(own[bone] if parent < 0 else absolute[parent] @ own[bone])
    return (jnp.stack(absolute) @ model["inverse_base_absolutes"])[:, :3]


def _turn(angles: Array) -> Array:
    x, z, y = angles
    one, zero = jnp.ones_like(x), jnp.zeros_like(x)
    cos, sin = jnp.cos, jnp.sin
    about_x = [[one, zero, zero], [zero, cos(x), -sin(x)], [zero, sin(x), cos(x)]]
    about_y = [[cos(y), zero, sin(y)], [zero, one, zero], [-sin(y), zero, cos(y)]]
    about_z = [[cos(z), -sin(z), zero], [sin(z), cos(z), zero], [zero, zero, one]]
    turned = jnp.array(about_z) @ jnp.array(about_y) @ jnp.array(about_x)
    return jnp.eye(4, dtype=x.dtype).at[:3, :3].set(turned)


def hand_jacobian(
    theta: Array, us: Array, model: dict[str, Array], parents: tuple[int, ...]
) -> Array:
    """Return the derivatives by u_0, u_1 and theta, (c, 3, 28).

    The errors of a triangle depend on its own u alone, so the derivatives by all u_0
    are one directional derivative. The vertices are linear in the moves of the bones,
    so the derivatives of the moves by theta are skinned as the moves are.
    """
    f = lambda u: hand_errors(theta, u, model, parents)
    along = lambda j: directional_derivative(f, us, jnp.zeros_like(us).at[:, j].set(1))
    moves, shift = jacobian(
        lambda t: hand_moves(t, model, parents), theta, mode="forward"
    )
    mixed, corners = skin(model)
    places = (mixed @ moves.reshape(len(moves), -1)).reshape(-1, *shift.shape) + shift
    by_theta = -_on_triangles(us, places, corners)
    return jnp.concatenate([along(0)[..., None], along(1)[..., None], by_theta], axis=2)


def hand_arrays(given: dict[str, Any]) -> tuple[Any, ...]:
    """Return the pose, the coordinates, the model as arrays, and the parents."""
    data, model = given["data"], given["data"]["model"]
    arrays = {
        name: np.asarray(model[name], float)
        for name in (
            "base_relatives",
            "inverse_base_absolutes",
            "base_positions",
            "weights",
        )
    }
    arrays["points"] = np.asarray(data["points"], float)
    arrays["verts"] = np.asarray(model["triangles"])[
        np.asarray(data["correspondences"])
    ]
    fixed = Fixed(arrays)
    return (
        np.asarray(given["theta"], float),
        np.asarray(given["us"], float),
        fixed,
        tuple(model["parents"]),
    )


class Fixed(dict):  # pyright: ignore[reportMissingTypeArgument]
    """The arrays of a model, which a program may take as constants.

    Its hash is its identity, as a static argument needs one.
    """

    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]
    __eq__ = object.__eq__


# Descents within descents.


def descent(
    f: Callable[[Array], Array],
    slope: Callable[[Array], Array],
    start: Array,
    most: int | None = None,
) -> Array:
    """Descend as GradBench prescribes it, and return the last point.

    The rate starts at 1e-5. It is doubled after ten steps that lower f, and halved
    after a step that does not, which is taken back. The descent ends where the gradient
    or a step is at most 1e-5 long.

    Args:
      f, slope: The function and its gradient.
      start: Shape (n,).
      most: Number of iterations, for a loop that reverse mode can differentiate. The
        result is NaN if the descent needs more. None means a loop that only forward
        mode can differentiate.
    """
    initial = (start, f(start), slope(start), jnp.asarray(1e-5), 0, jnp.asarray(False))

    def iterate(state: Any) -> Any:
        x, value, g, rate, count, _ = state
        small = jnp.sum(jax.lax.stop_gradient(g) ** 2) <= 1e-10
        double = count == 10
        trial = x - rate * g
        moved = jax.lax.stop_gradient(trial - x)
        short = jnp.sum(moved**2) <= 1e-10
        done = small | (~double & short)
        new = f(trial)
        lower = new < value
        accept = ~done & ~double & lower
        refuse = ~done & ~double & ~lower
        rate = jnp.where(done, rate, jnp.where(double, 2 * rate, rate))
        rate = jnp.where(refuse, rate / 2, rate)
        count = jnp.where(accept, count + 1, jnp.where(done, count, 0))
        return (
            jnp.where(accept, trial, x),
            jnp.where(accept, new, value),
            jnp.where(accept, slope(trial), g),
            rate,
            count,
            done,
        )

    if most is None:
        return jax.lax.while_loop(lambda s: ~s[-1], iterate, initial)[0]

    def step(state: Any, _: None) -> tuple[Any, None]:
        made = iterate(state)
        kept = lambda old, new: jnp.where(state[-1], old, new)
        return jax.tree.map(kept, state, made), None

    last = jax.lax.scan(step, initial, None, most)[0]
    return jnp.where(last[-1], last[0], jnp.nan)


MOST_STEPS = 512  # Of a loop that reverse mode differentiates.


def mode_of(letter: str) -> str:
    """Return the mode of a letter of GradBench's names."""
    return {"f": "forward", "r": "reverse"}[letter]


def landing(w: Array, outer: str, inner: str) -> Array:
    """Return the square of the place where a charged particle meets the x axis."""
    charges = jnp.array([[10.0, 0.0], [10.0, 0.0]]).at[0, 1].set(10.0 - w)
    potential = lambda x: jnp.sum(1 / jnp.sqrt(jnp.sum((charges - x) ** 2, axis=1)))
    push = lambda x: -gradient(potential, x, mode_of(inner))  # pyright: ignore[reportArgumentType]
    dt = 0.1
    initial = (jnp.array([0.0, 8.0]), jnp.array([0.75, 0.0]), jnp.asarray(False))

    def step(state: Any) -> Any:
        x, v, _ = state
        a = push(x)
        x = x + dt * v
        done = x[1] <= 0
        return x, jnp.where(done, v, v + dt * a), done

    if outer == "f":
        x, v, _ = jax.lax.while_loop(lambda s: ~s[-1], step, initial)
    else:

        def masked(state: Any, _: None) -> tuple[Any, None]:
            kept = lambda old, new: jnp.where(state[-1], old, new)
            return jax.tree.map(kept, state, step(state)), None

        x, v, done = jax.lax.scan(masked, initial, None, MOST_STEPS)[0]
        x = jnp.where(done, x, jnp.nan)
    return (x[0] - x[1] / v[1] * v[0]) ** 2


def particle(w: Array, modes: str) -> Array:
    """Return the parameter at which the particle lands at the origin."""
    f = lambda w: landing(w[0], *modes)
    slope = lambda w: gradient(f, w, mode_of(modes[0]))  # pyright: ignore[reportArgumentType]
    return descent(f, slope, w[None])[0]


def saddle(start: Array, modes: str) -> Array:
    """Return the x of min_x max_y f(x, y), and the y, by descents within a descent."""
    outer, inner = map(mode_of, modes)
    f = lambda x, y: x[0] ** 2 + x[1] ** 2 - y[0] ** 2 - y[1] ** 2
    most = None if outer == "forward" else MOST_STEPS

    def best(x: Array) -> Array:
        below = lambda y: -f(x, y)
        slope = lambda y: gradient(below, y, inner)  # pyright: ignore[reportArgumentType]
        return descent(below, slope, start, most)

    highest = lambda x: f(x, best(x))
    x = descent(highest, lambda x: gradient(highest, x, outer), start)  # pyright: ignore[reportArgumentType]
    return jnp.concatenate([x, best(x)])


MODES = ("ff", "fr", "rf", "rr")
every_mode = lambda f: lambda x: jnp.stack([f(x, modes) for modes in MODES])

EVALUATIONS = {
    "gmm": Evaluation(
        mixture,
        lambda params, *rest: gradient(lambda p: mixture(p, *rest), params),
        mixture_arrays,
        ("objective", "jacobian"),
    ),
    "kmeans": Evaluation(
        spread_of_clusters,
        newton_direction,
        numbers("centroids", "points"),
        ("cost", "dir"),
    ),
    "llsq": Evaluation(
        least_squares,
        lambda x, n: gradient(lambda y: least_squares(y, n), x),
        lambda given: (np.asarray(given["x"], float), given["n"]),
        ("primal", "gradient"),
        "powers of t as products of 2 √m powers",
    ),
    "lse": Evaluation(
        logsumexp,
        lambda x: gradient(logsumexp, x),
        numbers("x"),
        ("primal", "gradient"),
    ),
    "ode": Evaluation(
        runge_kutta,
        lambda x, s: gradient(lambda y: runge_kutta(y, s)[-1], x),
        lambda given: (np.asarray(given["x"], float), given["s"]),
        ("primal", "gradient"),
        "its C++ gradient is a closed form of the exact solution, and runs no steps",
    ),
    "det": Evaluation(
        determinant,
        lambda a, n: gradient(lambda b: determinant(b, n), a),
        lambda given: (np.asarray(given["A"], float), given["ell"]),
        ("primal", "gradient"),
        "another algorithm: each minor once, n 2^n products instead of n!",
    ),
    "lstm": Evaluation(
        recurrent_loss,
        lambda params, *rest: gradient(lambda p: recurrent_loss(p, *rest), params),
        lambda given: (
            numbers("main_params", "extra_params")(given),
            *numbers("state", "sequence")(given),
        ),
        ("objective", "jacobian"),
    ),
    "ba": Evaluation(
        reprojection,
        reprojection_jacobian,
        bundle_arrays,
        ("objective", "jacobian"),
        "rotations once for each camera; entries by columns, without the pattern",
    ),
    "ht": Evaluation(
        hand_errors,
        hand_jacobian,
        hand_arrays,
        ("objective", "jacobian"),
        "only vertices of observed triangles; the hand's model is a constant",
    ),
    "particle": Evaluation(
        lambda w: landing(w, "f", "f"),
        every_mode(particle),
        numbers("w"),
        ("", "ff"),
        "all four modes in one program; no C++ there",
    ),
    "saddle": Evaluation(
        lambda x: x[0] ** 2 + x[1] ** 2,
        every_mode(saddle),
        numbers("start"),
        ("", "ff"),
        "all four modes in one program; no C++ there",
    ),
}


def compiled(
    name: str, given: dict[str, Any]
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return the compiled value and derivative, as functions of no argument.

    They wait for their results. The time to call this function is that of compiling.
    """
    made = EVALUATIONS[name]
    arguments = made.arrays(given)
    is_static = lambda leaf: (
        isinstance(leaf, int | tuple | Fixed)
        and not (
            isinstance(leaf, tuple)
            and any(isinstance(part, np.ndarray) for part in leaf)
        )
    )
    static = tuple(i for i, leaf in enumerate(arguments) if is_static(leaf))
    moving = [
        leaf if i in static else jax.tree.map(jnp.asarray, leaf)
        for i, leaf in enumerate(arguments)
    ]
    dynamic = [leaf for i, leaf in enumerate(moving) if i not in static]

    def program(f: Callable[..., Any]) -> Callable[[], Any]:
        # The numbers that are differentiated are arguments, never constants.
        with jax.numpy_rank_promotion("allow"):
            ready = jax.jit(f, static_argnums=static).lower(*moving).compile()
        return lambda: jax.block_until_ready(ready(*dynamic))

    return program(made.value), program(made.derivative)
