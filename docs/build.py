"""Write the generated parts of these pages: update rules, and tables of kept runs.

python docs/build.py  the rules from docstrings, tables from experiments/reference/
"""

import functools
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import typeset

from research import descent
from research.update_rules import RULE_TABLE, UPDATE_RULES
from research.verification.docstrings import Description, describe

HERE = Path(__file__).parent
REFERENCES = HERE.parent / "experiments" / "reference"
EXAMPLES = 10  # For a rule that needs their number.
VERDICTS = ["agrees", "convention", "differs", "bug", "not judged"]
AUDIT_COLUMNS = [
    "optimizer",
    "formula",
    "verdict",
    "largest difference",
    "first",
    "after the change",
    "cause",
]
NOTES = {
    "rules": (
        "Largest difference over problems and arguments, in float64 unless a column "
        "says otherwise."
    ),
    "which_rule": (
        "A workload is a problem with its data. The ratio is that of the example "
        "gradients to the target, the geometric mean over workloads, searches and "
        "seeds; low and high are its interval. Times the best: the cost divided by "
        "that of the best rule on each workload, over the workloads where the rule "
        "reaches the target. Defaults: the same for the rule's default "
        "hyper-parameters, over the workloads where they reach the target, so compare "
        "these numbers only between rules that reach it on the same workloads. Decades "
        "of rate within 10 %: the range of learning rates (of the factor that is "
        "searched, for DoG and Prodigy) whose cost is within 10 % of the lowest. "
        "Searches disagree on: workloads where the costs of a rule's searches differ "
        "by a factor of 1.25 or more, and by more than the seeds explain. Diverged: "
        "share of the trainings of the trials with which the searches start. The "
        "report of the run has the tables of every workload."
    ),
    "which_rule_networks": (
        "Loss: the validation loss at the end, the geometric mean over networks, "
        "searches and seeds. Steps for equal loss: the steps of the rule, divided by "
        "the steps that adamw needs for the loss with which the rule ends. For this, "
        "adamw is trained with 0.5 to 2 times the steps. Best rates: the lowest and "
        "the highest best rate of a network. (distance_factor multiplies the estimate "
        "that Prodigy uses as its rate.) Decades of rate within 10 %: the median over "
        "networks of the range of rates whose loss is within 10 % of the lowest. "
        "Diverged: share of the trainings of the trials with which the searches start. "
        "The report of the run has the tables of every network."
    ),
}


def pages() -> dict[Path, str]:
    """Return file -> text, of each generated page."""
    families: dict[str, list[Description]] = {}
    for name in RULE_TABLE:
        found = describe(name)
        families.setdefault(found.family, []).append(found)
    made = {
        HERE / "rules" / f"{found.name}.md": rule_page(found)
        for members in families.values()
        for found in members
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
        "audit": audit_tables(),
        "howto/train_on_many_devices": {"bytes": bytes_table()},
    }
    return made | {
        HERE / f"{page}.md": put(HERE / f"{page}.md", of_page)
        for page, of_page in parts.items()
    }


# A network of 784 inputs, 256 hidden units and 10 outputs on eight devices.
NETWORK = {
    "first": {"weights": (784, 256), "bias": (256,)},
    "second": {"weights": (256, 10), "bias": (10,)},
}
NUM_DEVICES = 8
ON_A_MESH = ("gradient_descent", "adam", "lion", "adafactor", "muon", "soap", "lbfgs")


def bytes_table() -> str:
    """Write a table: bytes that a device receives in a step, by rule and mesh."""
    params = {
        layer: {
            name: jax.ShapeDtypeStruct(shape, "float32")
            for name, shape in leaves.items()
        }
        for layer, leaves in NETWORK.items()
    }
    size = sum(4 * math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    rows = [
        f"The params have {size / 1e6:.2f} MB; the mesh has {NUM_DEVICES} devices.\n",
        "| rule | all params on every device | split params |",
        "|---|---|---|",
    ]
    for name in ON_A_MESH:
        rule = UPDATE_RULES[name](0.1)
        received = [
            descent.bytes_per_step(rule, params, NUM_DEVICES, shard_params=split)
            for split in (False, True)
        ]
        cells = [f"{n / 1e6:.2f} MB, {n / size:.2f} P" for n in received]
        rows.append(f"| `{name}` | {cells[0]} | {cells[1]} |")
    return "\n".join(rows) + "\n"


def put(page: Path, parts: dict[str, str]) -> str:
    """Return the text of a page with each part between its marks.

    Raises:
      ValueError: The page does not have the marks of a part exactly once.
    """
    text = page.read_text("utf-8")
    for title, part in parts.items():
        mark = re.compile(
            rf"(<!-- {title}: made by docs/build.py -->\n).*?(<!-- end -->)", re.S
        )
        text, times = mark.subn(
            lambda found, part=part: found[1] + part + found[2], text
        )
        if times != 1:
            raise ValueError(
                f"{page.name} must have the line <!-- {title}: made by docs/build.py "
                f"--> and a later line <!-- end --> once; it has them {times} times."
            )
    return text


def rule_page(found: Description) -> str:
    """Write the page of a rule: formula, variants, when to use it, memory, papers."""
    in_summary = found.summary.partition(": ")[2]  # As in "...: u_t = -η_t g_t."
    parts = [
        f"# {found.name}",
        typeset.escaped(found.summary),
        f"```\n{found.signature}\n```",
        *(typeset.typeset(part) for part in (in_summary, *found.formula)),
        typeset.escaped(found.use),
        f"Memory: {memory(found.name)}.",
        shipped_by(found.name),
        f"Papers: {typeset.escaped(found.papers)}" if found.papers else "",
        f"Code: [line {found.line} of _{found.family}.py]"
        f"(../../research/update_rules/_{found.family}.py#L{found.line}). "
        f"This page is made from the docstring by `python docs/build.py`. "
        "[All rules](../update_rules.md#the-families).",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def shipped_by(name: str) -> str:
    """Say which optimizers of other libraries the audit compared with a rule."""
    by_verdict: dict[str, list[str]] = {}
    for row in audited()["rows"]:
        if row["reference"] == name and "(other arguments)" not in row["optimizer"]:
            one = f"{row['library']} {row['optimizer']}"
            by_verdict.setdefault(row["verdict"], []).append(typeset.escaped(one))
    if not by_verdict:
        return ""
    parts = [
        f"{verdict.capitalize()}: {', '.join(by_verdict[verdict])}."
        for verdict in VERDICTS
        if verdict in by_verdict
    ]
    return f"In other libraries ([audit](../audit.md)). {' '.join(parts)}"


@functools.cache
def audited() -> dict:
    """Return the rows of the audit and the versions of the libraries."""
    return json.loads(
        (HERE.parent / "experiments/audit_of_rules.json").read_text("utf-8")
    )


def memory(name: str) -> str:
    """Describe the size of a rule's state: numbers for each parameter."""
    if RULE_TABLE[name].needs == "the number of examples":
        more = state_share(name, (256,)) - EXAMPLES
        return f"n + {more:.3g} numbers of state for each parameter, for n examples"
    matrix = state_share(name, (256, 256))
    vector = state_share(name, (256,))
    if round(matrix, 2) == round(vector, 2):
        unit = "number" if matrix == 1 else "numbers"
        return f"{matrix:.3g} {unit} of state for each parameter"
    return (
        f"{matrix:.3g} numbers of state for each parameter in a matrix of 256 by 256, "
        f"{vector:.3g} in a vector of 256"
    )


def state_share(name: str, shape: tuple[int, ...]) -> float:
    """Return the numbers in the state, without scalars, divided by the parameters."""
    params = jax.ShapeDtypeStruct(shape, jnp.float32)
    entry = RULE_TABLE[name]
    needed: dict[str, Any] = {
        "a key": {"key": jax.random.key(0)},
        "the number of examples": {"num_examples": EXAMPLES},
        "the number of steps between two full gradients": {"period": 10},
    }.get(entry.needs, {})
    state = jax.eval_shape(entry.constructor(0.1, **needed).init, params)
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(state) if leaf.shape]
    return sum(sizes) / math.prod(shape)


def family_list(families: dict[str, list[Description]]) -> str:
    """Write a section for each family: what its rules share, and a line for each."""
    return "\n".join(
        f"### {family_title(family)}\n\n"
        + "\n".join(
            f"- [{found.name}](rules/{found.name}.md): {typeset.escaped(found.summary)}"
            for found in members
        )
        + "\n"
        for family, members in families.items()
    )


def family_title(family: str) -> str:
    """Return the first line of a family's file."""
    text = sys.modules[f"research.update_rules._{family}"].__doc__ or ""
    return typeset.escaped(text.strip().partition("\n")[0].rstrip("."))


def kept_table(experiment: str) -> str:
    """Write the answer and the table of an experiment's kept run."""
    file = REFERENCES / f"{experiment}.json"
    if not file.exists():
        return ""
    kept = json.loads(file.read_text("utf-8"))
    table = kept["table"]
    rows = [table["columns"], ["---"] * len(table["columns"]), *table["rows"]]
    lines = ["| " + " | ".join(shown(entry) for entry in row) + " |" for row in rows]
    return (
        typeset.escaped(kept["answer"])
        + "\n\n"
        + "\n".join(lines)
        + f"\n\n{NOTES[experiment]}\n"
    )


def audit_tables() -> dict[str, str]:
    """Write the counts and tables for the page on optimizers of other libraries."""
    rows, versions = audited()["rows"], audited()["versions"]
    libraries = list(dict.fromkeys(row["library"] for row in rows))
    counts = [["library", "version", *VERDICTS, "all"]]
    for library in [*libraries, ""]:
        those = [row["verdict"] for row in rows if library in ("", row["library"])]
        number = [str(those.count(verdict)) for verdict in VERDICTS]
        counts.append(
            [library or "all", versions.get(library, ""), *number, str(len(those))]
        )
    parts = {"counts": table_of(counts)}
    for library in libraries:
        lines = [AUDIT_COLUMNS]
        lines += [audit_row(row) for row in rows if row["library"] == library]
        parts[library] = table_of(lines)
    return parts


def audit_row(row: dict) -> list[str]:
    """Return the cells of an optimizer."""
    where = f"step {row['first']} of {row['problem']}" if row["first"] else ""
    return [
        row["optimizer"],
        row["reference"].replace("_", " "),
        row["verdict"],
        difference(row["largest"]),
        where.replace("_", " "),
        difference(row["explained"]),
        typeset.escaped(row["cause"]) + reproducer(row["reproducer"]),
    ]


def difference(value: float | str | None) -> str:
    """Write a difference with one digit; "" if there is none."""
    if value is None:
        return ""
    return f"{value:.0e}" if isinstance(value, float) else value


def reproducer(name: str) -> str:
    """Return a link to the program that shows a deviation, or ""."""
    return f" ([reproducer](../benchmarks/audit/{name}.py))" if name else ""


def table_of(rows: list[list[str]]) -> str:
    """Write a Markdown table; the first row is its head."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def shown(entry: object) -> str:
    """Write one entry of a kept table: three digits of a number, words for None."""
    if entry is None or isinstance(entry, dict):  # JSON keeps what is not finite so.
        return "not reached"
    return f"{entry:.3g}" if isinstance(entry, float) else str(entry)


def main() -> int:
    """Write the pages."""
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
