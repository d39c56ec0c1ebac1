"""timm.optim.Lookahead: the first synchronisation does nothing.

Zhang et al. (2019), algorithm 1: the slow weights start at the initial parameters, and
after k steps become φ + α (θ - φ). timm copies the fast weights at the first
synchronisation.
"""

import timm
import torch
from timm.optim import Lookahead

p = torch.nn.Parameter(torch.tensor([0.0]))
rule = Lookahead(torch.optim.SGD([p], lr=1.0), alpha=0.5, k=2)
for _ in range(2):
    p.grad = torch.tensor([-1.0])
    rule.step()
print(f"timm {timm.__version__}: {p.item()}; algorithm 1: 0 + 0.5 (2 - 0) = 1.0")
