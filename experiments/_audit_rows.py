"""Rows of the audit: which optimizer of which library is compared with which formula.

If an optimizer deviates from its formula, its row says how: `changes` are edits of the
formula's source, after which the formula agrees with the optimizer. The audit runs the
edited formula and shows the difference that is left. So the stated cause is tested. A
row without `changes` has a cause that was only read from the optimizer's source.
"""

import functools
import json
import lzma
from pathlib import Path
from typing import Any, NamedTuple

import mpmath
import numpy as np

from research.verification import CARDS, PROBLEMS, Problem
from research.verification.card import rate_on
from research.verification.formula import Function
from research.verification.leaves import Leaves

FILE = Path(__file__).with_name("audit_traces.xz")
STEPS = 50
PROBLEM_NAMES = ("quadratic", "rosenbrock", "softmax_regression")
GRID = 2.0**-34  # Unit of the stored numbers.
NOT_FINITE = (1 << 60, (1 << 60) + 1, -(1 << 60))  # Stand for NaN, inf and -inf.
DIFFERENCES = 3  # Order of the differences of iterates that are stored.

AGREES, CONVENTION, DIFFERS, BUG, NOT_JUDGED = VERDICTS = (
    "agrees",
    "convention",
    "differs",
    "bug",
    "not judged",
)


SLOPES = np.array([2.0, 0.5, 0.125])


def _separable() -> Problem:
    """Return Σ (a_i x_i² / 2 + x_i⁴ / 4), whose Hessian is diagonal.

    On it, the estimate z (H z) of the diagonal is exact for all signs z, so that
    optimizers that draw their own signs can be judged.
    """

    def exact() -> Function:
        def gradient(x: Leaves) -> Leaves:
            a = x.arrays[0]
            return Leaves([SLOPES * a + a**3])

        def hessian(x: Leaves) -> Any:
            return mpmath.diag(list(SLOPES + 3 * x.arrays[0] ** 2))

        return Function(gradient, None, hessian)

    return Problem(
        "separable",
        np.array([1.0, -2.0, 0.5]),
        lambda x: (SLOPES * x**2 / 2 + x**4 / 4).sum(),
        exact,
    )


ALL_PROBLEMS = {name: PROBLEMS[name] for name in PROBLEM_NAMES} | {
    "separable": _separable()
}


class Change(NamedTuple):
    """An edit of a formula's source.

    Attributes:
      right: Part of the formula's source, which occurs there once.
      wrong: Code that replaces this part.
    """

    right: str
    wrong: str


class Row(NamedTuple):
    """An optimizer with its arguments, and what it is compared with.

    Attributes:
      path: Dotted name of the optimizer.
      rule: Name of the formula, in research.verification or in `_audit_formulas`. "" if
        the row is not judged.
      call: Arguments of the optimizer other than the learning rate.
      given: Arguments of the formula that mean the same as `call`.
      label: Options of the row, in words.
      changes: Edits of the formula after which it agrees with the optimizer.
      verdict: What the deviation is, if there is one.
      cause: The deviation in words. For a row that is not judged, the reason.
      rates: Learning rates by the problem's name, in place of the rule's own.
      rate_name: Name of the learning rate. "" if the optimizer has none.
      problems: Names of the problems on which the row is judged.
      frozen: If True, the optimizer gets only the matrices, and vectors do not move.
      closure, twice, inner, base, outer, make, patch: How
        benchmarks/torch_audit_traces.py runs the optimizer. patch="float64" replaces
        narrower dtypes inside it.
      reason: Why the row is not recorded.
      adapt: Edits of the formula that are not deviations, such as the layout of
        matrices in memory.
      within: Largest difference from the formula, with its changes, that is accepted if
        the optimizer computes a part in float32 or narrower. If 0, a changed formula
        must agree within the bound of the audit.
    """

    path: str
    rule: str = ""
    call: dict[str, Any] = {}
    given: dict[str, Any] = {}
    label: str = ""
    changes: tuple[Change, ...] = ()
    verdict: str = AGREES
    cause: str = ""
    rates: dict[str, float] = {}
    rate_name: str = "lr"
    problems: tuple[str, ...] = PROBLEM_NAMES
    frozen: bool = False
    closure: bool = False
    twice: bool = False
    inner: str = ""
    base: str = ""
    outer: tuple[str, ...] = ()
    make: str = ""
    patch: str = ""
    reason: str = ""
    adapt: tuple[Change, ...] = ()
    within: float = 0.0

    @property
    def library(self) -> str:
        """Name of the library."""
        return self.path.partition(".")[0]

    @property
    def name(self) -> str:
        """Name of the optimizer, with its options."""
        short = self.path.rpartition(".")[2]
        return f"{short} ({self.label})" if self.label else short

    @property
    def key(self) -> str:
        """Unique name of the row."""
        return f"{self.library}: {self.name}"


def rate_of(row: Row, problem: str) -> float:
    """Return the learning rate of a row on a problem."""
    if problem in row.rates:
        return row.rates[problem]
    return rate_on(ALL_PROBLEMS[problem], CARDS.get(row.rule))


def rounded(iterates: np.ndarray) -> np.ndarray:
    """Return iterates as whole numbers, asinh(x) in units of GRID.

    The derivative of asinh is 1 / sqrt(1 + x²), so the rounding error is at most 3e-11
    of 1 + |x|, the measure of the audit. NaN and ±inf have numbers of their own.
    """
    x = np.asarray(iterates, np.float64)
    whole = np.rint(np.arcsinh(np.where(np.isfinite(x), x, 0.0)) / GRID)
    codes = [np.isnan(x), x == np.inf, x == -np.inf]
    return np.select(codes, NOT_FINITE, whole.astype(np.int64))


def unrounded(whole: np.ndarray) -> np.ndarray:
    """Return the iterates that `rounded` received, up to its rounding error."""
    codes = [whole == code for code in NOT_FINITE]
    finite = np.where(np.any(codes, axis=0), 0, whole)
    return np.select(codes, [np.nan, np.inf, -np.inf], np.sinh(finite * GRID))


def save(facts: dict[str, Any], traces: dict[str, dict[str, Any]]) -> None:
    """Write FILE. Trajectories that are equal after rounding are stored once.

    The file has a line of JSON and the arrays, compressed by LZMA. An array has the
    third differences of its iterates, because these are small numbers for a smooth
    trajectory. The first bytes of all numbers come first, then all second bytes.

    Args:
      facts: Description, source and versions, for the line of JSON.
      traces: Row -> problem -> iterates, or the sentence that says why there are none.
    """
    numbers: dict[bytes, int] = {}
    index = {
        key: {
            problem: found
            if isinstance(found, str)
            else numbers.setdefault(rounded(found).T.tobytes(), len(numbers))
            for problem, found in of_row.items()
        }
        for key, of_row in traces.items()
    }
    small = np.frombuffer(b"".join(numbers), np.int64).reshape(-1, STEPS)
    for _ in range(DIFFERENCES):
        small = np.diff(small, axis=1, prepend=np.int64(0))
    coded = (small << 1) ^ (small >> 63)  # Also negative numbers begin with zeros.
    planes = np.ascontiguousarray(coded).view(np.uint8).reshape(-1, 8).T
    sizes = [len(data) // (8 * STEPS) for data in numbers]
    head = json.dumps({**facts, "traces": index, "entries": sizes})
    FILE.write_bytes(lzma.compress(f"{head}\n".encode() + planes.tobytes(), preset=9))


@functools.cache
def traces() -> dict[str, Any]:
    """Read FILE: return the `facts` of `save`, with its `traces` as "traces"."""
    head, _, data = lzma.decompress(FILE.read_bytes()).partition(b"\n")
    kept = json.loads(head)
    planes = np.frombuffer(data, np.uint8).reshape(8, -1)
    coded = np.ascontiguousarray(planes.T).view(np.uint64).reshape(-1, STEPS)
    whole = (coded >> np.uint64(1)).astype(np.int64) ^ -(coded & np.uint64(1)).astype(
        np.int64
    )
    for _ in range(DIFFERENCES):
        whole = np.cumsum(whole, axis=1)
    parts = np.split(unrounded(whole), np.cumsum(kept.pop("entries"))[:-1])
    kept["traces"] = {
        key: {
            problem: found if isinstance(found, str) else parts[found].T
            for problem, found in of_row.items()
        }
        for key, of_row in kept["traces"].items()
    }
    return kept


TORCH, KERAS, OPTAX_, TIMM, KOZISTR = (
    "torch.optim.",
    "keras.optimizers.",
    "optax.",
    "timm.optim.",
    "pytorch_optimizer.",
)
OUTSIDE = {"eps_in_sqrt": False}
# The random signs of AdaHessian do not matter on a separable function.
ONES = [[np.ones(3)] for _ in range(STEPS)]
# Learning rates for rules whose steps are multiples of a gradient, and smaller ones.
GRADIENTS = {"quadratic": 0.1, "rosenbrock": 1e-4, "softmax_regression": 0.5}
SMALL = {"quadratic": 1e-3, "rosenbrock": 1e-6, "softmax_regression": 5e-3}

OF_TORCH = [
    Row(TORCH + "SGD", "gradient_descent"),
    Row(TORCH + "SGD", "heavy_ball", {"momentum": 0.9}, label="momentum"),
    Row(
        TORCH + "SGD", "nesterov", {"momentum": 0.9, "nesterov": True}, label="nesterov"
    ),
    Row(
        TORCH + "SGD",
        "ema_momentum",
        {"momentum": 0.9, "dampening": 0.9},
        {"undamped_start": True},
        label="dampening",
    ),
    Row(TORCH + "Adam", "adam"),
    Row(
        TORCH + "Adam",
        "amsgrad",
        {"amsgrad": True},
        {"correct_before_max": False},
        label="amsgrad",
    ),
    Row(TORCH + "AdamW", "adamw", {}, {"weight_decay": 0.01}),
    Row(TORCH + "Adamax", "adamax"),
    Row(
        TORCH + "Adagrad",
        "adagrad",
        {},
        {"initial_accumulator_value": 0.0, "eps": 1e-10, **OUTSIDE},
    ),
    Row(TORCH + "Adadelta", "adadelta"),
    Row(TORCH + "RMSprop", "rmsprop", {}, {"decay": 0.99, **OUTSIDE}),
    Row(
        TORCH + "RMSprop",
        "rmsprop",
        {"centered": True, "momentum": 0.9},
        {"decay": 0.99, "centered": True, "momentum": 0.9, **OUTSIDE},
        label="centered, momentum",
        rates={"rosenbrock": 1e-3},
    ),
    Row(TORCH + "Rprop", "rprop"),
    Row(TORCH + "NAdam", "nadam", {}, {"momentum_schedule": "torch"}),
    Row(TORCH + "RAdam", "radam", {}, {"eps_before_correction": True}),
    Row(TORCH + "ASGD", "asgd"),
    Row(
        TORCH + "Adafactor",
        "adafactor",
        {},
        {"min_dim_size_to_factor": 1, "relative_step": True, "eps": 0.0},
    ),
    Row(
        TORCH + "LBFGS",
        "lbfgs",
        {"max_iter": 1, "history_size": 5, "tolerance_grad": 0, "tolerance_change": 0},
        {
            "memory_size": 5,
            "linesearch": None,
            "first_step": "absolute",
            "min_curvature": 1e-10,
        },
        closure=True,
        rates={"rosenbrock": 0.1},
    ),
    Row(
        TORCH + "Muon",
        "muon",
        {"weight_decay": 0.0},
        frozen=True,
        problems=("softmax_regression",),
    ),
    Row(
        TORCH + "Muon",
        "muon",
        {"weight_decay": 0.0},
        label="float64 inside",
        frozen=True,
        problems=("softmax_regression",),
        patch="float64",
    ),
    Row(
        TORCH + "SparseAdam",
        reason="it takes sparse gradients only, and those of the problems are dense",
    ),
]

OF_KERAS = [
    row._replace(rate_name="learning_rate")
    for row in (
        Row(KERAS + "SGD", "gradient_descent"),
        Row(KERAS + "SGD", "heavy_ball", {"momentum": 0.9}, label="momentum"),
        Row(
            KERAS + "SGD",
            "nesterov",
            {"momentum": 0.9, "nesterov": True},
            label="nesterov",
        ),
        Row(KERAS + "RMSprop", "rmsprop", {}, {"eps": 1e-7}),
        Row(
            KERAS + "RMSprop",
            "rmsprop",
            {"centered": True, "momentum": 0.9},
            {"eps": 1e-7, "centered": True, "momentum": 0.9},
            label="centered, momentum",
            rates={"rosenbrock": 1e-3},
        ),
        Row(KERAS + "Adam", "adam", {}, {"eps": 1e-7}),
        Row(KERAS + "Adam", "amsgrad", {"amsgrad": True}, {"eps": 1e-7}, "amsgrad"),
        Row(KERAS + "AdamW", "adamw", {}, {"eps": 1e-7, "weight_decay": 0.004}),
        Row(KERAS + "Adadelta", "adadelta", {}, {"rho": 0.95, "eps": 1e-7}),
        Row(KERAS + "Adagrad", "adagrad"),
        Row(KERAS + "Adamax", "adamax", {}, {"eps": 1e-7}),
        Row(
            KERAS + "Nadam",
            "nadam",
            {},
            {"eps": 1e-7, "momentum_schedule": "torch", "momentum_decay": 1.0},
        ),
        Row(
            KERAS + "Adafactor",
            "adafactor",
            {},
            {"min_dim_size_to_factor": 1, "relative_step": True},
        ),
        Row(KERAS + "Ftrl", "ftrl"),
        Row(KERAS + "Lion", "lion", {}, {"weight_decay": 0.0}),
        Row(KERAS + "Lamb", "lamb", {}, {"eps": 1e-7}),
        Row(KERAS + "Muon", "muon", {}, frozen=False),
        Row(KERAS + "ScheduleFreeAdamW", "schedule_free_adamw"),
        Row(
            KERAS + "LossScaleOptimizer",
            reason="it scales the loss for half precision, and is not a rule",
        ),
    )
]


def _of_optax(name: str, rule: str = "", **options: Any) -> Row:
    options.setdefault("rate_name", "learning_rate")
    path = f"{OPTAX_}{name}"
    return Row(path, rule or name.rpartition(".")[2], **options)


OF_OPTAX = [
    _of_optax("sgd", "gradient_descent"),
    _of_optax("sgd", "heavy_ball", call={"momentum": 0.9}, label="momentum"),
    _of_optax(
        "sgd", "nesterov", call={"momentum": 0.9, "nesterov": True}, label="nesterov"
    ),
    _of_optax("sign_sgd", "sign_descent"),
    _of_optax("signum"),
    _of_optax("adagrad"),
    _of_optax("adadelta"),
    _of_optax("rmsprop"),
    _of_optax(
        "rmsprop",
        call={"centered": True, "momentum": 0.9},
        given={"centered": True, "momentum": 0.9},
        label="centered, momentum",
        rates={"rosenbrock": 1e-3},
    ),
    _of_optax(
        "adafactor",
        call={"min_dim_size_to_factor": 1},
        given={"min_dim_size_to_factor": 1},
    ),
    _of_optax("sm3"),
    _of_optax("adam"),
    _of_optax("adamw"),
    _of_optax("amsgrad"),
    _of_optax("adamax"),
    _of_optax("adamaxw"),
    _of_optax("nadam"),
    _of_optax("nadamw"),
    _of_optax("radam"),
    _of_optax("adabelief"),
    _of_optax("yogi"),
    _of_optax("adan"),
    _of_optax("lion"),
    _of_optax("rprop"),
    _of_optax("lamb"),
    _of_optax("lars", given={"weight_decay": 0.0}),
    _of_optax("fromage"),
    _of_optax("novograd"),
    _of_optax("optimistic_gradient_descent"),
    _of_optax("optimistic_adam"),
    _of_optax("optimistic_adam_v2", "optimistic_adam"),
    _of_optax(
        "polyak_sgd",
        "polyak_step",
        given={"max_learning_rate": 1.0},
        rate_name="",
        rates=dict.fromkeys(PROBLEM_NAMES, 1.0),
    ),
    _of_optax(
        "polyak_sgd",
        "polyak_step",
        call={"scaling": 0.5},
        given={"max_learning_rate": 1.0},
        label="scaling",
        rate_name="",
        rates=dict.fromkeys(PROBLEM_NAMES, 0.5),
    ),
    _of_optax(
        "lbfgs",
        call={"linesearch": None, "memory_size": 5},
        given={"memory_size": 5, "linesearch": None},
        rates={"rosenbrock": 0.1},
    ),
    _of_optax("noisy_sgd", reason="it draws random numbers of its own"),
    _of_optax("contrib.acprop"),
    _of_optax("contrib.ademamix"),
    _of_optax("contrib.simplified_ademamix"),
    _of_optax("contrib.adopt"),
    _of_optax("contrib.cocob"),
    _of_optax("contrib.dadapt_adamw"),
    _of_optax("contrib.dog"),
    _of_optax("contrib.dowg"),
    _of_optax("contrib.madgrad"),
    _of_optax("contrib.mechanize", "mechanic", make="mechanized"),
    _of_optax("contrib.momo"),
    _of_optax("contrib.momo_adam"),
    _of_optax("contrib.muon"),
    _of_optax("contrib.prodigy"),
    _of_optax("contrib.sam", "sam", make="sam"),
    _of_optax("contrib.schedule_free_sgd"),
    _of_optax("contrib.schedule_free_adamw"),
    _of_optax(
        "contrib.sophia",
        make="with objective",
        given={"b1": 0.965, "eps": 1e-8, "weight_decay": 1e-4},
        problems=("separable",),
    ),
    _of_optax(
        "contrib.dpsgd",
        reason="it takes the gradient of each example, and draws random numbers",
    ),
    _of_optax("contrib.galore"),
    _of_optax(
        "contrib.reduce_on_plateau",
        reason="it changes the rate of another rule, and is not a rule",
    ),
]

OF_TIMM = [
    Row(
        TIMM + "Muon",
        "muon",
        label="float64 inside",
        frozen=True,
        problems=("softmax_regression",),
        patch="float64",
    ),
    Row(
        TIMM + "RAdamLegacy",
        "radam",
        {},
        {"eps_before_correction": True},
        "float64 inside",
        patch="float64",
    ),
    Row(TIMM + "AdaBelief", "adabelief", {"rectify": False}, label="not rectified"),
    Row(TIMM + "AdaBelief", "adabelief", label="rectified"),
    Row(
        TIMM + "Adafactor",
        "adafactor",
        {"min_dim_size_to_factor": 1},
        {"min_dim_size_to_factor": 1},
    ),
    Row(
        TIMM + "AdafactorBigVision",
        "adafactor",
        {"min_dim_size_to_factor": 1, "momentum_dtype": "=torch.float64"},
        {"min_dim_size_to_factor": 1},
    ),
    Row(
        TIMM + "Adahessian",
        "adahessian",
        {},
        {"draws": ONES, "eps": 1e-8},
        problems=("separable",),
        twice=True,
    ),
    Row(TIMM + "AdamP", "adamp"),
    Row(TIMM + "AdamWLegacy", "adamw", {}, {"weight_decay": 0.01}),
    Row(
        TIMM + "AdamWLegacy",
        "cautious_adamw",
        {"caution": True},
        {"weight_decay": 0.01},
        "caution",
    ),
    Row(TIMM + "Adan", "adan"),
    Row(TIMM + "Adopt", "adopt"),
    Row(TIMM + "Kron", reason="it draws random numbers of its own"),
    Row(TIMM + "Lamb", "lamb"),
    Row(TIMM + "LaProp", "laprop"),
    Row(TIMM + "Lars", "lars"),
    Row(TIMM + "Lion", "lion", {}, {"weight_decay": 0.0}),
    Row(
        TIMM + "Lookahead",
        "lookahead",
        {"momentum": 0.9},
        {"sync_period": 6},
        inner="torch.optim.SGD",
    ),
    Row(TIMM + "MADGRAD", "madgrad"),
    Row(TIMM + "Mars", "mars"),
    Row(TIMM + "Muon", "muon", frozen=True, problems=("softmax_regression",)),
    Row(TIMM + "NAdamLegacy", "nadam", {}, {"momentum_schedule": "paper"}),
    Row(TIMM + "NAdamW", "nadamw", {}, {"weight_decay": 0.01}),
    Row(TIMM + "NvNovoGrad", "novograd", {}, {"b1": 0.95, "b2": 0.98, "eps": 1e-8}),
    Row(TIMM + "RAdamLegacy", "radam", {}, {"eps_before_correction": True}),
    Row(TIMM + "RMSpropTF", "rmsprop", {}, {"eps": 1e-10, "initial_scale": 1.0}),
    Row(TIMM + "SGDP", "sgdp", {"momentum": 0.9}),
    Row(TIMM + "SGDW", "heavy_ball", {"momentum": 0.9}),
    Row(
        TIMM + "SGDW", "nesterov", {"momentum": 0.9, "nesterov": True}, label="nesterov"
    ),
    Row(
        TIMM + "Adan",
        "adan",
        {"weight_decay": 0.1, "no_prox": True},
        {"weight_decay": 0.1, "eps_root": 0.0},
        "weight decay, no_prox",
    ),
    Row(
        TIMM + "Adan",
        "adan",
        {"weight_decay": 0.1},
        {"weight_decay": 0.1, "proximal": True, "eps_root": 0.0},
        "weight decay",
    ),
    Row(
        TIMM + "Adopt",
        "adopt",
        {"weight_decay": 0.0, "clip_exp": None},
        {"use_clipping": False},
        "not clipped",
    ),
    Row(
        TIMM + "Lamb",
        "lamb",
        {"weight_decay": 0.0, "max_grad_norm": None, "always_adapt": True},
        label="no clip, always_adapt",
    ),
    Row(
        TIMM + "Lars",
        "lars",
        {"momentum": 0.9, "weight_decay": 0.1},
        {"weight_decay": 0.1, "eps": 1e-8},
        "momentum, weight decay",
    ),
    Row(
        TIMM + "RMSpropTF",
        "rmsprop",
        {"momentum": 0.9, "centered": True},
        {"eps": 1e-10, "initial_scale": 1.0, "momentum": 0.9, "centered": True},
        "centered, momentum",
        rates={"rosenbrock": 1e-3},
    ),
    Row(
        TIMM + "AdamWLegacy",
        "amsgrad",
        {"amsgrad": True, "weight_decay": 0.0},
        {"correct_before_max": False},
        "amsgrad",
    ),
    Row(
        TIMM + "Mars",
        "mars",
        {"optimize_1d": True},
        {"optimize_1d": True},
        "optimize_1d",
    ),
    Row(
        TIMM + "Lion",
        "lion",
        {"weight_decay": 0.1},
        {"weight_decay": 0.1},
        "weight decay",
    ),
    Row(
        TIMM + "LaProp",
        "laprop",
        {"weight_decay": 0.1},
        {"weight_decay": 0.1},
        "weight decay",
    ),
    Row(
        TIMM + "NAdamW",
        "nadamw",
        {"weight_decay": 0.0},
        {"weight_decay": 0.0},
        "no weight decay",
    ),
    Row(
        TIMM + "MADGRAD",
        "madgrad",
        {"weight_decay": 0.1},
        {"weight_decay": 0.1},
        "weight decay",
        problems=("quadratic", "softmax_regression"),
    ),
    Row(
        TIMM + "AdafactorBigVision",
        "adafactor",
        {"momentum": None},
        {"min_dim_size_to_factor": 16},
        "no momentum",
    ),
]

OF_KOZISTR = [
    Row(
        KOZISTR + "Muon",
        "muon",
        label="float64 inside",
        frozen=True,
        problems=("softmax_regression",),
        make="muon groups",
        patch="float64",
    ),
    Row(
        KOZISTR + "AdaGO",
        "adago",
        label="float64 inside",
        frozen=True,
        problems=("softmax_regression",),
        make="muon groups",
        patch="float64",
    ),
    Row(
        KOZISTR + "NorMuon",
        "normuon",
        label="float64 inside",
        frozen=True,
        problems=("softmax_regression",),
        make="muon groups",
        patch="float64",
    ),
    Row(KOZISTR + "AdaBelief", "adabelief"),
    Row(KOZISTR + "AdaDelta", "adadelta"),
    Row(
        KOZISTR + "AdaFactor",
        "adafactor",
        {"momentum_dtype": "=torch.float64"},
        {"min_dim_size_to_factor": 1, "relative_step": True, "momentum": 0.9},
    ),
    Row(
        KOZISTR + "AdaHessian",
        "adahessian",
        {},
        {"draws": ONES, "eps": 1e-16},
        problems=("separable",),
        twice=True,
    ),
    Row(
        KOZISTR + "SophiaH",
        "sophia",
        {"hessian_distribution": "rademacher"},
        problems=("separable",),
        twice=True,
        label="rademacher",
    ),
    Row(KOZISTR + "AdaMax", "adamax"),
    Row(KOZISTR + "Adan", "adan"),
    Row(KOZISTR + "ADOPT", "adopt"),
    Row(KOZISTR + "AdEMAMix", "ademamix"),
    Row(KOZISTR + "SimplifiedAdEMAMix", "simplified_ademamix"),
    Row(KOZISTR + "DAdaptAdam", "dadapt_adamw"),
    Row(KOZISTR + "Fromage", "fromage"),
    Row(KOZISTR + "GaLore", "galore"),
    Row(KOZISTR + "Lamb", "lamb"),
    Row(KOZISTR + "LaProp", "laprop"),
    Row(KOZISTR + "LARS", "lars"),
    Row(KOZISTR + "Lion", "lion", {}, {"weight_decay": 0.0}),
    Row(KOZISTR + "Lookahead", "lookahead", {"momentum": 0.9}, inner="torch.optim.SGD"),
    Row(KOZISTR + "MADGRAD", "madgrad"),
    Row(
        KOZISTR + "MARS",
        "mars",
        {"optimize_1d": True},
        {"b1": 0.95, "optimize_1d": True},
        "optimize_1d",
    ),
    Row(
        KOZISTR + "Muon",
        "muon",
        frozen=True,
        problems=("softmax_regression",),
        make="muon groups",
    ),
    Row(
        KOZISTR + "NorMuon",
        "normuon",
        frozen=True,
        problems=("softmax_regression",),
        make="muon groups",
    ),
    Row(KOZISTR + "NovoGrad", "novograd", {}, {"b1": 0.95, "b2": 0.98, "eps": 1e-8}),
    Row(KOZISTR + "Prodigy", "prodigy"),
    Row(KOZISTR + "RAdam", "radam"),
    Row(KOZISTR + "SAM", "sam", base="torch.optim.SGD", closure=True),
    Row(KOZISTR + "ScheduleFreeSGD", "schedule_free_sgd"),
    Row(KOZISTR + "ScheduleFreeAdamW", "schedule_free_adamw"),
    Row(KOZISTR + "Shampoo", "shampoo", {}, {"b1": 0.0, "eps": 1e-6}),
    Row(KOZISTR + "SignSGD", "signum"),
    Row(KOZISTR + "SGDW", "heavy_ball", {"momentum": 0.9}),
    Row(KOZISTR + "SM3", "sm3"),
    Row(KOZISTR + "SOAP", "soap", {}, {"weight_decay": 0.01}),
    Row(KOZISTR + "Yogi", "yogi"),
]

OTHERS_OF_KOZISTR = [
    Row(KOZISTR + "ASGD", "adsgd", rates=SMALL),
    Row(KOZISTR + "AccSGD", "accsgd", rates=SMALL),
    Row(KOZISTR + "AvaGrad", "avagrad"),
    Row(
        KOZISTR + "AdaGO",
        "adago",
        frozen=True,
        problems=("softmax_regression",),
        make="muon groups",
    ),
    Row(KOZISTR + "AdaGC", "adagc", {"warmup_steps": 10}, {"warmup_steps": 10}),
    Row(
        KOZISTR + "WSAM",
        "wsam",
        {},
        base="torch.optim.SGD",
        closure=True,
        rates=GRADIENTS,
        make="model first",
    ),
    Row(
        KOZISTR + "LookSAM",
        "looksam",
        {},
        base="torch.optim.SGD",
        closure=True,
        rates=GRADIENTS,
    ),
    Row(KOZISTR + "ScheduleFreeRAdam", "schedule_free_radam"),
    Row(KOZISTR + "AdaBound", "adabound"),
    Row(KOZISTR + "AdaMod", "adamod"),
    Row(KOZISTR + "AdaNorm", "adanorm"),
    Row(KOZISTR + "AdaPNM", "adapnm"),
    Row(KOZISTR + "PNM", "pnm", rates=SMALL),
    Row(KOZISTR + "AggMo", "aggmo", rates=SMALL),
    Row(
        KOZISTR + "QHM",
        "qhm",
        {"momentum": 0.9, "nu": 0.7},
        {"momentum": 0.9, "nu": 0.7},
        rates=GRADIENTS,
    ),
    Row(KOZISTR + "QHAdam", "qhadam", {"nus": (0.7, 0.9)}, {"nu1": 0.7, "nu2": 0.9}),
    Row(KOZISTR + "PAdam", "padam", rates=SMALL),
    Row(KOZISTR + "DiffGrad", "diffgrad"),
    Row(KOZISTR + "Tiger", "tiger"),
    Row(KOZISTR + "MSVAG", "msvag", rates=GRADIENTS),
    Row(KOZISTR + "TAM", "tam", rates=SMALL),
    Row(KOZISTR + "Grams", "grams"),
    Row(KOZISTR + "GrokFastAdamW", "grokfast", {"normalize_lr": False}),
    Row(KOZISTR + "AdaShift", "adashift"),
    Row(KOZISTR + "AdaSmooth", "adasmooth"),
    Row(KOZISTR + "Kate", "kate"),
    Row(KOZISTR + "Aida", "aida"),
    Row(KOZISTR + "Adai", "adai", rates=SMALL),
    Row(KOZISTR + "StableAdamW", "stable_adamw"),
    Row(KOZISTR + "AdamS", "adams"),
    Row(KOZISTR + "AdamC", "adam"),
    Row(KOZISTR + "AdamG", "adamg"),
    Row(KOZISTR + "FOCUS", "focus"),
    Row(KOZISTR + "FTRL", "ftrl"),
    Row(KOZISTR + "SGDP", "sgdp", {"momentum": 0.9}, rates=SMALL),
    Row(KOZISTR + "AdamP", "adamp"),
    Row(KOZISTR + "SWATS", "adam", {}, {"eps": 1e-6}),
    Row(KOZISTR + "AliG", "polyak_step", closure=True, rate_name=""),
    Row(KOZISTR + "Ranger", "ranger"),
    Row(KOZISTR + "OrthoGrad", "orthograd", inner="torch.optim.SGD", rates=GRADIENTS),
    Row(KOZISTR + "CAME", "came"),
    Row(KOZISTR + "ScheduleFreeWrapper", "schedule_free_sgd", inner="torch.optim.SGD"),
    Row(KOZISTR + "PID", "gradient_descent", label="momentum 0"),
    Row(KOZISTR + "EXAdam", "exadam"),
    Row(KOZISTR + "Ano", "ano"),
    Row(KOZISTR + "VSGD", "vsgd"),
    Row(KOZISTR + "BCOS", "bcos"),
    Row(KOZISTR + "SGDSaI", "sgdsai", rates=SMALL),
    Row(KOZISTR + "ApolloDQN", "apollo", {"warmup_steps": 0}, rates=SMALL),
    Row(
        KOZISTR + "DAdaptSGD", "dadapt_sgd", rates={name: 1.0 for name in PROBLEM_NAMES}
    ),
    Row(KOZISTR + "AdaTAM", "adatam"),
    Row(KOZISTR + "FlashAdamW", "adamw", {"quantize": False}, {"weight_decay": 0.01}),
]

_NO_FORMULA = "this audit does not have the formula of its paper"
_OF_A_MODEL = "it takes a model, not params"
_RANDOM = "it draws random numbers of its own"
_SEVERAL = "it needs several processes"
NOT_JUDGED_OF_KOZISTR = {
    "A2Grad": _NO_FORMULA,
    "Adalite": _NO_FORMULA,
    "AdaMuon": _NO_FORMULA,
    "AdamWSN": _NO_FORMULA,
    "Alice": _NO_FORMULA,
    "Amos": _NO_FORMULA,
    "Conda": _NO_FORMULA,
    "DASH": _NO_FORMULA,
    "DAdaptAdaGrad": _NO_FORMULA,
    "DAdaptAdan": _NO_FORMULA,
    "DAdaptLion": _NO_FORMULA,
    "DualAdam": _NO_FORMULA,
    "EmoFact": _NO_FORMULA,
    "EmoLynx": _NO_FORMULA,
    "EmoNavi": _NO_FORMULA,
    "FAdam": _NO_FORMULA,
    "Fira": _NO_FORMULA,
    "FriendlySAM": _NO_FORMULA,
    "Nero": _NO_FORMULA,
    "RACS": _NO_FORMULA,
    "Ranger21": _NO_FORMULA,
    "ROSE": _NO_FORMULA,
    "SCION": _NO_FORMULA,
    "SCIONLight": _NO_FORMULA,
    "SPAM": _NO_FORMULA,
    "SPlus": _NO_FORMULA,
    "SRMM": _NO_FORMULA,
    "ScalableShampoo": _NO_FORMULA,
    "SpectralSphere": _NO_FORMULA,
    "StableSPAM": _NO_FORMULA,
    "TRAC": _NO_FORMULA,
    "AdaLOMO": _OF_A_MODEL,
    "AdamMini": _OF_A_MODEL,
    "GSAM": _OF_A_MODEL,
    "LOMO": _OF_A_MODEL,
    "APOLLO": _RANDOM,
    "BSAM": _RANDOM,
    "Gravity": _RANDOM,
    "Kron": _RANDOM,
    "Magma": _RANDOM,
    "SaRA": _RANDOM,
    "DeMo": _SEVERAL,
    "DistributedMuon": _SEVERAL,
    "LoRARite": "it takes the two factors of a low-rank adapter",
    "MuonClip": "it also takes the attention logits of a model",
}

OTHER = "other arguments"
B8 = {"betas": (0.8, 0.95), "eps": 0.01}
OF_B8 = {"b1": 0.8, "b2": 0.95, "eps": 0.01}
WITH_OTHER_ARGUMENTS = [
    Row(TORCH + "Adam", "adam", B8, OF_B8, OTHER),
    Row(
        TORCH + "AdamW",
        "adamw",
        {**B8, "weight_decay": 0.1},
        {**OF_B8, "weight_decay": 0.1},
        OTHER,
    ),
    Row(TORCH + "NAdam", "nadam", B8, {**OF_B8, "momentum_schedule": "torch"}, OTHER),
    Row(TORCH + "RAdam", "radam", B8, {**OF_B8, "eps_before_correction": True}, OTHER),
    Row(TORCH + "Adamax", "adamax", B8, OF_B8, OTHER),
    Row(
        TORCH + "Adagrad",
        "adagrad",
        {"initial_accumulator_value": 0.1, "eps": 0.01},
        {"eps": 0.01, **OUTSIDE},
        OTHER,
    ),
    Row(
        TORCH + "Adadelta",
        "adadelta",
        {"rho": 0.8, "eps": 1e-3},
        {"rho": 0.8, "eps": 1e-3},
        OTHER,
    ),
    Row(
        TORCH + "RMSprop",
        "rmsprop",
        {"alpha": 0.8, "eps": 0.01},
        {"decay": 0.8, "eps": 0.01, **OUTSIDE},
        OTHER,
    ),
    Row(
        TORCH + "Rprop",
        "rprop",
        {"etas": (0.6, 1.3), "step_sizes": (1e-3, 0.5)},
        {
            "eta_minus": 0.6,
            "eta_plus": 1.3,
            "min_step_size": 1e-3,
            "max_step_size": 0.5,
        },
        OTHER,
    ),
    Row(
        KERAS + "Adadelta",
        "adadelta",
        {"rho": 0.8, "epsilon": 1e-3},
        {"rho": 0.8, "eps": 1e-3},
        OTHER,
        rate_name="learning_rate",
    ),
    Row(
        KERAS + "Adagrad",
        "adagrad",
        {"initial_accumulator_value": 0.5, "epsilon": 0.01},
        {"initial_accumulator_value": 0.5, "eps": 0.01},
        OTHER,
        rate_name="learning_rate",
    ),
    Row(
        KERAS + "Nadam",
        "nadam",
        {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 0.01},
        {**OF_B8, "momentum_schedule": "torch", "momentum_decay": 1.0},
        OTHER,
        rate_name="learning_rate",
    ),
    Row(
        KERAS + "Lion",
        "lion",
        {"beta_1": 0.8, "beta_2": 0.95},
        {"b1": 0.8, "b2": 0.95, "weight_decay": 0.0},
        OTHER,
        rate_name="learning_rate",
    ),
    Row(
        KERAS + "Lamb",
        "lamb",
        {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 0.01},
        OF_B8,
        OTHER,
        rate_name="learning_rate",
    ),
    Row(
        KERAS + "RMSprop",
        "rmsprop",
        {"rho": 0.8, "epsilon": 0.01},
        {"decay": 0.8, "eps": 0.01},
        OTHER,
        rate_name="learning_rate",
    ),
    Row(
        KERAS + "ScheduleFreeAdamW",
        "schedule_free_adamw",
        {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 0.01},
        OF_B8,
        OTHER,
        rate_name="learning_rate",
    ),
    Row(
        TIMM + "Lion",
        "lion",
        {"betas": (0.8, 0.95)},
        {"b1": 0.8, "b2": 0.95, "weight_decay": 0.0},
        OTHER,
    ),
    Row(
        TIMM + "AdamWLegacy",
        "adamw",
        {**B8, "weight_decay": 0.1},
        {**OF_B8, "weight_decay": 0.1},
        OTHER,
    ),
    Row(TIMM + "LaProp", "laprop", B8, OF_B8, OTHER),
    Row(
        TIMM + "Lamb",
        "lamb",
        {**B8, "weight_decay": 0.1, "max_grad_norm": None},
        {**OF_B8, "weight_decay": 0.1},
        OTHER,
    ),
    Row(
        TIMM + "MADGRAD",
        "madgrad",
        {"momentum": 0.5, "eps": 1e-3},
        {"momentum": 0.5, "eps": 1e-3},
        OTHER,
    ),
    Row(TIMM + "NvNovoGrad", "novograd", B8, OF_B8, OTHER),
    Row(
        TIMM + "RMSpropTF",
        "rmsprop",
        {"alpha": 0.8, "eps": 0.01},
        {"decay": 0.8, "eps": 0.01, "initial_scale": 1.0},
        OTHER,
    ),
    Row(
        TIMM + "Adan",
        "adan",
        {"betas": (0.9, 0.8, 0.95), "eps": 0.01},
        {"b1": 0.9, "b2": 0.8, "b3": 0.95, "eps": 0.01, "eps_root": 0.0},
        OTHER,
    ),
    Row(
        KOZISTR + "Lion",
        "lion",
        {"betas": (0.8, 0.95), "weight_decay": 0.1},
        {"b1": 0.8, "b2": 0.95, "weight_decay": 0.1},
        OTHER,
    ),
    Row(KOZISTR + "AdaBelief", "adabelief", B8, {**OF_B8, "eps_root": 0.01}, OTHER),
    Row(KOZISTR + "AdaMax", "adamax", B8, OF_B8, OTHER),
    Row(
        KOZISTR + "Adan",
        "adan",
        {"betas": (0.9, 0.8, 0.95), "eps": 0.01},
        {"b1": 0.9, "b2": 0.8, "b3": 0.95, "eps": 0.01, "eps_root": 0.0},
        OTHER,
    ),
    Row(
        KOZISTR + "AdEMAMix",
        "ademamix",
        {"betas": (0.8, 0.95, 0.99), "alpha": 2.0, "eps": 0.01},
        {**OF_B8, "b3": 0.99, "alpha": 2.0},
        OTHER,
    ),
    Row(
        KOZISTR + "MADGRAD",
        "madgrad",
        {"momentum": 0.5, "eps": 1e-3},
        {"momentum": 0.5, "eps": 1e-3},
        OTHER,
    ),
    Row(KOZISTR + "NovoGrad", "novograd", B8, OF_B8, OTHER),
    Row(KOZISTR + "ScheduleFreeAdamW", "schedule_free_adamw", B8, OF_B8, OTHER),
    Row(
        KOZISTR + "AggMo",
        "aggmo",
        {"betas": (0.0, 0.5)},
        {"betas": (0.0, 0.5)},
        OTHER,
        rates=SMALL,
    ),
    Row(KOZISTR + "SignSGD", "signum", {"momentum": 0.5}, {"momentum": 0.5}, OTHER),
    Row(
        KOZISTR + "FOCUS",
        "focus",
        {"betas": (0.8, 0.95), "gamma": 0.2},
        {"b1": 0.8, "b2": 0.95, "gamma": 0.2},
        OTHER,
    ),
    Row(
        KOZISTR + "AdaDelta",
        "adadelta",
        {"rho": 0.8, "eps": 1e-3},
        {"rho": 0.8, "eps": 1e-3},
        OTHER,
    ),
    Row(
        TORCH + "SGD",
        "heavy_ball",
        {"momentum": 0.5},
        {"momentum": 0.5},
        "momentum 0.5",
    ),
    Row(
        TORCH + "SGD",
        "nesterov",
        {"momentum": 0.5, "nesterov": True},
        {"momentum": 0.5},
        "nesterov 0.5",
    ),
    Row(
        KERAS + "SGD",
        "heavy_ball",
        {"momentum": 0.5},
        {"momentum": 0.5},
        "momentum 0.5",
        rate_name="learning_rate",
    ),
    Row(
        OPTAX_ + "sgd",
        "heavy_ball",
        {"momentum": 0.5},
        {"momentum": 0.5},
        "momentum 0.5",
        rate_name="learning_rate",
    ),
    Row(
        TIMM + "SGDW",
        "heavy_ball",
        {"momentum": 0.5},
        {"momentum": 0.5},
        "momentum 0.5",
    ),
    Row(
        KOZISTR + "SGDW",
        "heavy_ball",
        {"momentum": 0.5},
        {"momentum": 0.5},
        "momentum 0.5",
    ),
    Row(
        KOZISTR + "SGDW",
        "nesterov",
        {"momentum": 0.9, "nesterov": True},
        label="nesterov",
    ),
    Row(
        KOZISTR + "QHM",
        "qhm",
        {"momentum": 0.5, "nu": 0.3},
        {"momentum": 0.5, "nu": 0.3},
        OTHER,
        rates=GRADIENTS,
    ),
    Row(
        KOZISTR + "Tiger",
        "tiger",
        {"beta": 0.8, "weight_decay": 0.1},
        {"beta": 0.8, "weight_decay": 0.1},
        OTHER,
    ),
    Row(
        KOZISTR + "MSVAG",
        "msvag",
        {"beta": 0.8},
        {"beta": 0.8},
        OTHER,
        rates=GRADIENTS,
    ),
    Row(
        KOZISTR + "PNM",
        "pnm",
        {"betas": (0.8, 0.5)},
        {"b1": 0.8, "b0": 0.5},
        OTHER,
        rates=SMALL,
    ),
    Row(
        KOZISTR + "AccSGD",
        "accsgd",
        {"kappa": 100.0, "xi": 5.0},
        {"kappa": 100.0, "xi": 5.0},
        OTHER,
        rates=SMALL,
    ),
    Row(
        KOZISTR + "FTRL",
        "ftrl",
        {"beta": 1.0, "lambda_1": 0.01, "lambda_2": 0.1},
        {"beta": 1.0, "l1": 0.01, "l2": 0.1},
        OTHER,
    ),
    Row(
        KOZISTR + "AdaBound",
        "adabound",
        {"betas": (0.8, 0.95), "final_lr": 0.2, "gamma": 0.01, "eps": 0.01},
        {"b1": 0.8, "b2": 0.95, "final_rate": 0.2, "gamma": 0.01, "eps": 0.01},
        OTHER,
    ),
    Row(
        KOZISTR + "SOAP",
        "soap",
        {},
        {"weight_decay": 0.01},
        "float64 inside",
        patch="float64",
    ),
]


def _with_the_arguments_of_the_card(row: Row) -> Row | None:
    """Return a row of optax with the other arguments of its card, or None."""
    card = CARDS.get(row.rule)
    if card is None or getattr(card.optax, "__name__", "") != row.name:
        return None
    if not card.arguments or not card.optax.__module__.startswith("optax"):
        return None
    call = card.arguments if card.optax_arguments is None else card.optax_arguments
    return row._replace(call=call, given=card.arguments, label=OTHER)


WITH_OTHER_ARGUMENTS += filter(None, map(_with_the_arguments_of_the_card, OF_OPTAX))
# The cards of these rules change the weight decay of optax.
WITH_OTHER_ARGUMENTS += [
    _of_optax(f"contrib.{rule}", call=given, given=given, label=OTHER)
    for rule, given in ((rule, CARDS[rule].arguments) for rule in ("momo", "momo_adam"))
]

SIMPLE_ROWS: list[Row] = [
    *OF_TORCH,
    *OF_KERAS,
    *OF_OPTAX,
    *OF_TIMM,
    *OF_KOZISTR,
    *OTHERS_OF_KOZISTR,
    *WITH_OTHER_ARGUMENTS,
    *(Row(KOZISTR + name, reason=why) for name, why in NOT_JUDGED_OF_KOZISTR.items()),
]
