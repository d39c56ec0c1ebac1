"""Compare the speed of descent here with other libraries: `python -m benchmarks`.

Speeds are compared as ratios within one run.
"""

# Environment variables with which a compile time is one of compiling. JAX reads its own
# when it is imported.
NO_CACHES = {
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
}
