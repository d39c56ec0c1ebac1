"""A Sphinx extension: formulas become MathML when the site is built.

The page then needs no script and no font from elsewhere to show them.
"""

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert


def visit_inline(translator: Any, node: nodes.math) -> None:
    """Write an inline formula."""
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def visit_displayed(translator: Any, node: nodes.math_block) -> None:
    """Write a displayed formula in a box of its own, which scrolls if it is wide."""
    formula = convert(node.astext(), display="block")
    translator.body.append(f'<div class="math">{formula}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the way to write formulas, for `html_math_renderer`."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_displayed, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
