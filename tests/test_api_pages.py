"""Laws of the API pages: each public name has one; its summary says more than it."""

import inspect
import re

import pytest

from docs import api, gallery
from tests.fuzz.public_calls import public_functions

NAMES = api.public_names()
# Words that say nothing of what a name is.
EMPTY = {
    *("a", "an", "the", "of", "and", "or", "to", "in", "for", "with", "by", "at", "on"),
    *("is", "are", "that", "this", "its", "it", "from", "as", "return", "compute"),
    *("apply", "build", "make", "get", "give", "one", "value", "name"),
}


def says_something(name: str, summary: str) -> bool:
    """Whether a summary has a formula, a name in code, or two words of its own.

    A word of its own is neither empty nor a part of the name.
    """
    if re.search("=|<-|∂|Σ", summary) or re.search(r"`(?!research\b)\w[^`]*`", summary):
        return name not in re.findall("`([^`]*)`", summary)
    parts = re.findall("[a-z]{2,}", name.lower())
    own = [
        word
        for word in re.findall("[a-z]{2,}", summary.lower())
        if word not in EMPTY and not any(word.startswith(part[:5]) for part in parts)
    ]
    return len(own) >= 2


def test_every_public_name_has_a_page():
    pages = api.pages()
    assert public_functions().keys() <= NAMES.keys()
    for found in NAMES.values():
        assert f"api/{found.full}.md" in pages
        assert f"]({found.full}.md)" in pages[f"api/{found.module}.md"]
    assert {name for name in pages if name.count(".") == 1} == {
        f"api/{module}.md" for module in (*api.modules(), "index")
    }


@pytest.mark.parametrize("found", NAMES.values(), ids=NAMES)
def test_a_summary_is_a_sentence_that_says_more_than_the_name(found):
    assert says_something(found.name, found.summary), found.summary
    assert found.summary.endswith((".", ":")), found.summary
    assert found.line > 0


@pytest.mark.parametrize(
    ("name", "summary"),
    [
        ("squared_error", "Compute the squared error."),
        ("Picture", "A picture."),
        ("find_rule", "Find the rule with this name."),
        ("adam", ""),
        ("adam", "Build `adam`."),
    ],
)
def test_a_summary_that_repeats_the_name_is_seen(name, summary):
    assert not says_something(name, summary)


def test_every_public_function_of_the_mathematics_has_an_example():
    modules = ("losses", "schedules", "update_rules", "statistics", "samplers")
    missing = [
        found.full
        for found in NAMES.values()
        if found.module in modules
        and inspect.isfunction(found.value)
        and ">>> " not in found.text
    ]
    assert not missing


def test_a_page_has_the_sections_of_the_docstring_and_links_what_it_names():
    page = api.pages()["api/losses.huber.md"]
    for part in ("**Args**", "- **delta**: ", "**Returns**", "**References**"):
        assert part in page
    assert "```pycon\n>>> print(huber(" in page
    assert "[`squared_error`](losses.squared_error.md)" in page
    assert "(../research/losses/regression.py#L" in page


def test_an_argument_is_no_link_to_a_function_of_the_same_name():
    text = api.page(NAMES["derivatives.check_derivative"], [])
    assert "`derivative`" in text
    assert "[`derivative`]" not in text


def test_a_list_of_a_docstring_is_a_list_on_its_page():
    text = "The cases are:\n\n- a long\n  one\n- another"
    assert api.paragraphs(text, "losses") == "The cases are:\n\n- a long one\n- another"
    entry = "  kind: One of two:\n    - a long\n      one\n    - another\n    Or ''."
    assert api.entries(entry, "losses") == (
        "- **kind**: One of two:\n  - a long one\n  - another\n\n  Or ''."
    )
    table = "rate  loss\n  0.1   0.2\n- 0.3"
    assert api.listed(table, "losses").startswith("```")


def test_a_sentence_before_a_colon_is_no_name_of_an_entry():
    text = "  The optimum. Its params are: one array."
    assert api.entries(text, "losses") == "The optimum. Its params are: one array."
    assert api.entries("  ValueError, TypeError: No.", "losses").startswith("- **Value")


def test_markup_of_a_docstring_is_shown_as_it_stands():
    assert api.prose("|x| <= a_i[0] and `b_i[0]`", "losses") == (
        r"\|x\| \<= a\_i\[0\] and `b_i[0]`"
    )


def test_a_name_is_linked_to_the_cards_that_use_it():
    uses = gallery.uses()
    assert "gallery/image_recognition.md" in uses["research.models.cnn"]
    assert "notebooks/write_adam.ipynb" in uses["research.verification.verify_rule"]
    source = (
        "from research import models as m\nm.cnn(1)\n"
        "losses = research.losses\nlosses.huber"
    )
    assert {"research.models.cnn", "research.losses.huber"} <= gallery.dotted(source)


@pytest.mark.on_ci("pictures of notebooks; nothing shorter shows this")
def test_card_of_a_notebook_has_the_first_picture_of_its_outputs():
    png = {"data": {"image/png": ["aGVs", "bG8="]}}
    cells = [{"outputs": []}, {}, {"outputs": [{"text": "1"}, png]}]
    assert gallery.first_picture({"cells": cells}) == b"hello"
    assert gallery.first_picture({"cells": cells[:2]}) is None
    card = gallery.overview({"write_adam": "notebooks/write_adam.png"})
    wanted = "![The first picture that the notebook draws](notebooks/write_adam.png)"
    assert card.count(wanted) == 1
    assert wanted not in gallery.overview()


@pytest.mark.on_ci(
    "the whole gallery; test_a_name_is_linked_to_the_cards_that_use_it has a card of "
    "each kind"
)
def test_every_experiment_and_notebook_has_one_card():
    sections = gallery.sections()
    cards = [name for section in sections for name in section.experiments]
    assert sorted(cards) == sorted(gallery.experiments())
    books = [name for section in sections for name in section.notebooks]
    assert sorted(books) == sorted(gallery.notebooks())
    overview = gallery.overview()
    for name, question in gallery.experiments().items():
        assert f"[**{gallery.escaped(question)}**](gallery/{name}.md)" in overview
        kept = gallery.reference(name)
        if kept:
            assert gallery.number(name, kept) in overview
            assert gallery.number(name, kept)
