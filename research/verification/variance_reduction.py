"""Cards of SVRG and SAGA, whose formulas need a sum over examples."""

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
