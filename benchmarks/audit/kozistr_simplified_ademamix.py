"""pytorch_optimizer.SimplifiedAdEMAMix: the bias correction divides twice.

Morwani et al. (2025): the divisor is √(v_t / (1 - β2^t)) + ε. With β1 = 0, the first
step is therefore g / |g| = 1.
"""

from importlib.metadata import version

import torch
from pytorch_optimizer import SimplifiedAdEMAMix

p = torch.nn.Parameter(torch.tensor([0.0]))
rule = SimplifiedAdEMAMix([p], lr=1.0, betas=(0.0, 0.95), alpha=0.0, eps=0.0)
p.grad = torch.tensor([2.0])
rule.step()
print(
    f"pytorch_optimizer {version('pytorch_optimizer')}: {-p.item():.4f}; the "
    "paper: 1.0 (1 / (1 - 0.95) = 20)"
)
