"""Formula of the natural gradient, from its paper."""

from collections.abc import Iterator

from research.verification.card import Card
from research.verification.formula import Formula, Function, Mistake
from research.verification.leaves import Leaves
from research.verification.newton import (  # noqa: F401, the mistakes use them
    FRACTIONS,
    damped,
    diagonal,
    hessian,
    of_length,
    rooted,
    solve,
)


def natural_gradient(
    x: Leaves, f: Function, learning_rate: float = 1.0, damping: float = 0.0
) -> Iterator[Leaves]:
    """Yield the iterates of equation (7) of Amari (1998): x <- x - η F⁻¹ g.

    g is the gradient and η the learning rate. F is the Fisher matrix, plus `damping`
    times the identity. The Hessian is used as the Fisher matrix, because the two are
    equal for generalised linear models with a canonical link, such as softmax
    regression.
    """
    while True:
        fisher = hessian(f, x)
        x = x - learning_rate * solve(damped(fisher, damping), f.gradient(x))
        yield x


CARDS = {
    "natural_gradient": Card(
        Formula(
            natural_gradient,
            (
                Mistake(
                    "only the diagonal of the Fisher matrix is used",
                    "hessian(f, x)",
                    "diagonal(hessian(f, x))",
                ),
                Mistake(
                    "the gradient is divided by the root of the Fisher matrix",
                    "solve(damped(",
                    "solve(rooted(",
                ),
                Mistake(
                    "the Fisher matrix is left out: gradient descent",
                    "solve(damped(fisher, damping), f.gradient(x))",
                    "f.gradient(x)",
                ),
                Mistake(
                    "the step has a fixed length in the Fisher metric, as in "
                    "trust-region policy optimisation",
                    "learning_rate * solve(damped(fisher, damping), f.gradient(x))",
                    "of_length(learning_rate, solve(damped(fisher, damping), "
                    "f.gradient(x)), f.gradient(x))",
                ),
            ),
        ),
        optax="optax has no natural gradient",
        recorded="neither torch nor timm has a natural gradient",
        arguments={"damping": 0.5},
        rates=FRACTIONS,
        reasons={
            "rosenbrock": (
                "Rosenbrock's function is not a likelihood, so it has no Fisher matrix."
            )
        },
    ),
}
