"""Rprop as Igel & Hüsken print it."""

from research.verification.formulas.formula import Formula, Mistake
from research.verification.formulas.leaves import entrywise, sign, zeros_like


def rprop(
    x,
    f,
    learning_rate,
    eta_minus=0.5,
    eta_plus=1.2,
    min_step_size=1e-6,
    max_step_size=50.0,
):
    """Igel & Hüsken (2003), iRprop-."""
    before = step = zeros_like(x)
    size = zeros_like(x) + learning_rate
    while True:
        g = f.gradient(x)
        agreement = g * before
        size = size * entrywise(
            lambda a: eta_plus if a > 0 else eta_minus if a < 0 else a**0, agreement
        )
        size = entrywise(lambda s: min(max(s, min_step_size), max_step_size), size)
        kept = zero_where_negative(agreement, g)
        step = sign(kept) * size
        x = x - step
        before = kept
        yield x


def zero_where_negative(agreement, a):
    """a, but 0 where the sign of the gradient changed."""
    return entrywise(lambda s, e: 0 * e if s < 0 else e, agreement, a)


FORMULAS = {
    "rprop": Formula(
        rprop,
        (
            Mistake(
                "it steps where the sign has changed (Rprop-)",
                "kept = zero_where_negative(agreement, g)",
                "kept = g",
            ),
            Mistake(
                "each step comes one call too late, as in optax.rprop",
                "step = sign(kept) * size\n        x = x - step",
                "x = x - zero_where_negative(agreement, step)\n        step = sign(kept) * size",
            ),
            Mistake(
                "growing and shrinking are swapped",
                "eta_plus if a > 0 else eta_minus if a < 0",
                "eta_minus if a > 0 else eta_plus if a < 0",
            ),
            Mistake(
                "the gradient stands for its sign", "sign(kept) * size", "kept * size"
            ),
            Mistake(
                "a changed sign is remembered, so that the next step is resized once more",
                "before = kept",
                "before = g",
            ),
            Mistake("the steps only shrink", "eta_plus if a > 0", "1 if a > 0"),
            Mistake(
                "where the sign changed, the last step is taken back (Rprop+)",
                "step = sign(kept) * size\n        x = x - step",
                "step = sign(kept) * size - (step - zero_where_negative(agreement, step))\n        x = x - step",
            ),
        ),
    )
}
