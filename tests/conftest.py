"""Strictness for every test, once: float64, no rank promotion, no key used twice; setup.cfg makes warnings errors."""

import os

os.environ.setdefault("MPLBACKEND", "agg")

import jax

from research import backend

backend.configure(devices=1, pool=2, x64=True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
