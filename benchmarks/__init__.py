"""How fast descent is here, beside its peers, as ratios within one run: `python -m
benchmarks`.
"""
