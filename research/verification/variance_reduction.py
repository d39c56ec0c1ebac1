"""Cards of SVRG and SAGA: the card of a rule says how the rule is verified.

Both rules need a sum over examples, which no problem of the verification has.
"""

from research.verification.card import Card

_NO_PROBLEM = (
    "it needs a sum over examples, and the problems here have none; "
    "tests/rules/test_variance_reduction.py compares it with its paper"
)

CARDS = {
    "svrg": Card(
        _NO_PROBLEM,
        optax="optax has no variance reduction",
        recorded="neither torch nor timm has variance reduction",
    ),
    "saga": Card(
        _NO_PROBLEM,
        optax="optax has no variance reduction",
        recorded="neither torch nor timm has variance reduction",
    ),
}
