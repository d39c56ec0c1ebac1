"""pytorch_optimizer.AdaGO: the step is divided by v², not by v.

Zhang, Liu & Schaeffer (2025): v_t² = v_(t-1)² + min(|G_t|², γ²), and the step has the
size max(ε, η min(|G_t|, γ) / v_t). With v_0 = 0, the first size is η whatever G is.
"""

from importlib.metadata import version

import torch
from pytorch_optimizer import AdaGO

for scale in (1.0, 4.0):
    p = torch.nn.Parameter(torch.zeros(2, 2))
    rule = AdaGO([{"params": [p], "use_muon": True}], lr=0.1, eps=1e-9)
    p.grad = scale * torch.eye(2)
    rule.step()
    print(
        f"pytorch_optimizer {version('pytorch_optimizer')}, gradient {scale} I: "
        f"step {p.norm().item():.4f}"
    )
print("the paper: the two steps are equal")
