"""Read the description of a rule from its docstring: formula, papers, and use."""

import inspect
from typing import NamedTuple

from research.update_rules import RULE_TABLE, find_rule


class Description(NamedTuple):
    """Description of a rule, read from its docstring.

    Attributes:
      name: Name of the rule in RULE_TABLE.
      family: Name of the rule's file in research/update_rules/, without the leading "_"
        and the ending ".py".
      signature: Name and arguments of the rule, with defaults, as a user writes them.
      summary: First line of the docstring.
      formula: Paragraphs between the summary and the arguments, except `use`.
      use: Paragraph on when to use the rule, which begins "Use it"; "" if there is
        none.
      papers: The references of the docstring, as one text.
      line: Line number in the rule's file at which the rule's definition begins.
    """

    name: str
    family: str
    signature: str
    summary: str
    formula: tuple[str, ...]
    use: str
    papers: str
    line: int


def describe(name: str) -> Description:
    """Read the description of an update rule from the docstring of the rule.

    Args:
      name: Name of the rule, a key of RULE_TABLE.
    Returns:
      The `Description`.
    Raises:
      ValueError: The name is unknown.
    Example:
      >>> found = describe("gradient_descent")
      >>> print(found.family, found.signature)
      first_order gradient_descent(learning_rate)
      >>> print(found.summary)
      Step along the negative gradient: u_t = -η_t g_t.
    """
    rule = RULE_TABLE[name].constructor if name in RULE_TABLE else find_rule(name)
    text, _, sections = inspect.cleandoc(rule.__doc__ or "").partition("\nArgs:")
    summary, *paragraphs = [
        " ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")
    ]
    use = next((p for p in paragraphs if p.startswith("Use it")), "")
    _, _, references = sections.partition("References:")
    references, _, _ = references.partition("Example:")
    signature = inspect.signature(rule)
    return Description(
        name=name,
        family=rule.__module__.rpartition(".")[2].removeprefix("_"),
        signature=(
            f"{name}({', '.join(map(_argument, signature.parameters.values()))})"
        ),
        summary=summary,
        formula=tuple(p for p in paragraphs if p != use),
        use=use,
        papers=" ".join(references.split()),
        line=inspect.getsourcelines(rule)[1],
    )


def _argument(parameter: inspect.Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        return parameter.name
    default = getattr(parameter.default, "__name__", repr(parameter.default))
    return f"{parameter.name}={default}"
