"""pytorch_optimizer.TAM and AdaTAM: a correlation for each entry.

Malviya et al. (2024): φ_t = m_(t-1) · g_t / (|m_(t-1)| |g_t|), a number. If g_2 = g_1,
then φ_2 = 1, and all entries of the gradient are multiplied by the same number.
"""

from importlib.metadata import version

import torch
from pytorch_optimizer import TAM

p = torch.nn.Parameter(torch.zeros(2))
rule = TAM([p], lr=1.0, momentum=0.0, decay_rate=0.0)
for _ in range(2):
    before = p.detach().clone()
    p.grad = torch.tensor([3.0, 4.0])
    rule.step()
step = (before - p.detach()).tolist()
print(
    f"pytorch_optimizer {version('pytorch_optimizer')}: {step}; the paper: (ε + (1 "
    "+ 1) / 2) g = [3.0, 4.0]"
)
