"""Formula of Rprop, from Igel & Hüsken."""

from collections.abc import Iterator

from research.verification.card import Card, Recorded
from research.verification.formula import Formula, Function, Mistake
from research.verification.leaves import Leaves, Number, entrywise, sign, zeros_like


def rprop(
    x: Leaves,
    f: Function,
    learning_rate: float,
    eta_minus: float = 0.5,
    eta_plus: float = 1.2,
    min_step_size: float = 1e-6,
    max_step_size: float = 50.0,
) -> Iterator[Leaves]:
    """Yield the iterates of iRprop- of Igel & Hüsken (2003).

    Each entry of the params has its own step size, which begins with `learning_rate`.
    The step size is multiplied by `eta_plus` if the gradient of this entry has the same
    sign as in the last step, and by `eta_minus` if the sign has changed. The step size
    stays between `min_step_size` and `max_step_size`. Then the entry moves by its step
    size against the sign of its gradient. But if this sign has changed, the entry does
    not move in this step, and the step size does not change in the next step.
    """
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


def zero_where_negative(agreement: Number, a: Number):
    """Return the array a, with 0 in entries where `agreement` is negative.

    `agreement` is the product of two successive gradients, entry by entry.
    """
    return entrywise(lambda s, e: 0 * e if s < 0 else e, agreement, a)


CARDS = {
    "rprop": Card(
        Formula(
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
                    (
                        "x = x - zero_where_negative(agreement, step)\n        "
                        "step = sign(kept) * size"
                    ),
                ),
                Mistake(
                    "growing and shrinking are swapped",
                    "eta_plus if a > 0 else eta_minus if a < 0",
                    "eta_minus if a > 0 else eta_plus if a < 0",
                ),
                Mistake(
                    "the gradient replaces its sign",
                    "sign(kept) * size",
                    "kept * size",
                ),
                Mistake(
                    "a changed sign is kept, so the next step is resized once more",
                    "before = kept",
                    "before = g",
                ),
                Mistake("the steps only shrink", "eta_plus if a > 0", "1 if a > 0"),
                Mistake(
                    "after a change of sign, the last step is undone (Rprop+)",
                    "step = sign(kept) * size\n        x = x - step",
                    (
                        "step = sign(kept) * size - (step - "
                        "zero_where_negative(agreement, step))\n        x = x - step"
                    ),
                ),
            ),
        ),
        optax="optax.rprop (up to 0.2.8) is one step late: its first update is 0, and "
        "each later update belongs to the call before",
        recorded=(Recorded("rprop/defaults"),),
        arguments={
            "eta_minus": 0.25,
            "eta_plus": 1.5,
            "min_step_size": 0.01,
            "max_step_size": 0.5,
        },
    ),
}
