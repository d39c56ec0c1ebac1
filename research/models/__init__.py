"""Models as pairs of pure functions, init(key) and apply(params, x, key=None)."""

from research.models._attention import (
    attention,
    attention_weights,
    causal_mask,
    rotary_angles,
    rotate,
)
from research.models._cnn import cnn
from research.models._convolution import convolution
from research.models._dropout import dropout
from research.models._linear import dense, linear
from research.models._logistic import logistic, probability
from research.models._mlp import mlp
from research.models._recurrent import (
    Recurrence,
    check_sequences,
    recurrence,
    recurrent,
)
from research.models._resnet import resnet, standardise_weights
from research.models._softmax import softmax
from research.models.activations import (
    ACTIVATION_DERIVATIVES,
    ACTIVATIONS,
    find_activation,
)
from research.models.backward import mlp_rounding_bound, mlp_value_and_gradient
from research.models.embedding import check_tokens, sinusoidal_positions
from research.models.generation import generate
from research.models.images import (
    augmented,
    in_turn,
    mean_and_sd,
    mirror_averaged,
    on_images,
    random_crop,
    random_flip,
    random_shift,
)
from research.models.initialisers import INITIALISERS, find_initialiser
from research.models.linen import from_linen
from research.models.ngrams import (
    SMOOTHINGS,
    best_ngram,
    ngram,
    ngram_losses,
    ngram_probabilities,
    sample_ngram,
)
from research.models.normalisation import (
    group_normalisation,
    layer_normalisation,
    rms_normalisation,
)
from research.models.parameters import (
    check_same_architecture,
    count_parameters,
    describe,
    list_parameters,
)
from research.models.pooling import average_pool, max_pool
from research.models.precision import mixed_precision
from research.models.reading import next_token_losses, next_token_risk, reader
from research.models.saving import (
    load,
    named_arrays,
    params_from,
    read_architecture,
    save,
)
from research.models.transformer import transformer_decoder, transformer_encoder
from research.models.transformer_block import block

__all__ = [
    "ACTIVATIONS",
    "ACTIVATION_DERIVATIVES",
    "INITIALISERS",
    "SMOOTHINGS",
    "Recurrence",
    "attention",
    "attention_weights",
    "augmented",
    "average_pool",
    "best_ngram",
    "block",
    "causal_mask",
    "check_same_architecture",
    "check_sequences",
    "check_tokens",
    "cnn",
    "convolution",
    "count_parameters",
    "dense",
    "describe",
    "dropout",
    "find_activation",
    "find_initialiser",
    "from_linen",
    "generate",
    "group_normalisation",
    "in_turn",
    "layer_normalisation",
    "linear",
    "list_parameters",
    "load",
    "logistic",
    "max_pool",
    "mean_and_sd",
    "mirror_averaged",
    "mixed_precision",
    "mlp",
    "mlp_rounding_bound",
    "mlp_value_and_gradient",
    "named_arrays",
    "next_token_losses",
    "next_token_risk",
    "ngram",
    "ngram_losses",
    "ngram_probabilities",
    "on_images",
    "params_from",
    "probability",
    "random_crop",
    "random_flip",
    "random_shift",
    "read_architecture",
    "reader",
    "recurrence",
    "recurrent",
    "resnet",
    "rms_normalisation",
    "rotary_angles",
    "rotate",
    "sample_ngram",
    "save",
    "sinusoidal_positions",
    "softmax",
    "standardise_weights",
    "transformer_decoder",
    "transformer_encoder",
]
