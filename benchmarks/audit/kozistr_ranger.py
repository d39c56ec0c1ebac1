"""pytorch_optimizer.Ranger: the first steps go up the gradient.

Liu et al. (2020), algorithm 2: while the variance is not tractable, θ_t = θ_(t-1) - α
m̂_t.
"""

from importlib.metadata import version

import torch
from pytorch_optimizer import Ranger

p = torch.nn.Parameter(torch.tensor([1.0]))
rule = Ranger([p], lr=0.1)
for _ in range(5):
    p.grad = p.detach().clone()  # The gradient of x²/2, whose minimum is 0.
    rule.step()
    print(f"pytorch_optimizer {version('pytorch_optimizer')}: {p.item():.4f}")
print("algorithm 2: 0.9 after the first step, and smaller after each of the next")
