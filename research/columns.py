"""Tables as text: the cells of a column stand below each other."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, whose rows have the same number of cells.

    Example:
      >>> aligned([("x", "value"), ("0.25", "1")])
      ['x     value', '0.25  1']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
