"""Tables as text: the cells of a column stand below each other."""

from collections.abc import Sequence

from research.checks import check_sequence


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of texts as the lines of a table with aligned columns.

    Each row is a list or tuple of texts, one for each column. All rows must have the
    same number of texts. The lines have no spaces at their ends.

    Raises:
      ValueError: The rows have different numbers of texts.
      TypeError: rows is not a sequence of lists or tuples of texts.
    Example:
      >>> aligned([("x", "value"), ("0.25", "1")])
      ['x     value', '0.25  1']
    """
    check_sequence("rows", rows, "lists or tuples of texts", (list, tuple))
    for k, row in enumerate(rows):
        check_sequence(f"rows[{k}]", row, "texts", str)
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise ValueError(
            f"All rows must have the same number of cells; got rows of {lengths[0]} "
            f"and of {lengths[-1]} cells."
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
