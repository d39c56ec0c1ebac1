"""Sharpness-aware minimisation, as its paper prints it."""

from research.verification.formulas.formula import Formula, Mistake
from research.verification.formulas.leaves import norm


def sam(x, f, learning_rate, rho=0.05):
    """Foret et al. (2021), algorithm 1 with p = 2: ε̂ = ρ g / |g|, w <- w - η ∇L(w + ε̂)."""
    while True:
        g = f.gradient(x)
        length = norm(g)
        climb = rho * (g / length) if length != 0 else 0 * g
        # Where gradients are given they are a linear function's, the same everywhere.
        worst = f.gradient(x + climb) if f.value else g
        x = x - learning_rate * worst
        yield x


FORMULAS = {
    "sam": Formula(
        sam,
        (
            Mistake(
                "the gradient at the worst point nearby is never taken",
                "f.gradient(x + climb)",
                "g",
            ),
            Mistake(
                "it goes to the best point nearby, not the worst",
                "x + climb",
                "x - climb",
            ),
            Mistake("the ascent is not normalised", "g / length", "g"),
            Mistake(
                "the descent starts from the worst point, not from the params",
                "x - learning",
                "x + climb - learning",
            ),
        ),
    ),
}
