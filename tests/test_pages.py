"""The pages that docs/build.py makes are what it makes now, and say what a reader needs
of every rule.
"""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from matplotlib import mathtext

from research.update_rules import RULE_TABLE
from research.verification.docstrings import describe

TOP = Path(__file__).parent.parent
sys.path.insert(0, str(TOP / "docs"))  # As when docs/build.py is run.
import typeset  # noqa: E402

SPEC = importlib.util.spec_from_file_location("build", TOP / "docs/build.py")
assert SPEC is not None
assert SPEC.loader is not None
build = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(build)


def test_building_again_changes_no_byte():
    made = build.pages()
    assert {path for path in made if path.parent.name == "rules"} == set(
        (TOP / "docs/rules").glob("*.md")
    )
    for path, text in made.items():
        assert path.read_text("utf-8") == text, (
            f"run python docs/build.py: {path.name} is not what it makes"
        )


def test_page_without_the_marks_of_a_part_is_refused(tmp_path):
    page, marks = tmp_path / "page.md", "<!-- table: made by docs/build.py -->\n"
    page.write_text(f"{marks}old\n<!-- end -->\n", "utf-8")
    assert build.put(page, {"table": "new\n"}) == f"{marks}new\n<!-- end -->\n"
    with pytest.raises(ValueError, match="families: made by"):
        build.put(page, {"families": "new\n"})


@pytest.mark.parametrize("name", RULE_TABLE)
def test_every_rule_says_what_it_is_where_from_and_when_to_use_it(name):
    found = describe(name)
    assert found.formula or "=" in found.summary, "no formula"
    assert found.use.startswith("Use it"), "no paragraph that begins with Use it"
    assert found.papers, "no References"
    assert "optax" in " ".join(found.formula), "does not say how optax differs"


def test_markup_in_a_docstring_is_shown_as_it_stands():
    assert typeset.escaped("x* and |g| but `a*b`") == r"x\* and \|g\| but `a*b`"
    # A formula after a comma, as in "the update, g_t,".
    assert typeset.inline("the update, g_t, is") == "the update, $g_t$, is"


def formulas(text: str) -> list[str]:
    return re.findall(r"\$\$\n(.*?)\n\$\$", text, re.S)


def as_mathtext(formula: str) -> str:
    """Matplotlib has other names for a few commands."""
    for tex, mathtext_name in (
        (r"\text", r"\mathrm"),
        (r"\_", ""),
        (r"\lvert", "|"),
        (r"\rvert", "|"),
    ):
        formula = formula.replace(tex, mathtext_name)
    return formula


@pytest.mark.on_ci("rules that begin with neither g nor m", but="^[gm]")
@pytest.mark.parametrize("name", RULE_TABLE)
def test_the_formula_of_a_rule_is_typeset_as_tex_that_can_be_drawn(name):
    page = (TOP / f"docs/rules/{name}.md").read_text("utf-8")
    assert formulas(page), "no displayed equation"
    parser = mathtext.MathTextParser("path")
    for formula in [*formulas(page), *re.findall(r"(?<!\$)\$([^$\n]+)\$", page)]:
        parser.parse(f"${as_mathtext(formula)}$")


@pytest.mark.parametrize(
    ("plain", "expected"),
    [
        ("a_t = b / c d", r"a_t = \frac{b}{c} d"),
        ("a = b c / (d + 1)", r"a = \frac{b c}{d + 1}"),
        ("η = sᵀs / sᵀy", r"\eta = \frac{s^{\top} s}{s^{\top} y}"),
        ("x = √max(1, n / m)", r"x = \sqrt{\max (1 , \frac{n}{m})}"),
        (
            "c = γ^p / Σ_(i<=t) γ_i^p",
            r"c = \frac{\gamma^p}{\sum_{i \leq t} \gamma_i^p}",
        ),
        ("r = |x - y|² + <g, x>", r"r = \lvert x - y \rvert^2 + \langle g , x \rangle"),
        ("v = t^-c β2^t M̂'_t", r"v = t^{-c} \beta_2^t \hat{M}_t^{\prime}"),
    ],
)
def test_plain_formulas_are_read_by_their_conventions(plain, expected):
    assert typeset.tex(plain) == expected


@pytest.mark.parametrize("broken", ["(a + b", "a / / b", "|x + 1", "/ a", "a ? b"])
def test_a_formula_that_is_not_understood_is_refused(broken):
    with pytest.raises(ValueError, match=r"\w"):
        typeset.tex(broken)
