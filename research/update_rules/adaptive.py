"""Where rules of `accumulating` and `adam` used to be; to be deleted as soon as nothing imports it."""

from research.update_rules.accumulating import adagrad as adagrad
from research.update_rules.accumulating import rmsprop as rmsprop
from research.update_rules.adam import adam as adam
from research.update_rules.adam import adamw as adamw
from research.update_rules.corrections import bias_correction as _bias_correction  # noqa: F401
