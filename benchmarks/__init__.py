"""Compare the speed of descent here with other libraries: `python -m benchmarks`.

Speeds are compared as ratios within one run.
"""
