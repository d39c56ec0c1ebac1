"""One law of the table of rules: whatever a rule lacks is named here, with where to
write it."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import optax
import pytest

from research import update_rules, verification
from research.tuning.spaces import check_space
from research.update_rules import FAMILIES, RULE_TABLE, RuleEntry
from research.verification.docstrings import describe
from research.verification.formula import Formula

TOP = Path(__file__).parent.parent
MOST_EVALUATIONS = 100.0
FEWEST_MISTAKES = 3
FEWEST_WORDS = 4  # Of a reason.


def lacks(name: str, entry: RuleEntry) -> Iterator[str]:
    """What a rule of the table lacks, each with where to write it."""
    family = entry.constructor.__module__.rpartition("._")[2]
    here = f"research/update_rules/_{family}.py"
    if getattr(update_rules, name, None) is not entry.constructor:
        yield (
            "a public name: write `from research.update_rules."
            f"_{family} import {name} as {name}` in research/update_rules/__init__.py"
        )
    if isinstance(entry.search_space, str):
        if len(entry.search_space.split()) < 3:
            yield f"a search space, or the reason why it has none, in RULES in {here}"
    else:
        check_space(entry.search_space, name)
        strange = (
            entry.search_space.keys()
            - inspect.signature(entry.constructor).parameters.keys()
        )
        if strange or not entry.search_space:
            yield f"ranges of its own arguments (not {strange}) in RULES in {here}"
    if not 1.0 <= entry.evaluations <= MOST_EVALUATIONS:
        yield f"evaluations, at least 1, in RULES in {here}"
    for alias in entry.aliases:
        if alias in RULE_TABLE or update_rules.ALIASES[alias] != name:
            yield f"aliases of its own: {alias!r} names another rule, in {here}"
    yield from lacks_a_card(name, entry, f"research/verification/{family}.py")
    found = describe(name)
    for text, part in (
        ("a formula", found.formula or "=" in found.summary),
        ("a paragraph that begins with 'Use it'", found.use),
        ("a section References", found.papers),
        ("a sentence on how optax differs", "optax" in " ".join(found.formula)),
    ):
        if not part:
            yield f"{text} in its docstring, in {here}"
    page = TOP / f"docs/rules/{name}.md"
    if not page.exists() or f"# {name}\n" not in page.read_text("utf-8"):
        yield f"its page docs/rules/{name}.md: run `python docs/build.py`"


def lacks_a_card(name: str, entry: RuleEntry, file: str) -> Iterator[str]:
    """What the card of a rule lacks."""
    rule_card = verification.CARDS.get(name)
    if rule_card is None:
        yield f"a card: write CARDS[{name!r}] in {file}"
        return
    if isinstance(rule_card.formula, Formula):
        if len(rule_card.formula.mistakes) < FEWEST_MISTAKES:
            yield f"{FEWEST_MISTAKES} mistakes in the formula of its card in {file}"
    elif not entry.needs:
        yield f"a formula in its card in {file}: it walks PROBLEMS, as its paper says"
    for authority in ("formula", "optax", "recorded"):
        reason = getattr(rule_card, authority)
        if isinstance(reason, str) and len(reason.split()) < FEWEST_WORDS:
            yield f"{authority}, or a sentence why not, in its card in {file}"


def unlisted() -> Iterator[str]:
    """Rules that stand in a family and not in its table."""
    folder = Path(inspect.getfile(update_rules)).parent
    for family in FAMILIES:
        listed = {entry.constructor for entry in family.RULES}
        for name, value in vars(family).items():
            if (
                inspect.isfunction(value)
                and value.__module__ == family.__name__
                and not name.startswith("_")
                and inspect.signature(value).return_annotation
                in (optax.GradientTransformation, optax.GradientTransformationExtraArgs)
                and value not in listed
            ):
                yield (
                    f"{name}: give it a RuleEntry in RULES in "
                    f"{Path(inspect.getfile(family)).name}"
                )
    modules = {Path(inspect.getfile(family)).name for family in FAMILIES}
    for file in sorted(folder.glob("_*.py")):
        if "\nRULES = (" in file.read_text("utf-8") and file.name not in modules:
            yield (
                f"{file.name}: name it in FAMILIES in research/update_rules/__init__.py"
            )


def test_every_rule_has_entry_card_and_page():
    missing = [
        f"{name} lacks {what}"
        for name, entry in RULE_TABLE.items()
        for what in lacks(name, entry)
    ]
    missing = [*unlisted(), *missing]
    if missing:
        pytest.fail("\n".join(["", *missing]), pytrace=False)
