"""Proved bounds of values, derivatives and curvature, and proved critical points.

In this project, only the results of this package are proved. The results are intervals.
Each computation rounds the lower end down and the upper end up, so the exact result
lies between the ends. The proof holds for the function of real numbers that the JAX
program describes, and for the derivative that JAX forms from the program.
"""

from research.derivatives.certified.enclosing import Enclosure as Enclosure
from research.derivatives.certified.enclosing import (
    derivative_enclosure as derivative_enclosure,
)
from research.derivatives.certified.enclosing import enclose as enclose
from research.derivatives.certified.searching import Certified as Certified
from research.derivatives.certified.searching import CertifiedPoint as CertifiedPoint
from research.derivatives.certified.searching import CurvatureBound as CurvatureBound
from research.derivatives.certified.searching import Minimum as Minimum
from research.derivatives.certified.searching import Roots as Roots
from research.derivatives.certified.searching import Undecided as Undecided
from research.derivatives.certified.searching import (
    certified_critical_points as certified_critical_points,
)
from research.derivatives.certified.searching import (
    certified_minimum as certified_minimum,
)
from research.derivatives.certified.searching import certified_roots as certified_roots
from research.derivatives.certified.searching import curvature_bound as curvature_bound
