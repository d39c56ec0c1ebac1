"""The pages that docs/build.py makes are what it makes now, and say what a reader needs of every rule."""

from pathlib import Path

import pytest

from docs import build
from research.update_rules import RULE_TABLE
from research.verification.docstrings import describe

TOP = Path(__file__).parent.parent


def test_building_again_changes_no_byte():
    made = build.pages()
    assert {path for path in made if path.parent.name == "rules"} == set(
        (TOP / "docs/rules").glob("*.md")
    )
    for path, text in made.items():
        assert path.read_text("utf-8") == text, (
            f"run python docs/build.py: {path.name} is not what it makes"
        )


@pytest.mark.parametrize("name", RULE_TABLE)
def test_every_rule_says_what_it_is_where_from_and_when_to_use_it(name):
    found = describe(name)
    assert found.formula or "=" in found.summary, "no formula"
    assert found.use.startswith("Use it"), "no paragraph that begins with Use it"
    assert found.papers, "no References"
    assert "optax" in " ".join(found.formula), "does not say how optax differs"


def test_markup_in_a_docstring_is_shown_as_it_stands():
    assert build.escaped("x* and |g| but `a*b`") == r"x\* and \|g\| but `a*b`"
