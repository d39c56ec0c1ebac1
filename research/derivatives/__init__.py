"""Derivatives: numerical, exact and explained."""

from research.derivatives import problems as problems
from research.derivatives.errors import GridTooSmallError as GridTooSmallError
from research.derivatives.errors import NoDerivativeError as NoDerivativeError
from research.derivatives.errors import NotInexactError as NotInexactError
from research.derivatives.errors import NotScalarError as NotScalarError
from research.derivatives.errors import StepUnderflowError as StepUnderflowError
from research.derivatives.errors import UnsupportedPrimitiveError as UnsupportedPrimitiveError
from research.derivatives.finite_difference import FiniteDifference as FiniteDifference
from research.derivatives.finite_difference import finite_difference as finite_difference
from research.derivatives.grid import fornberg_weights as fornberg_weights
from research.derivatives.grid import grid_derivative as grid_derivative
from research.derivatives.ledger import Kink as Kink
from research.derivatives.ledger import Ledger as Ledger
from research.derivatives.ledger import NonFinite as NonFinite
from research.derivatives.ledger import Path as Path
from research.derivatives.ledger import Row as Row
from research.derivatives.ledger import explain as explain
from research.derivatives.limit import LimitTable as LimitTable
from research.derivatives.limit import limit_table as limit_table
