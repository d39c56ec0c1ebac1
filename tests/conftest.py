"""Strictness for every test, once: float64, no rank promotion, no key used twice
(`forget_programs` has an exception); setup.cfg makes warnings errors.
"""

import collections
import functools
import gc
import importlib.util
import inspect
import math
import os
import re
import signal
import sys
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "agg")
# Two workers share two cores. A thread of NumPy's linear algebra that waits for another
# keeps its core busy. These lines are for libraries that are loaded later and for
# processes that a test starts; threadpool_limits below, for NumPy, which a plugin has
# loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax
import pytest
import threadpoolctl

from research import backend, report
from research.runs import _environment

threadpoolctl.threadpool_limits(1)

HERE = Path(__file__).parent
# `make test-floor` runs these on the lower bounds too, each package's by the tests of
# what uses it; all else runs on the newest versions.
EVERY_VERSION = (
    *(
        "datasets/",
        "derivatives/test_certified",
        "derivatives/test_check",
        "derivatives/test_exact",
        "derivatives/test_ledger.py",
        "fuzz/test_public_calls",
        "laws/",
        "models/",
    ),
    *(
        "test_checkpoints",
        "test_cli.py",
        "test_datasets",
        "test_descent",
        "test_sweep",
        "test_losses",
        "test_minimise",
    ),
    *(
        "test_models",
        "test_objectives",
        "test_optima",
        "test_report",
        "test_runs",
        "test_samplers",
        "test_schedules",
    ),
    *(
        "test_tuning.py",
        "test_study_figures",
        "test_training",
        "test_update_rules",
        "test_workloads",
    ),
)
# Of these, what takes minutes. What optax's versions differ in, the arguments of its
# rules, is met where each is traced.
NEWEST_ALONE = (
    *(
        "test_rule_is_what_every_authority_says",
        "test_rates_under_vmap_equal_rates_in_a_loop",
    ),
    "test_eager_equals_jit_and_a_loop_equals_a_scan",
    # optax 0.2.6 does not have madgrad.
    "test_optax_takes_the_arguments_of_the_card[madgrad]",
)
# Of these, what `.ci/run` runs on the lower bounds: one valid call of every public
# function; of a test of several cases one case in twelve; of the tests with one case
# every sixth. The next test of as many cases begins at the next case: twelve laws for
# every rule meet every rule. `make test-floor` has all tests and all cases.
ONE_CASE_IN, ONE_TEST_IN = 12, 6
ALWAYS = "test_every_valid_call_is_accepted"
# Slow tests that the lower bounds do not meet in `.ci/run`, and what meets there what
# they call. The start of a transformer and the noise in it: the numbers of its other
# tests. Mini-batches: test_descent and test_training. The curvature of a certified
# minimum, erf and a scaled problem: the other certified points. Pictures with the same
# bytes: the other pictures. Wrong arguments: the right ones.
NOT_SAMPLED = (
    "test_the_initial_point_is_as_it_is_told",
    "test_no_key_means_no_noise_and_each_key_its_own",
    "test_mini_batches_reach_a_hundredth_of_the_start",
    "test_curvature_is_bounded_and_the_bound_is_close",
    "test_erf_and_its_derivative_are_enclosed",
    "test_scaling_by_powers_of_two_scales_the_points",
    "test_same_arrays_give_the_same_bytes",
    "test_wrong_arguments_are_refused_by_name",
)
# What `make nightly` runs alone, with what of its law is met each time. The first: each
# rule in float64. The laws of a rule on params of several leaves: the authorities'
# problems have several, and vmap is met on them. The places where a rule stands: one
# for each rule, each place with several. Other dtypes of params without numbers: empty
# arrays. The lessons: the others; `.ci/run` runs the code of all on Colab's versions.
# Coverage: the first two kinds of noise, one comparison, and 200 studies. The names of
# mistakes: the first of each rule; that each departs from its formula is seen each
# time. Gauss-Newton on NIST's regressions: Levenberg-Marquardt. Bits: the linear and
# the logistic sweep, every model on two devices, one older processor. Random functions:
# 40 of each class instead of 100. Hard points, edges, workloads in float32: those of
# make test. Where stochastic descent comes to rest: the number that the reference of
# the experiment keeps.
NIGHTLY = re.compile(
    r"test_rule_is_what_every_authority_says\[\w+-float32\]"
    r"|test_eager_equals_jit_and_a_loop_equals_a_scan\[.*softmax_regression"
    r"|test_a_state_that_was_written_and_read_goes_on_to_the_same_bits\[.*softmax_reg"
    r"|test_rule_works_inside_optax\[.*softmax_regression"
    r"|test_update_takes_arguments_that_nobody_knows_.*-[1-9]\d?\]"
    r"|test_lesson_shows_.*\[(bring_your_own_rule|your_rule_on_a_network|character_language_model)\]"
    r"|test_lesson_shows_.*\[(spoken_words|image_recognition)\]"
    r"|test_interval_covers_at_least_what_it_says_on_other_noise\[(?!.*(heavy|skewed))"
    r"|test_every_mistake_of_a_formula_is_named_as_itself_or_as_one_that_walks_alike"
    r"\[\w+-[1-9]"
    r"|test_(interval_covers_the_truth|planted_tenth_is_found)_.*\[1000\]"
    r"|test_overall_is_the_geometric_mean_.*\[1000\]"
    r"|test_gauss_newton_finds_the_published_parameters"
    r"|test_interval_that_ignores_the_choice_is_narrower"
    r"|test_many_comparisons_call_none_under_the_null"
    r"|test_company_leaves_the_bits_alone\[(mlp|softmax, full)"
    r"|test_chunk_length_leaves_the_bits_alone\[mlp"
    r"|test_(another_process_leaves|four_devices_leave)_the_bits_alone$"
    r"|test_the_pool_enters_the_bits_of_a_full_batch_mlp"
    r"|test_every_cell_has_a_hash_of_its_own"
    r"|test_printed_digits_outlive_an_older_processor\[(AVX2?|SSE4_2)\]"
    r"|test_an_older_processor_enters_the_bits\[SSE4_2\]"
    r"|test_random_functions_are_answered_within_their_bounds\[.*-100\]"
    r"|test_hard_point_is_never_called_what_it_is_not\[(?!1e-5|a valley|sin)"
    r"|test_derivatives_at_edges_are_the_mathematical_ones"
    r"\[(?!abs_cubed|pow|xlogx)"
    r"|test_float32_(is_kept_throughout|optimum_is_that_of_the_float32_data)"
    r"\[(?!diabetes_bmi|breast_cancer_two|quadratic)"
    r"|test_stochastic_descent_comes_to_rest_where_theory_says"
)
# Examples of docstrings that take more than a second. `.ci/run` runs them each time.
SLOW_EXAMPLES = re.compile(
    r"research\.(comparison\.(networks\.compare_networks|_compare\.compare"
    r"|trials\.measure_contenders|network_contenders\.grafted_shampoo)"
    r"|models\.(_cnn\.cnn|transformer\.transformer_(de|en)coder"
    r"|transformer_block\.block|_recurrent\.(recurrence|recurrent))"
    r"|derivatives\.sparse\.sparse_(hessian|jacobian)"
    r"|update_rules\.(_least_squares\.(levenberg_marquardt|gauss_newton)"
    r"|_layerwise\.hyperball|_variance_reduction\.saga)"
    r"|descent\._implicit_minimum\.implicit_minimum"
    r"|verification\._verify_rule\.verify_rule)"
)
# A shell starts a command in the background with these signals ignored, and every
# process that it starts inherits that. The tests of Ctrl-C need them as in a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
MOST_MEMORY = 2.5e9  # Bytes, beyond which a file's programs go with it.
# Packages of the library of which nothing becomes part of a program.
NOT_TRACED = "backend|cli|datasets|leaderboard|report|runs"
# PyTorch is not among the dependencies: `make bench` installs it.
collect_ignore = [] if importlib.util.find_spec("torch") else ["test_torch_mutants.py"]
# Tests that plant mistakes. make test catches every mistake that make test-all catches:
# where such a test leaves cases out, its mark says which test catches the same ones.
PLANTED = re.compile(
    r"mutant|planted_(fault|error)|mistake|slip|_caught|is_seen|_rejected_in"
)
QUICKLY = pytest.StashKey[bool]()  # Whether the file before had COMPILE_QUICKLY.
LIMIT = 600  # Seconds that one test may take; the longest needs a tenth of it.

backend.configure(devices=1, pool=2, x64=True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
# Compiling is most of what a test does: a program that another file, worker or session
# has compiled is read from disk.
jax.config.update(
    "jax_compilation_cache_dir",
    str(Path(__file__).parents[1] / ".pytest_cache" / "programs"),
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
# The same for the processes that tests start.
os.environ["DESCENT_PROGRAMS"] = str(
    Path(__file__).parents[1] / ".pytest_cache" / "programs_of_commands"
)


@functools.cache
def is_for_every_version(path):
    """Whether a file's tests run on the lower bounds too."""
    return path.is_relative_to(HERE) and path.relative_to(HERE).as_posix().startswith(
        EVERY_VERSION
    )


def pytest_collection_modifyitems(config, items):
    """Mark what `make test` leaves out, what runs on every version and at night."""
    check_that_cases_are_kept(items)
    check_that_named_tests_are_kept(items)
    for item in items:
        if is_example(item) and SLOW_EXAMPLES.fullmatch(item.name):
            item.add_marker(pytest.mark.on_ci("an example that takes over a second"))
        if NIGHTLY.match(item.name):
            item.add_marker(pytest.mark.nightly)
        chosen = is_for_every_version(item.path)
        if chosen and not item.name.startswith(NEWEST_ALONE):
            item.add_marker(pytest.mark.every_version)
    for item in sampled(items):
        item.add_marker(pytest.mark.some_versions)
    items.sort(key=lambda item: not (is_example(item) or quick(item, config)))


def pytest_collection_finish():
    """Look for no garbage in what stays to the end: modules and collected tests."""
    gc.collect()
    gc.freeze()


def sampled(items):
    """Return the tests for every version that `.ci/run` runs on the lower bounds."""
    cases = {}
    for item in items:
        left_out = ("thorough", "nightly")
        if (
            item.get_closest_marker("every_version")
            and not any(map(item.get_closest_marker, left_out))
            and not item.name.startswith(NOT_SAMPLED)
        ):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    firsts, chosen = collections.Counter(), []
    for found in cases.values():
        first = firsts[len(found)]
        firsts[len(found)] += 1
        if len(found) > 1:
            chosen += found[first % min(ONE_CASE_IN, len(found)) :: ONE_CASE_IN]
        elif first % ONE_TEST_IN == 0 or found[0].name == ALWAYS:
            chosen += found
    return chosen


def pytest_itemcollected(item):
    """Mark what `make test` leaves out.

    At a test stands @pytest.mark.thorough("what is left out", but="ids that are kept"),
    in a module THOROUGH = {fixture: "what is left out"} for every test that uses one.
    @pytest.mark.on_ci has the same arguments; `.ci/run` runs these tests every time.
    """
    case = item.name.partition("[")[2]
    item.own_markers = [
        mark
        for mark in item.own_markers
        if "but" not in mark.kwargs or not re.search(mark.kwargs["but"], case)
    ]
    module = getattr(item, "module", None)
    for fixture, left_out in getattr(module, "THOROUGH", {}).items():
        if fixture in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.thorough(left_out))


def check_that_cases_are_kept(items):
    """Refuse a mark `thorough` or `on_ci` whose `but` keeps none of a test's cases."""
    cases = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for test, its in cases.items():
        marks = [
            item.get_closest_marker("thorough") or item.get_closest_marker("on_ci")
            for item in its
        ]
        if len(its) > 1 and all(mark and "but" in mark.kwargs for mark in marks):
            raise pytest.UsageError(f"{test}: make test keeps no case of it.")
        if PLANTED.search(test.partition("::")[2]):
            for item, mark in zip(its, marks, strict=True):
                if mark and not is_kept(item, mark.kwargs.get("caught_by", "")):
                    raise pytest.UsageError(
                        f"{item.nodeid} plants a mistake that make test leaves out. "
                        "Say at its mark which test of this file catches the same one "
                        'and stays in make test: thorough(..., caught_by="test_...").'
                    )


def check_that_named_tests_are_kept(items):
    """Refuse a mark `on_ci` whose words name a test that is left out, too.

    This is checked for tests of the same file.
    """
    for item in items:
        mark = item.get_closest_marker("on_ci")
        for test in re.findall(r"\btest_\w+\b(?!\.py)", mark.args[0] if mark else ""):
            if hasattr(item.module, test) and not is_kept(item, test):
                raise pytest.UsageError(
                    f"{item.nodeid}: its mark says that make test has {test}, which "
                    "make test leaves out."
                )


def is_kept(item, test):
    """Whether a test of an item's file is in make test, at least one case of it."""
    function = getattr(item.module, test, None)
    marks = getattr(function, "pytestmark", [])
    return function is not None and not any(
        mark.name in ("thorough", "on_ci", "nightly") and "but" not in mark.kwargs
        for mark in marks
    )


def limited(item):
    """Fail a test, or what sets it up or clears it away, that takes too long."""

    def stop(signum, frame):
        pytest.fail(f"This took longer than {LIMIT} seconds.")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


pytest_runtest_setup = pytest.hookimpl(wrapper=True)(limited)
pytest_runtest_call = pytest.hookimpl(wrapper=True)(limited)
pytest_runtest_teardown = pytest.hookimpl(wrapper=True)(limited)


@pytest.fixture(scope="module")
def asked_once():
    """git and the files of the package are asked once, not for each run of a file."""
    digest = _environment.code_digest
    of_package = functools.cache(digest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            _environment, "git_state", functools.cache(_environment.git_state)
        )
        patch.setattr(
            _environment,
            "code_digest",
            lambda files=(): digest(files) if files else of_package(),
        )
        yield


@pytest.fixture
def enable_x64():
    """enable_x64(on): a context with or without float64; in jax up to 0.8, it is in
    jax.experimental.
    """
    return (jax if hasattr(jax, "enable_x64") else jax.experimental).enable_x64


@pytest.fixture
def float64_off(enable_x64):
    """A context without float64."""
    return enable_x64(False)


@pytest.fixture
def headline_of():
    """answer -> its first sentence, the title of a report: it holds no command, no
    flag, no markup.
    """

    def headline_of(answer):
        headline = report.first_sentence(answer)[0]
        assert headline.endswith(".")
        assert not re.search(
            r"[`*_]{2}|`|(?<!\w)--?[a-z]|[Pp]ython -|\bpip\b", headline
        ), headline
        return headline

    return headline_of


def memory():
    """Bytes that this process holds; infinitely many where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text("utf-8").split()[1]
    except OSError:
        return math.inf
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def is_fast(config):
    """Whether slow tests are left out."""
    return bool(re.search("not thorough|some_versions", config.getoption("markexpr")))


def quick(node, config, name="COMPILE_QUICKLY"):
    """Whether the file of a test has `name` = True, and slow tests are left out."""
    module = getattr(node, "module", None)
    return is_fast(config) and getattr(module, name, False)


def optimise_less(quickly, config):
    """Let XLA optimise programs less, or as always."""
    if quickly != config.stash.get(QUICKLY, False):
        jax.clear_caches()
    config.stash[QUICKLY] = quickly
    jax.config.update("jax_disable_most_optimizations", quickly)


def is_example(item):
    """Whether an item is the example of a docstring of the library."""
    return isinstance(item, pytest.DoctestItem) and HERE not in item.path.parents


class Examples:
    """A plugin that compiles the examples of docstrings quickly, too.

    They lie outside of this folder, so `forget_programs` does not apply to them.
    """

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item):
        if is_example(item):
            optimise_less(is_fast(item.config), item.config)


def pytest_configure(config):
    config.pluginmanager.register(Examples())


@pytest.fixture(autouse=True, scope="module")
def forget_programs(request):
    """Keep compiled programs for the next file, while they do not fill a small machine.

    A file that replaces parts of the library loses them before its first replacement
    and at its end: a program that was traced before would not see the replacement, and
    one traced with it would be met later.

    A file with COMPILE_QUICKLY = True has large programs that run for a moment, and its
    laws hold whatever XLA makes of them: in the form without slow tests, XLA optimises
    them less, which takes about three quarters of the time. `make test-all` has the
    programs as users have them. Bits that such a file compares are all of such
    programs; no file that reads recorded bits may have it, and one that starts a
    process only beside CHILDREN_COMPILE_QUICKLY = True: the processes that such a file
    starts do the same. These files come first, so that a worker changes its mind once.

    A file with DRAWS_NO_KEYS = True runs no function of the library that draws with
    JAX's keys. In the form without slow tests, JAX does not look there for a key that
    is used twice: this takes longer than a call of a small program.
    """
    optimise_less(quick(request, request.config), request.config)
    is_watched = not quick(request, request.config, "DRAWS_NO_KEYS")
    jax.config.update("jax_debug_key_reuse", is_watched)
    if quick(request, request.config, "CHILDREN_COMPILE_QUICKLY"):
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    Replacing.replaced = False
    yield
    jax.config.update("jax_debug_key_reuse", True)
    os.environ.pop("JAX_DISABLE_MOST_OPTIMIZATIONS", None)
    if Replacing.replaced or memory() > MOST_MEMORY:
        jax.clear_caches()


class Replacing(pytest.MonkeyPatch):
    """pytest's, which forgets programs before a file's first replacement in one."""

    replaced = False

    def setattr(self, target, *given, **options):
        self._forget_before(target)
        super().setattr(target, *given, **options)

    def setitem(self, dic, name, value):
        if dic is not sys.modules:
            self._forget_before(jax if isinstance(dic, dict) else dic)
        super().setitem(dic, name, value)

    @staticmethod
    def _forget_before(target):
        if not Replacing.replaced and may_be_traced(target):
            Replacing.replaced = True
            jax.clear_caches()


def may_be_traced(target):
    """Whether what belongs to a module, class or object may be a part of a program."""
    if not isinstance(target, str):
        owner = getattr(target, "__module__", type(target).__module__)
        target = target.__name__ if inspect.ismodule(target) else owner
    ours = "research|experiments|benchmarks|tests|jax|optax"
    return bool(re.match(rf"({ours})\b(?!\.({NOT_TRACED})\b)", target))


@pytest.fixture
def monkeypatch():
    """pytest's own, but that programs never outlive a replacement in them."""
    replacing = Replacing()
    yield replacing
    replacing.undo()
