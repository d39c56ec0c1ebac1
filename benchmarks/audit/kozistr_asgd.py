"""pytorch_optimizer.ASGD: a difference of norms in place of the norm of a difference.

Malitsky & Mishchenko (2020), algorithm 1: the rate is at most a constant times |x_k -
x_(k-1)| / |g_k - g_(k-1)|; here the constant is 1. A first rate of about 1 leads from 4
to about -4, and the gradient from 8 to -8.5.
"""

from importlib.metadata import version

import torch
from pytorch_optimizer import ASGD

p = torch.nn.Parameter(torch.tensor([4.0]))
rule = ASGD([p], lr=1.0, eps=1e-9)
points, gradients = [4.0], (8.0, -8.5)
for g in gradients:
    p.grad = torch.tensor([g])
    rule.step()
    points.append(p.item())
moved, turned = points[1] - points[0], gradients[1] - gradients[0]
norms = abs(points[1]) - abs(points[0]), abs(gradients[1]) - abs(gradients[0])
print(
    f"pytorch_optimizer {version('pytorch_optimizer')}: rate "
    f"{rule.param_groups[0]['lr']:.4f}; the paper: at most "
    f"|Δx| / |Δg| = {moved / turned:.4f}; the differences of the norms: "
    f"{norms[0] / norms[1]:.4f}"
)
