"""Writes what is made in these pages: a page for each family of update rules, and the tables of kept runs.

python docs/build.py     the families from the rules' docstrings, the tables from experiments/reference/
"""

import json
import re
import sys
from pathlib import Path

from research.update_rules import RULE_TABLE
from research.verification.docstrings import Description, describe

HERE = Path(__file__).parent
REFERENCES = HERE.parent / "experiments" / "reference"
NOTES = {
    "rules": "Largest difference over problems and arguments, in float64 unless a column says otherwise.",
    "which_rule": "The report of the run says what each column is, and has the tables of every workload.",
    "which_rule_networks": "The report of the run says what each column is, and has the tables of every network.",
}


def pages() -> dict[Path, str]:
    """File -> text, of all that is made."""
    families: dict[str, list[Description]] = {}
    for name in RULE_TABLE:
        found = describe(name)
        families.setdefault(found.family, []).append(found)
    made = {
        HERE / "rules" / f"{family}.md": family_page(family, members)
        for family, members in families.items()
    }
    parts = {
        "update_rules": {
            "families": family_list(families),
            "table": kept_table("rules"),
        },
        "choosing": {
            "table": kept_table("which_rule"),
            "networks": kept_table("which_rule_networks"),
        },
    }
    return made | {
        HERE / f"{page}.md": put(HERE / f"{page}.md", of_page)
        for page, of_page in parts.items()
    }


def put(page: Path, parts: dict[str, str]) -> str:
    """The text of a page with each part between its marks."""
    text = page.read_text("utf-8")
    for title, part in parts.items():
        mark = re.compile(
            rf"(<!-- {title}: made by docs/build.py -->\n).*?(<!-- end -->)", re.S
        )
        text = mark.sub(lambda found, part=part: found[1] + part + found[2], text)
    return text


def family_page(family: str, members: list[Description]) -> str:
    """One family: what its file says of itself, and each of its rules."""
    module = sys.modules[f"research.update_rules._{family}"]
    title = family.replace("_", " ").capitalize()
    body = "\n".join(rule_section(found) for found in members)
    return (
        f"# {title}\n\n{escaped(' '.join((module.__doc__ or '').split()))}\n\n"
        f"Made from the docstrings of [_{family}.py](../../research/update_rules/_{family}.py) by `python docs/build.py`; "
        f"all families and the verification table are in [update_rules.md](../update_rules.md).\n\n{body}"
    )


def rule_section(found: Description) -> str:
    """A rule: its name, arguments, formula, differences, when to use it, and papers."""
    parts = [
        found.summary,
        *found.formula,
        found.use,
        *([f"Papers: {found.papers}"] if found.papers else []),
    ]
    paragraphs = "\n\n".join(escaped(part) for part in parts if part)
    where = f"[line {found.line}](../../research/update_rules/_{found.family}.py#L{found.line})"
    return f"## {found.name}\n\n```\n{found.signature}\n```\n\n{paragraphs}\n\nCode: {where}.\n"


def family_list(families: dict[str, list[Description]]) -> str:
    """A line a family."""
    lines = [
        f"- [{family}](rules/{family}.md): {', '.join(c.name for c in members)}"
        for family, members in families.items()
    ]
    return "\n".join(lines) + "\n"


def kept_table(experiment: str) -> str:
    """The answer and the table of an experiment's kept run."""
    file = REFERENCES / f"{experiment}.json"
    if not file.exists():
        return ""
    kept = json.loads(file.read_text("utf-8"))
    table = kept["table"]
    rows = [table["columns"], ["---"] * len(table["columns"]), *table["rows"]]
    lines = ["| " + " | ".join(shown(entry) for entry in row) + " |" for row in rows]
    return (
        escaped(kept["answer"])
        + "\n\n"
        + "\n".join(lines)
        + f"\n\n{NOTES[experiment]}\n"
    )


def shown(entry: object) -> str:
    """One entry of a kept table: three digits of a number, words for none."""
    if entry is None:
        return "not reached"
    if isinstance(entry, dict):  # As JSON keeps what is not finite.
        return "not reached"
    return f"{entry:.3g}" if isinstance(entry, float) else str(entry)


def escaped(text: str) -> str:
    """What Markdown would take for markup, outside of code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*|<_])", r"\\\1", part)
        for part in parts
    )


def main() -> int:
    """Writes them."""
    (HERE / "rules").mkdir(exist_ok=True)
    made = pages()
    for old in (HERE / "rules").glob("*.md"):
        if old not in made:
            old.unlink()
    for path, text in made.items():
        path.write_text(text, "utf-8")
        print(path.relative_to(HERE.parent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
