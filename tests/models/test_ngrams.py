"""N-gram models against slow dictionaries that follow the papers' formulas, and what
they refuse.
"""

from collections import Counter, defaultdict

import jax
import numpy as np
import pytest

from research.models import ngrams

COMPILE_QUICKLY = True  # tests/conftest.py

SIZE = 5
each_smoothing = pytest.mark.parametrize("smoothing", ngrams.SMOOTHINGS)


def text(length, seed=0):
    """A text of SIZE symbols in which the next one depends on the two before."""
    rng = np.random.default_rng(seed)
    tokens = [0, 0]
    while len(tokens) < length:
        tokens.append(
            int(
                (tokens[-1] * 2 + tokens[-2] + rng.choice(4, p=[0.6, 0.25, 0.1, 0.05]))
                % SIZE
            )
        )
    return np.array(tokens[:length])


def grams(tokens, length):
    return Counter(
        tuple(map(int, tokens[i : i + length])) for i in range(len(tokens) - length + 1)
    )


def after(counts):
    """Context -> {token: count}."""
    followers = defaultdict(dict)
    for (*context, token), count in counts.items():
        followers[tuple(context)][token] = count
    return followers


def witten_bell(tokens, order):
    tables = [after(grams(tokens, length)) for length in range(1, order + 1)]

    def probability(token, context):
        shorter = probability(token, context[1:]) if context else 1 / SIZE
        followers = tables[len(context)].get(context, {})
        if not followers:
            return shorter
        return (followers.get(token, 0) + len(followers) * shorter) / (
            sum(followers.values()) + len(followers)
        )

    return probability


def kneser_ney(tokens, order):
    counts = {order: grams(tokens, order)}
    for length in range(order - 1, 0, -1):
        before = {(gram[0], gram[1:]) for gram in counts[length + 1]}
        counts[length] = Counter(gram for _, gram in before)
    tables = {length: after(table) for length, table in counts.items()}
    discounts = {
        length: dictionary_discounts(table) for length, table in counts.items()
    }

    def probability(token, context):
        shorter = probability(token, context[1:]) if context else 1 / SIZE
        followers = tables[len(context) + 1].get(context, {})
        if not followers:
            return shorter
        amount = discounts[len(context) + 1]
        given = sum(amount[min(count, 3)] for count in followers.values())
        own = (
            followers[token] - amount[min(followers[token], 3)]
            if token in followers
            else 0
        )
        return (own + given * shorter) / sum(followers.values())

    return probability


def dictionary_discounts(counts):
    n = Counter(counts.values())
    if not (n[1] and n[2] and n[3]):
        return {1: 0.5, 2: 1.0, 3: 1.5}
    y = n[1] / (n[1] + 2 * n[2])
    found = {
        1: 1 - 2 * y * n[2] / n[1],
        2: 2 - 3 * y * n[3] / n[2],
        3: 3 - 4 * y * n[4] / n[3],
    }
    return found if min(found.values()) > 0 else {1: 0.5, 2: 1.0, 3: 1.5}


REFERENCES = {"witten_bell": witten_bell, "kneser_ney": kneser_ney}


@each_smoothing
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_losses_equal_the_dictionaries(smoothing, order):
    train, held = text(600), text(80, seed=1)
    reference = REFERENCES[smoothing](train, order)
    contexts = [
        tuple(map(int, held[max(0, i - order + 1) : i])) for i in range(len(held))
    ]
    expected = [
        -np.log(reference(int(token), context))
        for token, context in zip(held, contexts, strict=True)
    ]
    found = ngrams.ngram_losses(
        ngrams.ngram(train, order, SIZE, smoothing=smoothing), held
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_both_kinds_of_discount_are_met():
    # The estimate from the counts of counts, and, where a short text allows none, the
    # fixed ones.
    counts = np.array([1, 1, 1, 1, 2, 2, 3, 7])
    np.testing.assert_allclose(ngrams._discounts(counts), [0.5, 2 - 3 / 4, 3])
    np.testing.assert_allclose(
        ngrams._discounts(np.array([1, 1, 9])), ngrams.FALLBACK_DISCOUNTS
    )
    np.testing.assert_allclose(
        ngrams._discounts(np.array([1, 2, 3, 3, 3])), ngrams.FALLBACK_DISCOUNTS
    )  # D(2) = -1


@each_smoothing
@pytest.mark.parametrize(
    "context", [[], [4], [0, 1], [3, 3, 3, 3, 3], [0, 0, 1, 2, 4, 3]]
)
def test_probabilities_are_positive_and_sum_to_one(smoothing, context):
    tokens = text(200)[
        text(200) != 4
    ]  # A symbol is never seen, and so are contexts that have it.
    probability = ngrams.ngram_probabilities(
        ngrams.ngram(tokens, 4, SIZE, smoothing=smoothing), context
    )
    assert probability.min() > 0
    np.testing.assert_allclose(probability.sum(), 1, rtol=1e-12)


@each_smoothing
def test_probabilities_are_those_of_the_losses(smoothing):
    model, held = (
        ngrams.ngram(text(600), 3, SIZE, smoothing=smoothing),
        text(30, seed=2),
    )
    one_by_one = [
        -np.log(ngrams.ngram_probabilities(model, held[:i])[token])
        for i, token in enumerate(held)
    ]
    np.testing.assert_allclose(ngrams.ngram_losses(model, held), one_by_one, rtol=1e-12)


@pytest.mark.thorough(
    "long texts; test_losses_equal_the_dictionaries has the losses of both smoothings"
)
@each_smoothing
def test_a_long_text_costs_its_entropy(smoothing):
    # The next symbol depends on two before it, by the same four odds everywhere.
    odds = np.array([0.6, 0.25, 0.1, 0.05])
    model = ngrams.ngram(text(40_000), 3, SIZE, smoothing=smoothing)
    assert ngrams.ngram_losses(model, text(20_000, seed=3)).mean() == pytest.approx(
        -odds @ np.log(odds), abs=0.02
    )


@pytest.mark.parametrize(
    ("length", "size"), [(2, 1000), (3, 1000), (6, 1000), (9, 100)]
)
def test_different_runs_have_different_codes_in_a_large_vocabulary(length, size):
    tokens = np.random.default_rng(0).choice(
        [0, 1, size // 2, size - 2, size - 1], 3_000
    )
    runs = np.lib.stride_tricks.sliding_window_view(tokens, length)
    assert len(np.unique(ngrams._codes(tokens, length, size))) == len(
        np.unique(runs, axis=0)
    )


def test_what_was_seen_once_is_known_by_its_long_context():
    tokens = np.array([0, 999, 999, 0, 999, 998, 0, 999, 999])
    losses = ngrams.ngram_losses(
        ngrams.ngram(tokens, 6, 1000, smoothing="witten_bell"), tokens
    )
    assert losses[-1] < 1.6  # Of log 1000 = 6.9.


def test_samples_have_the_models_frequencies():
    model = ngrams.ngram(text(600), 2, SIZE)
    sample = np.array([0, *ngrams.sample_ngram(model, jax.random.key(0), [0], 4_000)])
    for context in range(SIZE):
        followers = np.bincount(sample[1:][sample[:-1] == context], minlength=SIZE)
        expected = ngrams.ngram_probabilities(model, [context])
        deviation = np.sqrt(expected * (1 - expected) / followers.sum())
        assert (np.abs(followers / followers.sum() - expected) < 4 * deviation).all()


def test_temperature_and_top_k_reshape_the_frequencies():
    model = ngrams.ngram([0] * 48 + [1] * 24 + [2] * 18 + [3] * 10, 1, SIZE)
    sample = ngrams.sample_ngram(
        model, jax.random.key(1), [], 4_000, temperature=0.5, top_k=3
    )
    probability = ngrams.ngram_probabilities(model, [])
    expected = probability**2 * [1, 1, 1, 0, 0]
    assert set(sample.tolist()) == {0, 1, 2}
    np.testing.assert_allclose(
        np.bincount(sample, minlength=SIZE) / 4_000,
        expected / expected.sum(),
        atol=0.03,
    )


def test_same_key_gives_the_same_sample_and_a_longer_one_begins_with_it():
    model = ngrams.ngram(text(600), 3, SIZE)
    sample = lambda seed, length: ngrams.sample_ngram(
        model, jax.random.key(seed), [2, 3], length
    ).tolist()
    assert sample(0, 50) == sample(0, 60)[:50] != sample(1, 50)


def test_samples_continue_the_prompt():
    model = ngrams.ngram([0, 1, 2, 3, 4] * 40, 3, SIZE)
    assert ngrams.sample_ngram(
        model, jax.random.key(0), [2, 3], 6, top_k=1
    ).tolist() == [4, 0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"order": 0}, "order must be a positive integer; got order=0"),
        ({"vocabulary_size": 0}, "vocabulary_size must be a positive integer"),
        ({"order": 40}, r"below 2\*\*63.*5\*\*40.*smaller order"),
        (
            {"smoothing": "laplace"},
            "one of kneser_ney, witten_bell; got smoothing='laplace'",
        ),
        (
            {"tokens": [0, 5, 1]},
            r"tokens must lie in 0\.\.4, .*; got 5 at index \(1,\)",
        ),
        ({"tokens": [0, -1, 1]}, r"tokens must lie in 0\.\.4, .*; got -1"),
        ({"tokens": [0.0, 1.0]}, r"tokens must be integers; got dtype float64"),
        ({"tokens": [[0, 1]]}, r"tokens must have one axis; got shape \(1, 2\)"),
        ({"tokens": [0]}, "at least one n-gram of order 2; got 1 tokens"),
    ],
)
def test_bad_input_is_named(change, words):
    arguments = {"tokens": [0, 1, 2], "order": 2, "vocabulary_size": SIZE} | change
    with pytest.raises((ValueError, TypeError), match=words):
        ngrams.ngram(**arguments)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_tokens": -1}, "num_tokens"),
        (
            {"temperature": 0.0},
            "temperature must be a positive number; got temperature=0.0",
        ),
        ({"top_k": 0}, "top_k"),
        ({"prompt": [7]}, "prompt must lie in"),
    ],
)
def test_bad_sampling_is_named(change, words):
    arguments = {"prompt": [0], "num_tokens": 3} | change
    with pytest.raises(ValueError, match=words):
        ngrams.sample_ngram(
            ngrams.ngram([0, 1, 2], 1, SIZE), jax.random.key(0), **arguments
        )
