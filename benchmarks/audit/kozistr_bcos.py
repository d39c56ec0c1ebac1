"""pytorch_optimizer.BCOS: the momentum is changed before v is computed.

Jiang & Xiao (2025), BCOS-c, and the authors' code: v_t = (1 - (1 - β)²) m_(t-1)² + (1 -
β)² g_t², with the momentum of the step before.
"""

from importlib.metadata import version

import torch
from pytorch_optimizer import BCOS

p = torch.nn.Parameter(torch.tensor([0.0]))
rule = BCOS([p], lr=1.0, beta=0.5, weight_decay=0.0, eps=0.0, simple_cond=True)
for g in (1.0, 3.0):
    before = p.item()
    p.grad = torch.tensor([g])
    rule.step()
m = 0.5 * 1.0 + 0.5 * 3.0
wanted, with_new = (m / (0.75 * k**2 + 0.25 * 3.0**2) ** 0.5 for k in (1.0, m))
print(
    f"pytorch_optimizer {version('pytorch_optimizer')}: {before - p.item():.4f}; "
    f"v from m_(t-1): {wanted:.4f}; v from m_t: {with_new:.4f}"
)
