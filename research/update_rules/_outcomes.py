"""How a step ended, of rules that can fail to find one: a number in their state, and its meaning in words.

Such a rule keeps in its state `outcome`, an int32 that indexes OUTCOMES, and `evaluations`, an int32 that counts the
evaluations of the objective inside its last update (a value, or a value with its gradient, is one). From FIRST_FAILURE
on the step failed, and the update is zero times the direction. `research.descent.minimise` reads both and stops at a failure.
"""

from research.types import Array

(
    FOUND,
    DECREASE_ONLY,
    NO_DESCENT_DIRECTION,
    STEP_TOO_SMALL,
    EVALUATIONS_USED_UP,
    NOT_FINITE,
    SINGULAR,
) = range(7)
FIRST_FAILURE = NO_DESCENT_DIRECTION

OUTCOMES = (
    "found",
    "found, though only the decrease is sufficient and the slope is still steep",
    "no descent direction",
    "the step became too small",
    "evaluations used up",
    "not finite",
    "singular matrix",
)


def outcome_in_words(outcome: int | Array) -> str:
    """What an outcome in a rule's state means.

    Args:
      outcome: Index into OUTCOMES, a concrete scalar.
    Returns:
      The words.
    Raises:
      ValueError: There is no such outcome.
    Example:
      >>> outcome_in_words(NO_DESCENT_DIRECTION)
      'no descent direction'
    """
    index = int(outcome)
    if not 0 <= index < len(OUTCOMES):
        raise ValueError(
            f"outcome must be at least 0 and below {len(OUTCOMES)}; got outcome={outcome!r}."
        )
    return OUTCOMES[index]
