"""Does a Transformer sort news stories better than counting their words does?

Reuters R8: 5,485 news stories to learn from, 2,189 to be asked about, eight topics. The Transformer encoder reads the first
words of a story, each as a vector, lets every word look at every other, and classifies the mean over the words. It is
trained by Adam whose rate rises and falls once, from nothing: no word is known before. The baseline counts words:
logistic regression of their TF-IDF weights (scikit-learn), which knows nothing of their order. It also reads the
whole story, so it is asked a second time with as much of it as the Transformer sees.

    python experiments/text_classification.py            # about three minutes on two cores
    python experiments/text_classification.py --full     # two blocks, twice the words, more to choose from: an hour

Nothing was chosen on test stories: rate and epochs of the network, and C of the logistic regressions, are those with the
best accuracy on a tenth of the training stories, held out for that; then all training stories are learnt from. Where the
stories are not at hand and cannot be fetched, fabricated ones take their place, and the answer says so.

The numbers to expect (`EXPECTED`): test accuracy on Reuters R8 alone, the Transformer's as a mean over the seeds.
Cardoso-Cachopo (2007) has 0.970 for a linear support vector machine.
"""

import dataclasses
import functools
import sys
from typing import Any, NamedTuple

import numpy as np

import research

EXPECTED = {"whole": (0.965, 0.98), "cut": (0.96, 0.98), "transformer": (0.945, 0.98)}
VARIES = {
    "rate": None,
    "epochs": None,
}  # Chosen by trainings; another processor may choose others (`reproduce`).

CLAIM, FALLBACK = "reuters_r8", "fabricated"
BASELINES = {
    "whole": "TF-IDF + logistic regression",
    "cut": "the same, first words only",
}
LABELS = BASELINES | {"transformer": "Transformer"}
STRENGTHS = (
    1.0,
    10.0,
    100.0,
)  # C of the logistic regressions: the inverse of their penalty.
HEADS, WARMUP, SLICE = 4, 0.2, 256
CHOICE_SEED, SPLIT_SEED = 100, 0
WORST, BEGINNING = 10, 14  # Errors shown, and how many words of each.


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    dataset: str = CLAIM
    """Which stories: reuters_r8, or fabricated ones."""
    seeds: str = "0..4"
    """Of the trainings that are reported: 0..9, or 1,4,7."""
    words: int = 64
    """How many words of a story the Transformer sees; the rest is cut off."""
    least_count: int = 3
    """How often a word must come in the training stories to be in the vocabulary; others are one unknown word."""
    width: int = 64
    """Of the vectors."""
    layers: int = 1
    """Blocks of the Transformer."""
    dropout: float = 0.1
    """Share of what each sublayer adds that a training step leaves out."""
    batch_size: int = 32
    """Stories in a batch."""
    rates: tuple[float, ...] = (3e-3, 6e-3)
    """Peak learning rates to choose from."""
    epochs: tuple[int, ...] = (4, 8)
    """Lengths of a training to choose from, each with a schedule of its own."""
    held_out: float = 0.1
    """Share of the training stories that the choice is made by."""


FULL = Config(
    seeds="0..9", words=128, layers=2, rates=(1e-3, 2e-3, 4e-3), epochs=(4, 8, 16)
)
FAST = Config(
    FALLBACK,
    "0..1",
    words=12,
    width=8,
    layers=1,
    batch_size=20,
    rates=(3e-2,),
    epochs=(1, 4),
)


class Job(NamedTuple):
    """A training.

    Attributes:
      seed: Of its start, its order and its noise.
      rate: Peak learning rate.
      epochs: Passes over the stories that are learnt from.
      choosing: Whether it is judged by the stories held out, instead of learning from them.
    """

    seed: int
    rate: float
    epochs: int
    choosing: bool = False


def complete(config):
    """The config with the stories that are at hand: the default's, or those that take their place."""
    if config.dataset != CLAIM:
        return config
    try:
        research.datasets.documents()
    except (OSError, ImportError) as problem:
        words = f"warning: {problem} Going on with {FALLBACK} stories, --fast, and of your flags --seeds alone."
        print(words, file=sys.stderr)
        return dataclasses.replace(FAST, seeds=config.seeds)
    return config


def run(config, on_progress=None, checkpoints=None):
    """Chooses by the stories held out, then trains on all of them, once a seed; and the same for the baselines."""
    from research.studies import story_tables

    checkpoints, on_progress = (
        checkpoints or research.types.no_checkpoints,
        on_progress or (lambda *shown: None),
    )
    split, seeds = read(config.dataset), check(config)
    learnt, held = hold_out(len(split.train_y), config.held_out)
    missing = sorted(set(split.train_y.tolist()) - set(split.train_y[learnt].tolist()))
    if missing:
        raise ValueError(
            f"held_out={config.held_out} leaves {len(learnt)} stories to learn from, and none of {split.classes[missing[0]]}; "
            "hold out fewer."
        )
    trials = [
        Job(CHOICE_SEED, rate, epochs, True)
        for epochs in config.epochs
        for rate in config.rates
    ]
    total = len(BASELINES) + len(trials) + len(seeds)
    counted = {}
    for done, (name, words) in enumerate((("whole", None), ("cut", config.words))):
        on_progress(done, total, BASELINES[name])
        texts = shortened(split.train_texts, words), shortened(split.test_texts, words)
        compute = functools.partial(count_words, *texts, split.train_y, learnt, held)
        counted[name] = research.runs.remembered(checkpoints, name, compute)
    work = functools.partial(
        train_all, config, split, (learnt, held), on_progress, checkpoints, total
    )
    tried = work(trials, len(BASELINES))
    heard = [
        np.nan_to_num(one.arrays["accuracy"][-1], nan=-1) for one in tried
    ]  # NaN: that training diverged.
    best = heard.index(max(heard))  # Of equals the cheapest, slowest.
    jobs = [trials[best]._replace(seed=seed, choosing=False) for seed in seeds]
    trained = work(jobs, len(BASELINES) + len(trials))
    numbers = facts(
        config,
        split,
        counted,
        list(zip(trials, tried, strict=True)),
        trials[best],
        trained,
    )
    tables = story_tables.story_tables(numbers, LABELS, "transformer")
    return research.runs.Result(
        answer(numbers), tables, arrays(split, trained), numbers
    )


def read(dataset):
    """The stories."""
    if dataset == CLAIM:
        return research.datasets.documents()
    if dataset == FALLBACK:
        return fabricated()
    raise ValueError(f"dataset must be {CLAIM} or {FALLBACK}; got dataset={dataset!r}.")


def fabricated(num_train=120, num_test=60, num_classes=3, length=15):
    """Stories whose words are common ones, but for three in ten that belong to the topic; no order."""
    rng, classes = np.random.default_rng(0), [f"topic {k}" for k in range(num_classes)]
    labels = rng.integers(num_classes, size=num_train + num_test).astype(np.int32)
    numbers = rng.integers(20, size=(len(labels), length))
    topical = rng.random((len(labels), length)) < 0.3
    kinds = np.where(topical, np.array(["a", "b", "c"])[labels][:, None], "w")
    texts = [
        " ".join(f"{kind}{number}" for kind, number in zip(*row, strict=True))
        for row in zip(kinds, numbers, strict=True)
    ]
    return research.datasets.DocumentSplit(
        FALLBACK,
        texts[:num_train],
        labels[:num_train],
        texts[num_train:],
        labels[num_train:],
        tuple(classes),
    )


def check(config):
    """The seeds, once the config makes sense."""
    for name in ("words", "least_count", "width", "layers", "batch_size"):
        if getattr(config, name) < 1:
            raise ValueError(
                f"{name} must be a positive integer; got {name}={getattr(config, name)}."
            )
    for name in ("rates", "epochs"):
        values = getattr(config, name)
        if (
            not values
            or not all(0 < value < np.inf for value in values)
            or list(values) != sorted(set(values))
        ):
            raise ValueError(
                f"{name} must be positive, ascending, at least one; got {name}={values}."
            )
    if not 0 < config.held_out < 1:
        raise ValueError(
            f"held_out is a share, between 0 and 1; got held_out={config.held_out}."
        )
    make_model(config, 2, 2)  # Refuses widths and dropout before anything is trained.
    return research.runs.parse_seeds(config.seeds)


def hold_out(n, share):
    """Which training stories are learnt from while choosing, and which are held out."""
    order = np.random.default_rng(SPLIT_SEED).permutation(n)
    held = max(1, round(share * n))
    return np.sort(order[held:]), np.sort(order[:held])


def shortened(texts, words):
    """The first words of each text; None: all."""
    return (
        list(texts)
        if words is None
        else [" ".join(text.split()[:words]) for text in texts]
    )


def count_words(train_texts, test_texts, labels, learnt, held, parts):
    """The baseline: its C chosen by what is held out, then trained on everything; and what it makes of the test stories."""
    del parts  # It takes seconds.
    texts, scores = np.array(train_texts, dtype=object), []
    for strength in STRENGTHS:
        model = fit_counts(texts[learnt], labels[learnt], strength)
        scores.append(float(np.mean(model.predict(texts[held]) == labels[held])))
    strength = STRENGTHS[int(np.argmax(scores))]
    model = fit_counts(texts, labels, strength)
    values = {"C": strength, "tried": list(zip(STRENGTHS, scores, strict=True))}
    return research.types.Saved(
        {"probabilities": model.predict_proba(test_texts)}, values
    )


def fit_counts(texts, labels, strength):
    """TF-IDF of words that come in two stories or more, with 1 + log of their counts; then logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    weights = TfidfVectorizer(
        sublinear_tf=True, min_df=2, lowercase=False, token_pattern=r"\S+"
    )
    return make_pipeline(weights, LogisticRegression(C=strength, max_iter=1000)).fit(
        texts, labels
    )


def train_all(config, split, halves, on_progress, checkpoints, total, jobs, first):
    """Every job, as `train` saves it; those of an earlier process from their checkpoints."""
    saved = []
    for done, job in enumerate(jobs, first):
        purpose = (
            f"rate {job.rate:g}, {job.epochs} epochs"
            if job.choosing
            else f"seed {job.seed}"
        )

        def watch(share, words, done=done, purpose=purpose):
            on_progress(done + share, total, f"Transformer, {purpose}, {words}")

        name = "/".join(map(str, job))
        compute = functools.partial(train, job, config, split, halves, watch)
        saved.append(research.runs.remembered(checkpoints, name, compute))
    on_progress(first + len(jobs), total, "done")
    return saved


def train(job, config, split, halves, watch, parts):
    """One training: loss, accuracy and macro-F1 by epoch, and what it makes of each story that it is judged by."""
    import jax

    from research.studies import confusions

    (train_texts, train_y), (texts, y) = parted(job, split, halves)
    vocabulary = research.datasets.make_vocabulary(train_texts, config.least_count)
    learn, judge = (
        tokens_of(each, vocabulary, config.words) for each in (train_texts, texts)
    )
    research.models.check_sequences(learn, len(vocabulary) + 1)
    model = make_model(config, len(vocabulary) + 1, len(split.classes))
    key_init, key_epochs = (
        jax.random.fold_in(jax.random.key(job.seed), child) for child in range(2)
    )
    sampler = research.samplers.minibatch(len(train_y), config.batch_size)
    schedule = research.schedules.one_cycle(
        job.rate, job.epochs * sampler.num_batches, WARMUP
    )
    predict = jax.jit(lambda params, x: jax.nn.softmax(model.apply(params, x)))

    def evaluate(params):
        counts = confused(
            y, found := probabilities(predict, params, judge), len(split.classes)
        )
        scores = {
            "accuracy": np.trace(counts) / counts.sum(),
            "macro_f1": confusions.macro_f1(counts),
        }
        return scores if np.isfinite(found).all() else dict.fromkeys(scores, np.nan)

    trained = research.descent.train(
        research.objectives.empirical_risk(
            model, research.losses.softmax_cross_entropy
        ),
        research.update_rules.adam(schedule),
        research.types.Batch(learn, train_y),
        sampler,
        num_epochs=job.epochs,
        params=model.init(key_init),
        key=key_epochs,
        evaluate=evaluate,
        noisy=config.dropout > 0,
        on_progress=watch,
        checkpoint=parts("training"),
    )
    if trained.first_bad_step >= 0 and not job.choosing:
        raise ValueError(
            f"The Transformer at rate {job.rate:g} diverges in step {trained.first_bad_step}."
        )
    found = trained.evaluations | {
        "loss": trained.steps.loss.mean(axis=1),
        "probabilities": probabilities(predict, trained.params, judge),
    }
    values = {
        "seconds": trained.seconds,
        "parameters": research.models.count_parameters(trained.params),
    }
    values |= {"symbols": len(vocabulary) + 1, "first_bad_step": trained.first_bad_step}
    return research.types.Saved(found, values)


def parted(job, split, halves):
    """(texts, labels) to learn from and to be judged by: training and test stories, or two parts of the training stories."""
    if not job.choosing:
        return (split.train_texts, split.train_y), (split.test_texts, split.test_y)
    return tuple(
        ([split.train_texts[i] for i in half], split.train_y[half]) for half in halves
    )


def tokens_of(texts, vocabulary, words):
    """The first words of each text, padded."""
    encoded: Any = research.datasets.encode(texts, vocabulary, words)
    return research.types.Sequences(*encoded)


def make_model(config, symbols, num_classes):
    """The encoder."""
    sizes = {
        "width": config.width,
        "num_layers": config.layers,
        "num_heads": HEADS,
        "hidden": 2 * config.width,
    }
    return research.models.transformer_encoder(
        symbols,
        config.words,
        num_classes,
        **sizes,
        dropout=config.dropout,
        dtype="float32",
    )


def probabilities(predict, params, sequences):
    """Of each class, for each story, shape (n, K)."""
    n = len(sequences.length)
    slices = (
        type(sequences)(*(a[at : at + SLICE] for a in sequences))
        for at in range(0, n, SLICE)
    )
    return np.concatenate([predict(params, x) for x in slices])


def confused(labels, probabilities, num_classes):
    """How often each topic (row) was taken for each (column)."""
    from research.studies import confusions

    return confusions.count_confusions(
        labels, probabilities.argmax(axis=1), num_classes
    )


def facts(config, split, counted, tried, chosen, trained):
    """What came out, as JSON."""
    from research.studies import confusions

    num_classes, studies = len(split.classes), research.studies
    rows = []
    for name, saved in counted.items():
        counts = confused(split.test_y, saved.arrays["probabilities"], num_classes)
        scores = [
            studies.mean_interval([v])
            for v in (np.trace(counts) / counts.sum(), confusions.macro_f1(counts))
        ]
        by_class = confusions.recalls(counts).tolist()
        reads = "all words" if name == "whole" else f"{config.words} words"
        row = {
            "name": name,
            "accuracy": scores[0],
            "macro_f1": scores[1],
            "by_class": by_class,
            "reads": reads,
        }
        rows.append(row | saved.values)
    counts = [
        confused(split.test_y, saved.arrays["probabilities"], num_classes)
        for saved in trained
    ]
    scores = {
        name: studies.mean_interval([saved.arrays[name][-1] for saved in trained])
        for name in ("accuracy", "macro_f1")
    }
    by_class = np.mean([confusions.recalls(c) for c in counts], axis=0).tolist()
    seconds = float(np.median([saved.values["seconds"] for saved in trained]))
    rows.append(
        {"name": "transformer", "by_class": by_class, "reads": f"{config.words} words"}
        | trained[0].values
        | scores
        | {"seconds": seconds}
    )
    lengths = np.array([len(text.split()) for text in split.train_texts])
    return {row["name"]: row["accuracy"][0] for row in rows} | {
        "dataset": config.dataset,
        "n_train": len(split.train_y),
        "n_test": len(split.test_y),
        "held_out": len(hold_out(len(split.train_y), config.held_out)[1]),
        "seeds": len(trained),
        "words": config.words,
        "whole_stories": float(np.mean(lengths <= config.words)),
        "classes": list(split.classes),
        "shares": (
            np.bincount(split.test_y, minlength=num_classes) / len(split.test_y)
        ).tolist(),
        "models": rows,
        "rate": chosen.rate,
        "epochs": chosen.epochs,
        "tried": [
            job._asdict() | {"accuracy": float(saved.arrays["accuracy"][-1])}
            for job, saved in tried
        ],
        "errors": confusions.commonest_errors(counts[0], split.classes),
        "worst": worst(
            split,
            trained[0].arrays["probabilities"],
            counted["whole"].arrays["probabilities"],
        ),
    }


def worst(split, probabilities, counted):
    """The errors of one network that it was surest of: (beginning, topic, taken for, its probability, the baseline's)."""
    predicted, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != split.test_y)
    rows = wrong[np.argsort(-sure[wrong], kind="stable")][:WORST]
    name = lambda k: split.classes[int(k)]
    beginning = lambda text: " ".join(text.split()[:BEGINNING])
    said = lambda i: (
        name(split.test_y[i]),
        name(predicted[i]),
        float(sure[i]),
        name(counted[i].argmax()),
    )
    return [[beginning(split.test_texts[i]), *said(i)] for i in rows]


def arrays(split, trained):
    """What the figures are drawn from; of a single network, that of the first seed."""
    kept = {
        name: np.stack([saved.arrays[name] for saved in trained])
        for name in ("accuracy", "macro_f1", "loss")
    }
    return kept | {
        "confusions": confused(
            split.test_y, trained[0].arrays["probabilities"], len(split.classes)
        )
    }


def percent(interval):
    """97.4 %, with its interval where there is one."""
    mean, low, high = interval
    return f"{100 * mean:.1f} %" + (
        "" if low is None else f" ({100 * low:.1f} to {100 * high:.1f})"
    )


def answer(numbers):
    """Which of the two sorts better, and by how much."""
    whole, cut, network = numbers["models"]
    mean, low, high = network["accuracy"]
    best = max(whole["accuracy"][0], cut["accuracy"][0])
    verdict = (
        "Yes"
        if (low or mean) > best
        else "No"
        if (high or mean) < best
        else "Not for certain"
    )
    seeds = research.statistics.seeds_in_words(numbers["seeds"])
    found = (
        f"{verdict}: of {numbers['n_test']:,} test stories the Transformer sorts {percent(network['accuracy'])} rightly "
        f"({seeds}; macro-F1 {network['macro_f1'][0]:.3f}), TF-IDF with logistic regression "
        f"{percent(whole['accuracy'])} ({whole['macro_f1'][0]:.3f}), and {percent(cut['accuracy'])} from the first "
        f"{numbers['words']} words, which is all that the Transformer sees."
    )
    if numbers["dataset"] == CLAIM:
        return found
    instead = "To sort Reuters', leave out --fast and --dataset. This brings them: descent data fetch"
    return f"NOT THE CLAIM: these stories are fabricated. {found} {instead} {CLAIM}"


def draw(result):
    """Accuracy by epoch, and what is taken for what."""
    from research.figures import stories

    return stories.draw(result, BASELINES)


if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
