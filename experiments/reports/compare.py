"""The report of compare: answer, tables and figures."""

import research
from research.comparison import tables as comparison_tables
from research.figures import studies


def answer(findings: research.runs.Findings) -> str:
    """Which rule is better, by how much, or that it cannot be said."""
    return comparison_tables.answer(findings.numbers)


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Those of every study: costs, comparisons and choices."""
    return comparison_tables.study_tables(findings.numbers)


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Ratios, trials, rates, curves and the profile."""
    return studies.draw_study(result.numbers, result.arrays)
