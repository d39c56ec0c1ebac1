"""How optimizers deviate from their formulas: verdict, cause, and edit."""

from typing import Any

from experiments._audit_rows import (
    BUG,
    CONVENTION,
    DIFFERS,
    GRADIENTS,
    ONES,
    PROBLEM_NAMES,
    SIMPLE_ROWS,
    Change,
    Row,
)

NO_VALLEY = ("quadratic", "softmax_regression")


def deviates(
    verdict: str, cause: str, *changes: tuple[str, str], **fields: Any
) -> dict[str, Any]:
    """Return the fields of a row whose optimizer deviates from its formula.

    Each change is an edit of the formula: (right, wrong).
    """
    edits = tuple(Change(*change) for change in changes)
    return {"verdict": verdict, "cause": cause, "changes": edits, **fields}


FLOAT32 = "mpmath.mpf(float(np.float32(float({}))))"
LAYOUT = {"adapt": (Change("shape_factor(a)", "shape_factor(a.T)"),)}
EPS_FIRST = (
    "sqrt(v_hat + eps_root) + eps",
    "sqrt(v_hat + eps_root) + eps / sqrt(1 - b2**t)",
)
SAID_EPS_FIRST = "ε is added before the bias correction of the second moment"
ROOT = "mpmath.mpf(1e-15)"
SAID_ROOT = (
    "1e-15 is added inside the root, and ε before the bias correction of the second "
    "moment"
)
ROOT_FIRST = (
    "(sqrt(v_hat + eps_root) + eps)",
    f"((sqrt(v + {ROOT}) + eps) / sqrt(1 - b2**t))",
)
HALF = (
    "the Newton-Schulz iteration runs in bfloat16; with float64 in its place, it "
    "agrees but for the place of ε (see the row with float64 inside)"
)

CLAMPED = (
    "ε is a lower bound of the norm before the Newton-Schulz iteration, and is not "
    "added to it"
)
CLAMP = ("ns_coeffs, eps)", "ns_coeffs, 0)")
# In PyTorch, the rows of a matrix are the outputs, so rows and columns are swapped.
ROWS_FIRST = {
    "adapt": (
        Change("by_leaf(mean_square_of_columns, m)", "by_leaf(mean_square_of_rows, m)"),
        Change("by_leaf(mean_square_of_columns, o)", "by_leaf(mean_square_of_rows, o)"),
        Change("wanted(a, consistent_rms)", "wanted(a.T, consistent_rms)"),
    )
}
# timm's name for these coefficients, one triple for each iteration.
QUINTIC = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)

RADIUS = "float32_radius(rho, g)"
SOAP = (
    ("(sqrt(v_hat) + eps)", "(sqrt(v_hat) + eps / sqrt(1 - b2**t))"),
    (
        "x = x - learning_rate * (step + weight_decay * x)",
        "x = (1 - learning_rate * weight_decay) * (x - learning_rate * step)",
    ),
)

DEVIATIONS: dict[str, dict[str, Any]] = {
    # torch
    "torch: Muon": deviates(CONVENTION, HALF, **LAYOUT),
    # Keras
    "keras: Adam": deviates(CONVENTION, SAID_EPS_FIRST, EPS_FIRST),
    "keras: Adam (amsgrad)": deviates(
        CONVENTION,
        SAID_EPS_FIRST,
        EPS_FIRST,
        given={"eps": 1e-7, "correct_before_max": False},
    ),
    "keras: AdamW": deviates(CONVENTION, SAID_EPS_FIRST, EPS_FIRST),
    "keras: Ftrl": {"given": {"start": 0.1}},
    # optax
    "optax: yogi": deviates(
        DIFFERS,
        "the first moment starts at 1e-6, like the second; in the paper it starts at 0",
        ("zeros_like(x) + initial_mu", "zeros_like(x) + mpmath.mpf(1e-6)"),
    ),
    "optax: adan": deviates(
        BUG,
        "the changes of the gradient are multiplied by 1 - b2, which is the "
        "paper's β2; algorithm 1 has 1 - β2, which is b2",
        ("ahead = b2", "ahead = 1 - b2"),
    ),
    "optax: rprop": deviates(
        BUG,
        "each update is that of the call before, and the first update is 0",
        (
            "step = sign(kept) * size\n        x = x - step",
            "x = x - zero_where_negative(agreement, step)\n"
            "        step = sign(kept) * size",
        ),
    ),
    "optax: optimistic_adam_v2": {"given": {"nesterov": True}},
    "optax: polyak_sgd": {"problems": NO_VALLEY},
    "optax: polyak_sgd (scaling)": deviates(
        DIFFERS,
        "the gradient is multiplied by the argument scaling before its norm is "
        "taken, so that the step is divided by scaling",
        ("dot(g, g) + eps", "dot(learning_rate * g, learning_rate * g) + eps"),
        problems=NO_VALLEY,
    ),
    "optax: acprop": deviates(
        DIFFERS,
        "the second moment is the spread around the mean of the step before",
        ("(old if from_old_mean else m)", "old"),
    ),
    "optax: muon": deviates(
        CONVENTION,
        "vectors are updated by NAdam, not by Adam",
        (
            "adam = n_hat /",
            "adam = (B1 * n / (1 - B1 ** (t + 1)) + (1 - B1) * g / (1 - B1**t)) /",
        ),
        given={"bias_correction": True, "eps": 1e-8},
    ),
    "optax: prodigy": deviates(
        CONVENTION,
        "the rate is always multiplied by the bias corrections, which are an option of "
        "the authors' code",
        (
            "(sqrt(1 - b2**t) / (1 - b1**t) if bias_correction else 1)",
            "(sqrt(1 - b2**t) / (1 - b1**t))",
        ),
    ),
    "optax: galore": deviates(
        DIFFERS,
        "the larger side of a matrix is projected; the paper projects the smaller "
        "side. The singular vectors are computed in float32",
        ("singular(a)", "singular(a, smaller=False)"),
        within=1e-5,
    ),
    "optax: momo (other arguments)": deviates(
        DIFFERS,
        "the weight decay divides only the params, not the step",
        ("(x - tau * m) / a", "x / a - tau * m"),
    ),
    "optax: momo_adam (other arguments)": deviates(
        DIFFERS,
        "the weight decay divides only the params, not the step",
        ("(x - tau * d) / a", "x / a - tau * d"),
    ),
    # timm
    "timm: Adafactor": deviates(
        DIFFERS,
        "with a given learning rate, the step is not multiplied by the size of the "
        "params, although scale_parameter is True",
        ("if multiply_by_parameter_scale:", "if False:"),
    ),
    "timm: AdafactorBigVision": {
        "given": {
            "min_dim_size_to_factor": 1,
            "multiply_by_parameter_scale": False,
            "clipping_threshold": float("inf"),
            "momentum": 0.9,
        }
    },
    "timm: AdafactorBigVision (no momentum)": {
        "given": {
            "min_dim_size_to_factor": 16,
            "multiply_by_parameter_scale": False,
            "clipping_threshold": float("inf"),
        }
    },
    "timm: AdamP": deviates(
        CONVENTION,
        "ε = 1e-8 is added to norms in the projection",
        ("tangential(p, a, b, delta)", "tangential(p, a, b, delta, mpmath.mpf(1e-8))"),
    ),
    "timm: SGDP": deviates(
        CONVENTION,
        "ε = 1e-8 is added to norms in the projection",
        ("tangential(s, a, b, delta)", "tangential(s, a, b, delta, mpmath.mpf(1e-8))"),
    ),
    "timm: Adan": {"given": {"eps_root": 0.0}},
    "timm: Lamb": deviates(
        CONVENTION,
        "the gradient of all params is first clipped to the norm 1 (max_grad_norm)",
        ("g = f.gradient(x)", "g = f.gradient(x)\n        g = g / max(1, norm(g))"),
        given={"weight_decay": 0.01},
    ),
    "timm: Lars": deviates(
        CONVENTION,
        "without weight decay, the step is not scaled by the trust ratio "
        "(always_adapt=False)",
        (
            "ratio(trust_coefficient * p, q, eps), by_leaf(size, x), divisor",
            "mpmath.mpf(1), by_leaf(size, x), divisor",
        ),
        given={"momentum": 0.0},
        rates=GRADIENTS,
    ),
    "timm: Lookahead": deviates(
        BUG,
        "the slow params start as a copy of the fast params at the first "
        "synchronisation, so that this synchronisation does nothing; in algorithm "
        "1 they start at the initial params",
        (
            "slow = slow + slow_step_size * (x - slow)",
            "slow = x if t == sync_period else slow + slow_step_size * (x - slow)",
        ),
    ),
    "timm: NAdamLegacy": {"given": {"momentum_schedule": "torch"}},
    "timm: NAdamW": deviates(
        CONVENTION,
        "both averages in the look-ahead are corrected with the same t, as in AlgoPerf",
        ("t if same_correction else t + 1", "t"),
    ),
    "timm: NAdamW (no weight decay)": deviates(
        CONVENTION,
        "both averages in the look-ahead are corrected with the same t, as in AlgoPerf",
        ("t if same_correction else t + 1", "t"),
    ),
    "timm: RAdamLegacy": deviates(
        CONVENTION,
        "params and averages are converted to float32; with float64 in its place, it "
        "agrees (see the row with float64 inside)",
    ),
    "timm: Mars (optimize_1d)": deviates(
        CONVENTION,
        "the first gradient is clipped, too",
        (
            "c = g if t == 1 else by_leaf(clipped, c)",
            "c = by_leaf(clipped, g if t == 1 else c)",
        ),
    ),
    "timm: LaProp (weight decay)": deviates(
        CONVENTION,
        "the weights decay after the step, not from their values before it",
        (
            "x = x - learning_rate * (m / (1 - b1**t) + weight_decay * x)",
            "x = (1 - learning_rate * weight_decay) * "
            "(x - learning_rate * m / (1 - b1**t))",
        ),
    ),
    # pytorch_optimizer
    "pytorch_optimizer: AdaFactor": {"rates": dict.fromkeys(PROBLEM_NAMES, 0.01)},
    "pytorch_optimizer: SophiaH (rademacher)": deviates(
        CONVENTION,
        "the curvature is not multiplied by γ",
        ("maximum(gamma * h, eps)", "maximum(h, eps)"),
        given={"limit": 1.0},
        call={"hessian_distribution": "rademacher", "p": 1.0},
    ),
    "pytorch_optimizer: Adan": {"given": {"eps_root": 0.0}},
    "pytorch_optimizer: SimplifiedAdEMAMix": deviates(
        BUG,
        "the step is divided by √(1 - β2^t) where the bias correction multiplies "
        "by it, and the momentum is damped by 1 - β1",
        ("m = b1 * m + g", "m = b1 * m + (1 - b1) * g"),
        (
            "(sqrt(v / (1 - b2**t) + eps_root) + eps)",
            "(sqrt(v) + sqrt(1 - b2**t) * eps) / sqrt(1 - b2**t)",
        ),
    ),
    "pytorch_optimizer: DAdaptAdam": deviates(
        CONVENTION,
        "the rate has no bias corrections, which are an option of the authors' code",
        ("learning_rate * d * sqrt(1 - b2**t) / (1 - b1**t)", "learning_rate * d"),
    ),
    "pytorch_optimizer: Lamb": deviates(
        DIFFERS,
        "the second moment is not corrected, and the step is divided by 1 - β1^t after "
        "the trust ratio is taken, so that the first step is ten times as long. ε "
        "is also added to the norm in the trust ratio",
        ("m_hat = m / (1 - b1**t)", "m_hat = m"),
        ("v_hat = v / (1 - b2**t)", "v_hat = v"),
        (
            "by_leaf(ratio, x, r) * r",
            "by_leaf(lambda a, b: length(a) / (length(b) + eps) + 0 * a, x, r) * r "
            "/ (1 - b1**t)",
        ),
    ),
    "pytorch_optimizer: LARS": deviates(
        CONVENTION,
        "vectors are not scaled by the trust ratio",
        (
            "lambda a, b: a * b, local, d",
            "lambda a, b: a * b if b.ndim > 1 else b, local, d",
        ),
        rates=GRADIENTS,
    ),
    "pytorch_optimizer: Muon": deviates(CONVENTION, HALF, **LAYOUT),
    "pytorch_optimizer: RAdam": deviates(
        CONVENTION,
        "while the variance is not tractable, there is no step (degenerated_to_sgd="
        "False); ε is added before the bias correction of the second moment",
        ("x = x - learning_rate * m_hat\n", "pass\n"),
        given={"eps_before_correction": True},
    ),
    "pytorch_optimizer: SM3": {"given": {"momentum": 0.0, "eps": 1e-30}},
    "pytorch_optimizer: Yogi": deviates(
        DIFFERS,
        "the first moment starts at 1e-6, like the second; in the paper it starts at 0",
        ("zeros_like(x) + initial_mu", "zeros_like(x) + mpmath.mpf(1e-6)"),
    ),
    "pytorch_optimizer: ASGD": deviates(
        BUG,
        "it takes the difference of two norms where the paper has the norm of a "
        "difference, for the params and for the gradients",
        (
            "norm(x - before), norm(g - g_before)",
            "norm(x) - norm(before), norm(g) - norm(g_before)",
        ),
    ),
    "pytorch_optimizer: AvaGrad": deviates(
        DIFFERS,
        "the mean square of the rates is taken with the second moment before this "
        "gradient and with the bias correction after it",
        (
            "        v = b2 * v + (1 - b2) * g**2\n"
            "        next_rates = 1 / (sqrt(v / (1 - b2**t)) + eps)\n",
            "        next_rates = 1 / (sqrt(v / (1 - b2**t)) + eps)\n"
            "        v = b2 * v + (1 - b2) * g**2\n",
        ),
    ),
    "pytorch_optimizer: AdaGO": deviates(
        BUG,
        "the step is divided by v², the sum of squares, where the paper divides by "
        "v. The Newton-Schulz iteration runs in bfloat16",
        ("/ sqrt(squares)", "/ squares"),
        within=0.05,
    ),
    "pytorch_optimizer: AdaMod": deviates(
        CONVENTION,
        "the bias correction of the first moment is part of the rates that are "
        "averaged and limited",
        (
            "rates = learning_rate / (sqrt(v / (1 - b2**t)) + eps)",
            "rates = learning_rate * sqrt(1 - b2**t) / (1 - b1**t) / (sqrt(v) + eps)",
        ),
        ("(m / (1 - b1**t))", "m"),
    ),
    "pytorch_optimizer: AdaNorm": deviates(
        CONVENTION,
        SAID_ROOT,
        (
            "(sqrt(v / (1 - b2**t)) + eps)",
            f"((sqrt(v + {ROOT}) + eps) / sqrt(1 - b2**t))",
        ),
    ),
    "pytorch_optimizer: AdaPNM": deviates(
        CONVENTION,
        SAID_ROOT,
        ("(sqrt(v_hat) + eps)", f"((sqrt(largest + {ROOT}) + eps) / sqrt(1 - b2**t))"),
    ),
    "pytorch_optimizer: QHAdam": deviates(
        CONVENTION,
        "the sums that replace the bias corrections are kept in float32",
        within=1e-6,
    ),
    "pytorch_optimizer: PAdam": deviates(
        DIFFERS,
        "there is no maximum of the second moments; the moments are corrected as "
        "in Adam, and ε is added inside the power",
        ("    while True:\n", "    for t in count(1):\n"),
        (
            "x = x - learning_rate * m / largest**partial",
            "x = x - learning_rate * sqrt(1 - b2**t) / (1 - b1**t) * m "
            "/ (sqrt(v) + mpmath.mpf(1e-8)) ** (2 * partial)",
        ),
    ),
    "pytorch_optimizer: AdaTAM": deviates(
        BUG,
        "the correlation is kept for each entry; in the paper it is one cosine, "
        "the sum over the entries",
        ("by_leaf(cosine, m, g)", "by_leaf(by_column, m, g)"),
        ("k.item()", "k"),
    ),
    "pytorch_optimizer: Grams": {"given": {"eps": 1e-6}},
    "pytorch_optimizer: GrokFastAdamW": deviates(
        CONVENTION,
        "ε is a lower bound of the divisor, and is not added to it",
        (
            "(sqrt(v / (1 - b2**t)) + eps)",
            "maximum(sqrt(v / (1 - b2**t)), eps)",
        ),
    ),
    "pytorch_optimizer: AdamC": deviates(CONVENTION, SAID_ROOT, ROOT_FIRST),
    "pytorch_optimizer: SWATS": deviates(CONVENTION, SAID_ROOT, ROOT_FIRST),
    "pytorch_optimizer: Ranger": deviates(
        BUG,
        "while the variance is not tractable, the step goes up the gradient: its "
        "factor is -1. ε is added before the bias correction of the second moment",
        ("x = x - learning_rate * m_hat\n", "x = x + learning_rate * m_hat\n"),
        ("(sqrt(v_hat) + eps)", "(sqrt(v_hat) + eps / sqrt(1 - b2**t))"),
    ),
    "pytorch_optimizer: SGDSaI": deviates(
        DIFFERS,
        "the gradient of a vector is not divided by its standard deviation",
        (
            "length(a) / (deviation(a) + eps)",
            "length(a) / (deviation(a) + eps if a.ndim > 1 else 1)",
        ),
    ),
    "pytorch_optimizer: ApolloDQN": {"given": {"eps": 0.01, "least_curvature": 0.01}},
    "pytorch_optimizer: DAdaptSGD": deviates(
        CONVENTION,
        "the norm of the first gradient is computed in float32",
        ("norm(g) if size is None", FLOAT32.format("norm(g)") + " if size is None"),
        within=1e-7,
    ),
    "pytorch_optimizer: AdaHessian": {"given": {"draws": ONES, "eps": 1e-16}},
    "keras: Adamax": deviates(
        CONVENTION,
        "ε is added in the division, not in the maximum",
        ("absolute(g) + eps)", "absolute(g))"),
        ("* m / u", "* m / (u + eps)"),
    ),
    "keras: Adafactor": deviates(
        CONVENTION,
        "keras.ops.mean computes in float32, also for float64",
        within=1e-7,
    ),
    "keras: Muon": deviates(
        CONVENTION,
        "for vectors, Adam adds ε = 1e-7 before the bias correction of the second "
        "moment; keras.ops.norm computes in float32, also for float64",
        (
            "(sqrt(v / (1 - B2**t)) + mpmath.mpf(1e-8))",
            "(sqrt(v / (1 - B2**t)) + mpmath.mpf(1e-7) / sqrt(1 - B2**t))",
        ),
        (
            "adam,\n            x,",
            "adam + weight_decay * x,\n            x,",
        ),
        given={"consistent_rms": 0.2, "weight_decay": 0.004},
        within=1e-6,
    ),
    "optax: adafactor": deviates(
        CONVENTION, "the decay 1 - t^(-0.8) is computed in float32"
    ),
    "optax: madgrad": deviates(
        CONVENTION,
        "the factor (η + ε) √t is computed in float32",
        (
            "(learning_rate + (eps if eps_in_rate else 0)) * sqrt(mpmath.mpf(t))",
            FLOAT32.format(
                FLOAT32.format("learning_rate + eps")
                + " * "
                + FLOAT32.format("sqrt(mpmath.mpf(t))")
            ),
        ),
    ),
    "optax: optimistic_adam": {"given": {"nesterov": True}},
    "torch: Muon (float64 inside)": deviates(CONVENTION, CLAMPED, CLAMP, **LAYOUT),
    "timm: Muon": deviates(
        CONVENTION,
        HALF,
        given={"nesterov": False, "consistent_rms": 0.2, "ns_coeffs": QUINTIC},
        make="muon groups",
    ),
    "timm: Muon (float64 inside)": deviates(
        CONVENTION,
        CLAMPED,
        CLAMP,
        given={"nesterov": False, "consistent_rms": 0.2, "ns_coeffs": QUINTIC},
        make="muon groups",
    ),
    "timm: AdaBelief (rectified)": {"rule": "radabelief", "rates": GRADIENTS},
    "pytorch_optimizer: Muon (float64 inside)": deviates(
        CONVENTION, CLAMPED, CLAMP, **LAYOUT
    ),
    "pytorch_optimizer: NorMuon": deviates(CONVENTION, HALF, **ROWS_FIRST),
    "pytorch_optimizer: NorMuon (float64 inside)": deviates(
        CONVENTION, CLAMPED, CLAMP, **ROWS_FIRST
    ),
    "pytorch_optimizer: AdaGO (float64 inside)": deviates(
        BUG,
        "the step is divided by v², the sum of squares, where the paper divides by v",
        ("/ sqrt(squares)", "/ squares"),
        given={"ns_eps": 0.0},
    ),
    "pytorch_optimizer: GaLore": deviates(
        CONVENTION,
        "by default, no params are projected: it is Adam, and ε is added before "
        "the bias correction of the second moment",
        EPS_FIRST,
        rule="adam",
        given={"eps": 1e-6},
        rates=GRADIENTS,
    ),
    "pytorch_optimizer: LaProp": deviates(
        CONVENTION,
        SAID_ROOT + "; the bias correction of the first moment is in float32",
        (
            "(sqrt(v / (1 - b2**t)) + eps)",
            f"((sqrt(v + {ROOT}) + eps) / sqrt(1 - b2**t))",
        ),
        ("m / (1 - b1**t)", "m * " + FLOAT32.format("1 / (1 - b1**t)")),
    ),
    "pytorch_optimizer: SAM": deviates(
        CONVENTION,
        "the radius divided by the norm of the gradient is in float32",
        ("rho * (g / length)", RADIUS + " * g"),
    ),
    "pytorch_optimizer: WSAM": deviates(
        CONVENTION,
        "the radius divided by the norm of the gradient is in float32",
        ("rho / (norm(g) + eps)", RADIUS),
    ),
    "pytorch_optimizer: LookSAM": deviates(
        CONVENTION,
        "the radius divided by the norm of the gradient is in float32, and 1e-8 is "
        "added to the norm of the gradient's other part",
        ("rho / (norm(g) + eps)", RADIUS),
        ("length(v) * v", "(length(v) + mpmath.mpf(1e-8)) * v"),
    ),
    "pytorch_optimizer: SOAP": deviates(
        CONVENTION,
        SAID_EPS_FIRST
        + "; the weights decay after the step; the bases are refreshed in float32",
        *SOAP,
        within=1e-4,
    ),
    "pytorch_optimizer: AdaGC": deviates(
        CONVENTION,
        "ε is added to the norm of all gradients, which is in float32",
        (
            "absolute_limit / norm(g)",
            "absolute_limit / (float32_norm(g) + eps)",
        ),
        within=1e-8,
    ),
    "pytorch_optimizer: DiffGrad": deviates(
        CONVENTION,
        SAID_ROOT,
        ("(sqrt(v_hat) + eps)", f"((sqrt(v + {ROOT}) + eps) / sqrt(1 - b2**t))"),
    ),
    "pytorch_optimizer: TAM": deviates(
        BUG,
        "the correlation is kept for each entry; in the paper it is one cosine, "
        "the sum "
        "over the entries. The momentum also starts at the first gradient, not at 0",
        ("m, s = zeros_like(x)", "m, s = None"),
        ("g = f.gradient(x)\n", "g = f.gradient(x)\n        m = m or g\n"),
        ("by_leaf(cosine, m, g)", "by_leaf(by_column, m, g)"),
        ("k.item()", "k"),
    ),
    "pytorch_optimizer: Aida": deviates(
        CONVENTION,
        SAID_ROOT,
        (
            "(sqrt(v / (1 - b2**t)) + eps)",
            f"((sqrt(v + {ROOT}) + eps) / sqrt(1 - b2**t))",
        ),
    ),
    "pytorch_optimizer: AdamS": deviates(
        CONVENTION,
        "ε is added to the root of the mean, too",
        ("weight_decay / sqrt(mean)", "weight_decay / (sqrt(mean) + eps)"),
    ),
    "pytorch_optimizer: AdamP": deviates(
        CONVENTION,
        SAID_ROOT + "; ε is added to norms in the projection",
        (
            "(sqrt(v / (1 - b2**t)) + eps)",
            f"((sqrt(v + {ROOT}) + eps) / sqrt(1 - b2**t))",
        ),
        ("tangential(p, a, b, delta)", "tangential(p, a, b, delta, mpmath.mpf(1e-8))"),
    ),
    "pytorch_optimizer: Ano": deviates(
        DIFFERS,
        "the second moment decays, and its bias is corrected",
        ("for _t in count(1)", "for t in count(1)"),
        (
            "v = v - (1 - b2) * sign(v - g**2) * g**2",
            "v = b2 * v - (1 - b2) * sign(v - g**2) * g**2",
        ),
        ("(sqrt(v) + eps)", "(sqrt(v / (1 - b2**t)) + eps)"),
    ),
    "pytorch_optimizer: VSGD": deviates(
        DIFFERS,
        "the shape of the prior is larger by 5e-5, and the variance of the first "
        "step is computed with this shape alone",
        (
            "a = prior + mpmath.mpf(1) / 2",
            "a = prior + mpmath.mpf(1) / 2 + mpmath.mpf(5e-5)",
        ),
        (
            "1 / (a / b + a / b_hat)",
            "1 / ((a - (t == 1) * mpmath.mpf(1) / 2) * (1 / b + 1 / b_hat))",
        ),
    ),
    "pytorch_optimizer: AliG": deviates(
        CONVENTION,
        "the squared norm of the gradient is in float32",
        (
            "(dot(g, g) + eps)",
            "mpmath.mpf(float(float32_square(g) + np.float32(1e-6)))",
        ),
        given={"eps": 1e-6},
        rates=dict.fromkeys(PROBLEM_NAMES, 1.0),
        problems=("quadratic",),
    ),
    "pytorch_optimizer: BCOS": deviates(
        BUG,
        "the momentum is changed in place before v is computed from it; the "
        "paper's v has the momentum of the step before",
        ("* before**2", "* m**2"),
        call={"simple_cond": True},
    ),
    "pytorch_optimizer: MARS (optimize_1d)": deviates(
        CONVENTION,
        "the first gradient is corrected by the gradient 0 before it and clipped; "
        + SAID_ROOT,
        (
            "last = g if before is None else before",
            "last = zeros_like(g) if before is None else before",
        ),
        ("c = g if t == 1 else by_leaf(clipped, c)", "c = by_leaf(clipped, c)"),
        (
            "(sqrt(v / (1 - b2**t)) + eps)",
            f"((sqrt(v + {ROOT}) + eps) / sqrt(1 - b2**t))",
        ),
    ),
    "pytorch_optimizer: SOAP (float64 inside)": deviates(
        CONVENTION,
        SAID_EPS_FIRST + "; the weights decay after the step",
        *SOAP,
        within=1e-8,
    ),
    # Near the valley of Rosenbrock's function, larger steps magnify rounding errors.
    "torch: RMSprop (other arguments)": {"rates": {"rosenbrock": 1e-3}},
    "keras: RMSprop (other arguments)": {"rates": {"rosenbrock": 1e-3}},
    "timm: RMSpropTF (other arguments)": {"rates": {"rosenbrock": 1e-3}},
    "pytorch_optimizer: AdaBound (other arguments)": {"problems": NO_VALLEY},
}

# Reproducers of the deviations that contradict an equation of the paper, in
# benchmarks/audit. They need the environment of `make bench`.
REPRODUCERS = {
    "optax: adan": "optax_adan",
    "optax: rprop": "optax_rprop",
    "timm: Lookahead": "timm_lookahead",
    "pytorch_optimizer: ASGD": "kozistr_asgd",
    "pytorch_optimizer: AdaGO": "kozistr_adago",
    "pytorch_optimizer: AdaGO (float64 inside)": "kozistr_adago",
    "pytorch_optimizer: TAM": "kozistr_tam",
    "pytorch_optimizer: AdaTAM": "kozistr_tam",
    "pytorch_optimizer: Ranger": "kozistr_ranger",
    "pytorch_optimizer: SimplifiedAdEMAMix": "kozistr_simplified_ademamix",
    "pytorch_optimizer: BCOS": "kozistr_bcos",
}
# Those of them that a second reader has confirmed. The others count as "differs".
CONFIRMED: frozenset[str] = frozenset(
    {
        "optax: adan",
        "optax: rprop",
        "timm: Lookahead",
        "pytorch_optimizer: Ranger",
    }
)


def _judged(row: Row) -> Row:
    """Return a row with its deviation. An unconfirmed bug counts as "differs"."""
    row = row._replace(**DEVIATIONS.get(row.key, {}))
    if row.verdict == BUG and row.key not in CONFIRMED:
        return row._replace(verdict=DIFFERS)
    return row


ROWS: list[Row] = [_judged(row) for row in SIMPLE_ROWS]
