"""Gradient descent and momentum, as their papers print them."""

from research.proofs.formulas.formula import Formula, Mistake
from research.proofs.formulas.leaves import sign, zeros_like


def gradient_descent(x, f, learning_rate):
    """Cauchy (1847): x <- x - η g."""
    while True:
        x = x - learning_rate * f.gradient(x)
        yield x


def heavy_ball(x, f, learning_rate, momentum=0.9):
    """Polyak (1964), equation (9): x_(t+1) = x_t - η g_t + μ (x_t - x_(t-1))."""
    before = x
    while True:
        x, before = x - learning_rate * f.gradient(x) + momentum * (x - before), x
        yield x


def nesterov(x, f, learning_rate, momentum=0.9):
    """Sutskever et al. (2013), equations (3)-(4), told at the point where the gradient is taken: y_t = x_t + μ v_t."""
    y, v = x, zeros_like(x)
    while True:
        v_next = momentum * v - learning_rate * f.gradient(y)
        x = x + v_next
        y, v = x + momentum * v_next, v_next
        yield y


FORMULAS = {
    "gradient_descent": Formula(
        gradient_descent,
        (
            Mistake("the step goes up the gradient", "x - learning_rate", "x + learning_rate"),
            Mistake("the gradient is halved", "f.gradient(x)", "f.gradient(x) / 2"),
            Mistake("the sign of the gradient stands for the gradient", "f.gradient(x)", "sign(f.gradient(x))"),
        ),
    ),
    "heavy_ball": Formula(
        heavy_ball,
        (
            Mistake(
                "the gradient is damped by 1 - momentum, as in an average",
                "learning_rate * f",
                "(1 - momentum) * learning_rate * f",
            ),
            Mistake("no momentum", "+ momentum * (x - before)", ""),
            Mistake("momentum is subtracted", "+ momentum * (x", "- momentum * (x"),
            Mistake(
                "it looks ahead, as Nesterov's rule does",
                "f.gradient(x) + momentum * (x - before), x",
                "f.gradient(x + momentum * (x - before)) + momentum * (x - before), x",
            ),
        ),
    ),
    "nesterov": Formula(
        nesterov,
        (
            Mistake("it does not look ahead: this is the heavy ball", "x + momentum * v_next", "x"),
            Mistake("it looks ahead along the old velocity", "x + momentum * v_next", "x + momentum * v"),
            Mistake(
                "the gradient is damped by 1 - momentum, as in an average",
                "learning_rate * f",
                "(1 - momentum) * learning_rate * f",
            ),
        ),
    ),
}
