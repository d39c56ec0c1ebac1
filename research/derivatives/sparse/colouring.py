"""Colouring of the rows and columns of a sparsity pattern.

J is a matrix with this pattern. Columns of one colour are computed together by one
product J v. Rows of one colour are computed together by one product uᵀ J. A row with
many entries would need many colours of columns. Such rows are therefore computed by
products uᵀ J, and the other rows decide the colours of the columns. The roles of rows
and columns are exchanged if fewer products are needed in this way (Coleman & Verma, The
efficient computation of sparse Jacobian matrices using automatic differentiation,
1998).
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

Matrix = Any  # scipy.sparse.csr_matrix of bool.


class Colouring(NamedTuple):
    """Colours of the rows and columns of a sparse matrix J.

    With these colours, the entries of J are computed from few products. Columns of one
    colour are computed together, by one product J v with a vector v. Rows of one colour
    are computed together, by one product uᵀ J with a vector u. Colours are numbers from
    0. The pattern of J is the set of entries that may differ from 0.

    Attributes:
      columns: Colour of each column, shape (number of columns,). -1 for a column from
        which no entry is computed.
      rows: Colour of each row, shape (number of rows,). -1 for a row from which no
        entry is computed.
      by_row: For each entry of the pattern, True if it is computed with its row, and
        False if it is computed with its column, shape (entries,). The entries are
        ordered by row, then by column.
    """

    columns: np.ndarray
    rows: np.ndarray
    by_row: np.ndarray

    @property
    def num_columns(self) -> int:
        """Number of colours of columns."""
        return int(self.columns.max(initial=-1)) + 1

    @property
    def num_rows(self) -> int:
        """Number of colours of rows."""
        return int(self.rows.max(initial=-1)) + 1

    @property
    def total(self) -> int:
        """Number of colours of columns and rows together."""
        return self.num_columns + self.num_rows


def coloured(
    pattern: Matrix, forward: bool, reverse: bool, symmetric: bool = False
) -> Colouring:
    """Colour the rows and columns of a sparsity pattern with few colours.

    The pattern is the set of entries of a matrix J that may differ from 0. All columns
    of one colour are computed together, by one product J v with a vector v. All rows of
    one colour are computed together, by one product uᵀ J with a vector u.

    Args:
      pattern: Boolean matrix in CSR form, True for the entries of the pattern.
      forward: If True, products J v can be computed, so columns can be coloured.
      reverse: If True, products uᵀ J can be computed, so rows can be coloured.
      symmetric: If True, the matrix is symmetric, so entry (i, j) may be read from
        entry (j, i).
    Returns:
      The `Colouring` with the fewest colours among those that were tried.
    Raises:
      ValueError: forward and reverse are both False, or symmetric is True and forward
        is False.
    """
    best: Colouring | None = None
    for flipped in (False, True):
        # Without flipping, columns are the main direction, and few rows are set apart.
        main, other = (reverse, forward) if flipped else (forward, reverse)
        if not main or (symmetric and flipped):
            continue
        matrix = scipy.sparse.csr_matrix(pattern.T) if flipped else pattern
        for limit in _limits(matrix, allowed=other or symmetric):
            if best is not None and limit >= best.total:
                continue  # There are at least as many colours as entries in a row.
            found = _with_dense_rows(matrix, limit, symmetric, flipped)
            if best is None or found.total < best.total:
                best = found
    if best is None:
        alone = "forward" if symmetric else "forward or reverse"
        raise ValueError(
            f"{alone} must be True; got forward={forward}, reverse={reverse}, "
            f"symmetric={symmetric}."
        )
    return best


def _limits(matrix: Matrix, allowed: bool) -> list[int]:
    """Return the limits to try for `_with_dense_rows`, largest first.

    If `allowed` is False, no row can be coloured, so the only limit is the number of
    entries in the fullest row.
    """
    degrees = np.unique(np.diff(matrix.indptr))[::-1]
    if not allowed or not len(degrees):
        return [int(degrees.max(initial=0))]
    chosen = np.unique(np.geomspace(1, len(degrees), 12).astype(int)) - 1
    return [int(degrees[i]) for i in chosen]


def _with_dense_rows(
    matrix: Matrix, limit: int, symmetric: bool, flipped: bool
) -> Colouring:
    """Colour the rows with more entries than `limit`, and columns for all other rows.

    If `flipped` is True, `matrix` is the transpose of the pattern, and the colours of
    rows and columns are exchanged in the result.
    """
    degrees = np.diff(matrix.indptr)
    dense = degrees > limit
    of_row = np.repeat(dense, degrees)
    rows_of = np.repeat(np.arange(matrix.shape[0]), degrees)
    kept = ~of_row
    if symmetric:
        kept &= ~dense[matrix.indices]  # Read from the mirror image.
    columns = _greedy(matrix, kept, rows_of)
    transposed = scipy.sparse.csr_matrix(
        (np.ones(int(of_row.sum()), bool), (matrix.indices[of_row], rows_of[of_row])),
        shape=matrix.shape[::-1],
    )
    all_kept = np.ones(transposed.nnz, bool)
    of_transposed = np.repeat(np.arange(matrix.shape[1]), np.diff(transposed.indptr))
    rows = _greedy(transposed, all_kept, of_transposed)
    if not flipped:
        return Colouring(columns, rows, ~kept)
    # The entries of the transpose, in the order of the pattern itself.
    order = np.lexsort((rows_of, matrix.indices))
    return Colouring(rows, columns, kept[order])


def _greedy(matrix: Matrix, kept: np.ndarray, rows_of: np.ndarray) -> np.ndarray:
    """Colour columns so that no two of one colour have an entry in the same row.

    Only the entries in `kept` count. Columns with many entries are coloured first.
    """
    rows, columns = rows_of[kept], matrix.indices[kept]
    order = np.argsort(columns, kind="stable")
    rows, columns = rows[order], columns[order]
    starts = np.searchsorted(columns, np.arange(matrix.shape[1] + 1))
    degrees = np.diff(starts)
    used: list[set[int]] = [set() for _ in range(matrix.shape[0])]
    colours = np.full(matrix.shape[1], -1)
    for column in np.argsort(-degrees, kind="stable"):
        own = rows[starts[column] : starts[column + 1]]
        if not len(own):
            break
        taken = set().union(*(used[row] for row in own))
        colour = next(c for c in range(len(taken) + 1) if c not in taken)
        colours[column] = colour
        for row in own:
            used[row].add(colour)
    return colours
