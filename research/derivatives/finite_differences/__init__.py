"""Finite differences with an error bound and a verdict: how `finite_difference` works.

The text below describes, in this order: the points at which f is evaluated, the noise
of f, the estimate and its bound, and the cases in which the verdict is not "ok" or the
bound is larger. The docstring of `finite_difference` says how accurate the results are,
and what values of f cannot reveal.

f is evaluated at about 215 points:

- x
- x ± 2^k for many k
- for every fourth k, a group of eight equally spaced points near the distance 2^k

The smallest 2^k is about four spacings of the floats at x. The largest is about eight
times the larger of |x| and 1. If |x| is below 2^-60, some of the distances 2^k are left
out. If x is close to 0, the floats at x are very close to each other, so there are more
distances: up to about 455 points, although some distances are left out. If |f(x)|
exceeds 2^900 or a slope of f exceeds 2^1020, there are twice as many points.

The noise of f is the error of its values, such as a rounding error. The groups of
equally spaced points give an estimate of the noise at each distance. The estimate is at
least ε |f| / 2, where ε is the relative spacing of the floats that f returns. If fewer
than three groups show noise, it is at least ε (|f| + |x f'|) / 2. The noise may grow in
proportion to the distance, as the noise of t - sin(t) near 0. At large distances, f
itself varies so much within a group that the noise cannot be measured. There the noise
is assumed to grow in the same proportion.

At each step h = 2^k a central difference quotient is extrapolated to h = 0 by
Richardson's scheme. For order 1 the quotient is (f(x + h) - f(x - h)) / (2 h). The
quotient is extrapolated twice: as a series in h², and as a series in h. The second
series is right if the derivative of order `order` + 1 jumps at x. If the estimate at a
step contradicts the estimates at two smaller steps, this step and all larger steps are
discarded. The estimates of a jump of a derivative at x (see below) are tested in the
same way, and may exclude further steps. The result is the remaining estimate with the
smallest bound.

The bound is 1.5 times a sum of two terms. The first term is 1.2 times the effect of the
noise of f on the estimate. The second is the largest of three changes of the estimate:

- the change by the last extrapolation;
- the change from the estimate at half the step. If there are fewer than four
  extrapolations in h², half the noise of that second estimate is subtracted from this
  change;
- the change from the estimate at twice the step, divided by the factor by which the
  error shrinks if the step is halved.

After four or more extrapolations in h², the largest change is multiplied by three.

If f looks smooth at small steps and noisy at larger ones, there are two explanations.
Either the values of f are rounded, so that f jumps. Or f bends: it interpolates a table
with straight lines, is a wave that the larger steps skip, or has poles there, as tan(x)
has. If the result needs the larger steps, if the small steps contradict the result, or
if all steps together show no result, f is evaluated at more points: at up to 198, or at
up to 462 if f is not constant at the small steps. If the values at these points show
that f bends or has a pole but does not jump, only the small steps are used. If all
steps together show no result, the bound is then doubled. If the small steps do not
suffice for a result, the verdict is "unresolved". If f is constant at the smallest
steps, up to 132 further points show whether f is rounded.

If the values show that f jumps, the verdict is "unresolved" in three cases:

- f jumps by more than 2^31 rounding errors at the step of the result and at the largest
  steps, and the slope of f between the jumps differs from the mean slope of f. An
  example is sin(x) + floor(1000 x). (If x itself is at such a jump, the verdict may
  also be "jump".) If f has such large jumps and is not constant between them, the
  verdict is also "unresolved" if a kink shows only at steps that cross a jump.
- f is c / (x - a)^k between the jumps, with k from 1 to 6, and the jumps are small at
  the largest steps. This suggests a numerator that has lost nearly all its digits, as
  in (1 - cos(x)) / x² near 0.
- The result needs only the small steps, and these steps show no jump. But the larger
  steps contradict the result, and the jumps are small compared with f at the largest
  steps. This suggests a term that has lost all its digits, as in x² + (1 - cos(x)) near
  0.

To detect the last two cases, f may be evaluated at the additional points even if the
result needs only the small steps and agrees with them.

Suppose that f is constant between jumps of more than 1e-6 |f|. Rounding alone causes a
noise of at most one jump. If the noise exceeds the smallest jump, f is therefore not a
smooth function that is rounded. f may be a count, such as the share of draws below x.
The errors of a count at neighbouring points are alike. The points of a group lie close
together, so their errors nearly cancel, and the estimated noise is smaller than the
error of f(x + h) - f(x - h). The bound is therefore multiplied by four. Up to a tenth
of such answers may still have an error above the bound.

With a two-sided scheme ("auto" or "central"), the left and the right derivative of each
order from 1 to `order` are compared first. Their difference is the jump of the
derivative. If the jump is clearly not 0, the verdict is "kink". If the jump is only a
little larger than its error bound, the verdict is "unresolved". The jump is estimated
twice: from one-sided quotients, and from the part of f that is even about x (for odd
orders) or odd about x (for even orders). For a smooth f, the Taylor series of this part
has no term with h^order. A jump of the derivative adds a term proportional to
|h|^order, so the second estimate also shows small jumps. If the jump for the requested
order is above a quarter of its error bound, the bound of the result is at least 0.6
times the jump.

A derivative may jump beside x instead of at x, as for max(x - d, 0)³ at x = 0 with a
small d > 0. At steps above d, this looks like a jump at x. The derivatives of lower
order seem to jump, too. Let r be the apparent jump of a derivative, divided by the
apparent jump of the next higher derivative. |r| estimates the distance d: it is usually
between d / 3 and d. If the steps below 3 |r| do not show the jump, the larger steps are
discarded.

The derivatives of orders n + 1 and n + 2 may also jump beside x, where n is the order
of the result. This causes an error that the differences between the steps may not show.
If the jumps are visible at the step of the result, the bound is at least the error that
follows from them.

The values of f at steps below the step of the result are compared with predictions. The
value at a step is predicted from f(x) and the values at the next four larger steps. If
a value differs from its prediction by more than about 30 times the noise, the larger
steps have passed over something, such as a narrow peak beside x. The larger steps are
then discarded. If the smaller steps do not suffice for a result, the verdict is
"unresolved".

The estimates may converge more slowly than the extrapolation assumes. An example is x²
+ 1e-6 |x|^2.5. Let e_0 be the estimate at the chosen step, and e_1 and e_2 those at
twice and at four times this step. If (e_2 - e_1) / (e_1 - e_0) = 2^p with p below
log2(14), the error seems to be proportional to step^p, and the extrapolation does not
remove it. The bound is then at least 1.5 |e_1 - e_0| / (2^p - 1).

Let n be the order, and f^(n+1) the derivative of order n + 1. The bound is also at
least ε |x f^(n+1)|. If f computes with a rounded x, the derivative of order n changes
by this amount. This matters near the end of the domain of f, as for sqrt(1 - x²) near
1.

f may vary at all distances by much more than its rounding errors, and this variation
may be proportional to a power of the distance from x. If the power is not clearly above
n, f seems to oscillate at all distances, and the verdict is "unresolved". Examples are
x² sin(1 / x) at 0 with order 2, and Weierstrass's function.
"""

from research.derivatives.finite_differences.estimate import (
    FiniteDifference as FiniteDifference,
)
from research.derivatives.finite_differences.estimate import (
    finite_difference as finite_difference,
)
