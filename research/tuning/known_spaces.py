"""The search spaces of our own first-order rules, and what a step of each costs."""

from research.tuning.spaces import Range

# Two decades of 1 - x, the usual 0.9 in their middle.
_MOMENTUM = Range(0.0, 0.99, "one_minus", 0.9)
_AVERAGE = Range(0.0, 0.999, "one_minus", 0.9)


def _gradient(default: float) -> Range:
    """Rates that multiply a gradient: their size is that of an inverse curvature."""
    return Range(1e-4, 10.0, "log", default)


def _own(default: float) -> Range:
    """Rates of rules whose step hardly depends on the gradient's size: about the length of a step in each entry."""
    return Range(1e-5, 1.0, "log", default)


# Defaults are the constructor's where it has one; else the paper's, or that of its authors' code; 0.01 for descent
# along gradients (Keras) and 0.001 for most of Adam's kin.
SPACES: dict[str, dict[str, Range]] = {
    "gradient_descent": {"learning_rate": _gradient(0.01)},
    "heavy_ball": {"learning_rate": _gradient(0.01), "momentum": _MOMENTUM},
    "nesterov": {"learning_rate": _gradient(0.01), "momentum": _MOMENTUM},
    "ema_momentum": {
        "learning_rate": _gradient(0.1),
        "momentum": _MOMENTUM,
    },  # The heavy ball's (1 - 0.9) 0.1 = 0.01.
    "sign_descent": {"learning_rate": _own(1e-4)},
    "signum": {"learning_rate": _own(1e-4), "momentum": _MOMENTUM},
    "polyak_step": {
        "learning_rate": Range(0.01, 10.0, "log", 1.0)
    },  # A factor of the step, as in dog and prodigy.
    "barzilai_borwein": {
        "learning_rate": Range(1e-5, 1.0, "log", 1e-3)
    },  # Only the first step; so in adgd.
    "adgd": {"learning_rate": Range(1e-5, 1.0, "log", 1e-3)},
    "lookahead": {"learning_rate": _gradient(0.01)},
    "polyak_averaging": {"learning_rate": _gradient(0.01)},
    "exponential_averaging": {
        "learning_rate": _gradient(0.01),
        "decay": Range(0.9, 0.9999, "one_minus", 0.999),
    },
    "adagrad": {
        "learning_rate": Range(1e-4, 10.0, "log", 0.01)
    },  # Its steps shrink, so that it takes longer ones.
    "adadelta": {"learning_rate": Range(0.01, 100.0, "log", 1.0), "rho": _AVERAGE},
    "rmsprop": {"learning_rate": _own(1e-3), "decay": _AVERAGE},
    "adam": {"learning_rate": _own(1e-3), "b1": _MOMENTUM},
    "adamw": {
        "learning_rate": _own(1e-3),
        "weight_decay": Range(1e-6, 0.1, "log", 1e-4),
    },
    "amsgrad": {"learning_rate": _own(1e-3), "b1": _MOMENTUM},
    "adamax": {"learning_rate": _own(2e-3), "b1": _MOMENTUM},
    "nadam": {"learning_rate": _own(2e-3), "b1": _MOMENTUM},
    "radam": {"learning_rate": _own(1e-3), "b1": _MOMENTUM},
    "adabelief": {"learning_rate": _own(1e-3), "b1": _MOMENTUM},
    "yogi": {"learning_rate": _own(0.01), "b1": _MOMENTUM},
    "adan": {"learning_rate": _own(1e-3)},
    "lion": {"learning_rate": _own(1e-4), "b1": _MOMENTUM},
    "adopt": {"learning_rate": _own(1e-3), "b1": _MOMENTUM},
    "rprop": {"learning_rate": _own(0.01)},
    "lamb": {"learning_rate": _own(1e-3), "b1": _MOMENTUM},
    "muon": {"learning_rate": _own(0.02), "beta": Range(0.0, 0.999, "one_minus", 0.95)},
    "schedule_free_sgd": {
        "learning_rate": Range(1e-3, 100.0, "log", 1.0),
        "b1": _MOMENTUM,
    },
    "schedule_free_adamw": {"learning_rate": _own(2.5e-3), "b1": _MOMENTUM},
    "dog": {"learning_rate": Range(0.1, 10.0, "log", 1.0)},
    "prodigy": {"distance_factor": Range(0.1, 10.0, "log", 1.0)},
    "sam": {"learning_rate": _gradient(0.01), "rho": Range(1e-3, 1.0, "log", 0.05)},
}

# Gradients or values of the batch objective that a step costs, where it is not the one gradient that it is given.
EVALUATIONS: dict[str, float] = {"sam": 2.0}

_LINE_SEARCH = "its line search evaluates the objective as often as the data ask for, so that a step has no fixed cost"
_SECOND_ORDER = "it takes second derivatives, whose cost is not counted in gradients"
NOT_COMPARED: dict[str, str] = {
    "backtracking_descent": _LINE_SEARCH,
    "nonlinear_conjugate_gradient": _LINE_SEARCH,
    "bfgs": _LINE_SEARCH,
    "lbfgs": _LINE_SEARCH,
    "newton": _SECOND_ORDER,
    "trust_region_newton": _SECOND_ORDER,
    "natural_gradient": _SECOND_ORDER,
    "svrg": "it needs the number of steps between two whole gradients, and its cost is not the same in each step",
    "saga": "it needs the number of examples, and a gradient of each in memory",
    "gauss_newton": "it needs residuals",
    "levenberg_marquardt": "it needs residuals",
}
