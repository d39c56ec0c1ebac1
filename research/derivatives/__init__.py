"""Numerical and exact derivatives, their rules, checks, costs and explanations."""

from research.derivatives import problems as problems
from research.derivatives._checkpoint_scan import checkpoint_scan as checkpoint_scan
from research.derivatives._forward_gradient import ForwardGradient as ForwardGradient
from research.derivatives._forward_gradient import forward_gradient as forward_gradient
from research.derivatives._hessian_spectrum import HessianSpectrum as HessianSpectrum
from research.derivatives._hessian_spectrum import hessian_spectrum as hessian_spectrum
from research.derivatives._laplacian import LaplacianEstimate as LaplacianEstimate
from research.derivatives._laplacian import laplacian as laplacian
from research.derivatives._laplacian import laplacian_estimate as laplacian_estimate
from research.derivatives.certified import Certified as Certified
from research.derivatives.certified import CertifiedPoint as CertifiedPoint
from research.derivatives.certified import CurvatureBound as CurvatureBound
from research.derivatives.certified import Enclosure as Enclosure
from research.derivatives.certified import Minimum as Minimum
from research.derivatives.certified import Roots as Roots
from research.derivatives.certified import Undecided as Undecided
from research.derivatives.certified import (
    certified_critical_points as certified_critical_points,
)
from research.derivatives.certified import certified_minimum as certified_minimum
from research.derivatives.certified import certified_roots as certified_roots
from research.derivatives.certified import curvature_bound as curvature_bound
from research.derivatives.certified import derivative_enclosure as derivative_enclosure
from research.derivatives.certified import enclose as enclose
from research.derivatives.check import CheckReport as CheckReport
from research.derivatives.check import check_derivative as check_derivative
from research.derivatives.costs import Cost as Cost
from research.derivatives.costs import CostRatio as CostRatio
from research.derivatives.costs import cost as cost
from research.derivatives.costs import cost_ratio as cost_ratio
from research.derivatives.costs import counted_cost as counted_cost
from research.derivatives.critical import CriticalPoint as CriticalPoint
from research.derivatives.critical import CriticalPoints as CriticalPoints
from research.derivatives.critical import (
    classify_critical_point as classify_critical_point,
)
from research.derivatives.critical import critical_points as critical_points
from research.derivatives.critical import grid_of_starts as grid_of_starts
from research.derivatives.errors import GridTooSmallError as GridTooSmallError
from research.derivatives.errors import NoDerivativeError as NoDerivativeError
from research.derivatives.errors import NotInexactError as NotInexactError
from research.derivatives.errors import NotScalarError as NotScalarError
from research.derivatives.errors import StepUnderflowError as StepUnderflowError
from research.derivatives.errors import (
    UnsupportedPrimitiveError as UnsupportedPrimitiveError,
)
from research.derivatives.exact import Mode as Mode
from research.derivatives.exact import chosen_mode as chosen_mode
from research.derivatives.exact import derivative as derivative
from research.derivatives.exact import directional_derivative as directional_derivative
from research.derivatives.exact import gradient as gradient
from research.derivatives.exact import hessian as hessian
from research.derivatives.exact import hessian_diagonal as hessian_diagonal
from research.derivatives.exact import hessian_vector_product as hessian_vector_product
from research.derivatives.exact import jacobian as jacobian
from research.derivatives.exact import taylor as taylor
from research.derivatives.finite_differences import FiniteDifference as FiniteDifference
from research.derivatives.finite_differences import (
    finite_difference as finite_difference,
)
from research.derivatives.grid import fornberg_weights as fornberg_weights
from research.derivatives.grid import grid_derivative as grid_derivative
from research.derivatives.ledger import GradientPath as GradientPath
from research.derivatives.ledger import Kink as Kink
from research.derivatives.ledger import Ledger as Ledger
from research.derivatives.ledger import NonFinite as NonFinite
from research.derivatives.ledger import Row as Row
from research.derivatives.ledger import explain as explain
from research.derivatives.limit import LimitTable as LimitTable
from research.derivatives.limit import limit_table as limit_table
from research.derivatives.partial import TotalDerivative as TotalDerivative
from research.derivatives.partial import partial_derivative as partial_derivative
from research.derivatives.partial import total_derivative as total_derivative
from research.derivatives.rules import DERIVATIVE_RULES as DERIVATIVE_RULES
from research.derivatives.rules import Rule as Rule
from research.derivatives.rules import RuleCheck as RuleCheck
from research.derivatives.rules import find_derivative_rule as find_derivative_rule
from research.derivatives.rules import verify_derivative_rule as verify_derivative_rule
from research.derivatives.sparse import PatternError as PatternError
from research.derivatives.sparse import SparseDerivative as SparseDerivative
from research.derivatives.sparse import SparsityPattern as SparsityPattern
from research.derivatives.sparse import sparse_hessian as sparse_hessian
from research.derivatives.sparse import sparse_jacobian as sparse_jacobian
