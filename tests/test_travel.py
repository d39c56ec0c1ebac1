"""Laws of a study that travels: it is drawn from its numbers, and its rules are
shown and never run.
"""

import functools
import importlib.util
import random
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import optax
import pytest

from research import comparison, leaderboard, report, runs, update_rules
from research.cli import commands, received
from research.comparison import network_tables
from research.comparison.archive import read_study
from research.comparison.configs import compare_config, networks_config
from research.comparison.contenders import Contender
from research.comparison.network_contenders import network_contenders
from research.comparison.networks import LENGTH_FACTORS, conclude_networks
from research.comparison.origins import IN_PYTHON, origin
from research.runs import archive
from research.runs.command import parse_seeds, seeds_text
from research.tuning import SPACES, Range, parse_range, range_text
from research.types import Saved

RULE = "import optax\n\n\ndef mine(rate):\n    return optax.sgd(rate)\n"
TERMS = {
    **{"budget": 1, "passes": 5, "target": 0.9, "searches": 2, "width": 2},
    **{"seeds": 3, "tuning_seeds": [1000, 1001, 1002, 1003]},
}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The rule `mine` of a module in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("my_rules.py").write_text(RULE)
    spec = importlib.util.spec_from_file_location("my_rules", "my_rules.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "my_rules", module)
    spec.loader.exec_module(module)
    return module.mine


def command(capsys, *words):
    """The status, standard output and standard error of one command."""
    capsys.readouterr()
    try:
        status = commands.main([str(word) for word in words])
    except SystemExit as end:
        status = end.code
    return status, *capsys.readouterr()


def report_path(out):
    """The path of the report that a command printed."""
    return Path(re.findall(r"report: (.+)", out)[0])


def pictures(page):
    """The pictures of a report."""
    found = re.findall(r'src="(data:image/svg[^"]+)"', page)
    assert found
    return found


def numbers_of(rules, spaces=None, evaluations=None, own=(), **terms):
    """What of a study's numbers its config is made from."""
    contenders = comparison.make_contenders(
        rules, spaces=spaces, evaluations=evaluations
    )
    protocol = comparison.make_protocol(**terms)
    return {
        "protocol": protocol._asdict(),
        "baseline": contenders[-1].name,
        "rules": [one.name for one in contenders],
        "spaces": {
            one.name: {name: list(ends) for name, ends in one.space.items()}
            for one in contenders
        },
        "evaluations": {one.name: one.evaluations for one in contenders},
        "workloads": ["digits"],
        "origin": origin(contenders, own),
    }


# What a study says about itself


def test_texts_of_ranges_and_seeds_come_back():
    draw = random.Random(0)
    for _ in range(300):
        low, high = sorted(draw.random() for _ in range(2))
        range_ = Range(low, high, draw.choice(["log", "linear", "one_minus"]))
        if draw.random() < 0.5:
            range_ = range_._replace(default=draw.uniform(low, high))
        assert parse_range(range_text(range_)) == range_
        seeds = draw.sample(range(30), draw.randint(1, 20))
        assert parse_seeds(seeds_text(seeds)) == tuple(seeds)


def test_config_of_a_study_in_python_gives_its_arguments_back(mine):
    draw = random.Random(1)
    known = {"adam": "adam", "heavy_ball": "heavy_ball", "mine": mine}
    known |= {"a": update_rules.adam, "o": optax.sgd, "dog": optax.contrib.dog}
    find = lambda word: {
        "my_rules.py:mine": mine,
        "optax.sgd": optax.sgd,
        "optax.contrib.dog": optax.contrib.dog,
    }.get(word, word)
    for _ in range(60):
        chosen = {name: known[name] for name in draw.sample(list(known), 3)}
        rate = lambda name: {"mine": "rate"}.get(name, "learning_rate")
        spaces = {
            name: {rate(name): Range(1e-3, draw.choice([0.5, 1.0]), "log", 0.25)}
            for name in chosen
            if draw.random() < 0.5
        }
        costs = {name: 2.0 for name in chosen if draw.random() < 0.3}
        terms = {"batch_size": draw.choice([None, 16]), "budget": draw.randint(2, 9)}
        numbers = numbers_of(chosen, spaces, costs, **terms)
        config = compare_config(numbers)
        assert "in_python" not in config
        words = comparison.parse_command(
            config["rule"],
            find,
            spaces=config.get("space", ()),
            evaluations=config.get("evaluations", ()),
            batch_size=config["batch_size"],
            seeds=config["seeds"],
            tuning_seeds=config["tuning_seeds"],
            budget=config["budget"],
        )
        again = numbers_of(
            words.pop("rules"),
            words.pop("spaces"),
            words.pop("evaluations"),
            **{k: v for k, v in words.items() if k != "baseline"},
        )
        assert {k: v for k, v in again.items() if k != "origin"} == {
            k: v for k, v in numbers.items() if k != "origin"
        }
        recorded = comparison.digest_files(config["rule"])
        assert tuple(config.get("files", ())) == recorded


def test_rule_without_name_or_file_is_said_to_be_in_python():
    rules = {"made": optax.sgd(0.1), "lambda": lambda r: optax.sgd(r), "adam": "adam"}
    found = origin(comparison.make_contenders(rules))
    assert found["words"] == {"made": IN_PYTHON, "lambda": IN_PYTHON, "adam": "adam"}
    assert found["code"][0] == {"rules": ["made"], "text": None}
    assert "lambda r: optax.sgd(r)" in found["code"][1]["text"]


def test_a_contender_that_no_flag_describes_is_said_as_a_call():
    space = {"learning_rate": Range(1e-4, 1.0)}
    usual = Contender("lion", update_rules.lion, dict(SPACES["lion"]))
    plain = Contender("muon", update_rules.muon, space)
    for given, others in (
        (["adam", usual], None),
        ([Contender("adam", update_rules.adam, space), "lion"], ["adam"]),
        ([Contender("adam", optax.adam, space), "lion"], ["adam"]),
    ):
        numbers = numbers_of(given)
        assert numbers["origin"].get("contenders") == others
        assert ("in_python" in compare_config(numbers)) == (others is not None)
    # On networks, the name muon stands for another constructor.
    for given, others in (([plain, "adam"], ["muon"]), (["muon", "adam"], None)):
        contenders = network_contenders(given)
        found = origin(contenders, make=network_contenders)
        assert found.get("contenders") == others


@pytest.mark.parametrize("change", [{"level": 0.9}, {"own": ["digits"]}])
def test_what_no_flag_can_say_is_said_as_a_call(change):
    config = compare_config(numbers_of(["adam", "lion"], **change))
    assert config["in_python"].startswith("research.comparison.compare(rules, ['digi")
    compile(config["in_python"], "call", "eval")


@pytest.mark.parametrize(
    ("word", "own", "depends"),
    [
        ("adam", [], False),
        ("rules.py:mine", [], False),
        (IN_PYTHON, [], True),
        ("adam", ["digits"], True),
    ],
)
def test_the_results_are_part_of_the_id_if_only_python_can_repeat_them(
    word, own, depends
):
    config = {"rule": ["mine"], "files": ["rules.py 12"]}
    facts = {"words": {"mine": word}, "own": own, "code": []}

    def config_of(value):
        arrays = {"costs": np.full(3, value)}
        study = comparison.Study("", (), arrays, {"origin": facts})
        return comparison.archive._identified(config, study)

    one, again, other = map(config_of, (1.0, 1.0, 2.0))
    assert one == again
    assert (one != other, one != config) == (depends, depends)


def test_sources_are_shown_whole_once_and_as_text(mine):
    twice = {"a": mine, "b": mine, "part": functools.partial(optax.sgd, momentum=0.9)}
    numbers = {"origin": origin(comparison.make_contenders(twice))}
    (both, text), (part, other) = report.rule_sources(numbers)
    assert (both, text, part) == ("a, b", RULE, "part")
    assert other is not None
    assert other.startswith("functools.partial(sgd, momentum=0.9)\n")
    assert "def sgd(" in other


@pytest.mark.parametrize(
    "hostile",
    [3, {"code": 3}, {"code": [3, {}, {"rules": "a", "text": ""}]}, {"code": [{}]}]
    + [{"code": [{"rules": [3], "text": "a"}]}, {"code": [{"rules": ["a"]}]}],
)
def test_malformed_sources_are_left_out(hostile):
    assert report.rule_sources({"origin": hostile}) == []


# The file


def saved(folder, numbers=None, config=None, experiment="compare"):
    run = runs.open_run(experiment, config or {"seed": 0}, folder)
    table = runs.Table("Steps", ("rule", "steps"), (("adam", 3),))
    return runs.finish(run, runs.Result("So.", (table,), {}, numbers or {})).path


def test_report_travels_and_only_people_read_it(tmp_path):
    run = saved(tmp_path)
    before = archive.read_contents(archive.pack(run, tmp_path / "bare.zip"))
    nasty = b"<script>document.title = 'owned'</script>"
    (run / "report.html").write_bytes(nasty)
    packed = archive.pack(run, tmp_path / "full.zip")
    with zipfile.ZipFile(packed) as file:
        assert file.read("report.html") == nasty
    assert archive.read_contents(packed)._replace(name="bare.zip") == before
    again = archive.unpack(packed, tmp_path / "again")
    assert not (again / "report.html").exists()


def test_report_that_is_not_listed_or_changed_is_refused(tmp_path):
    run = saved(tmp_path)
    (run / "report.html").write_bytes(b"<p>")
    with zipfile.ZipFile(archive.pack(run, tmp_path / "a.zip")) as file:
        members = {name: file.read(name) for name in file.namelist()}
    for report_, sums, told in (
        (b"<p>!", members["SHA256SUMS"], "was altered"),
        (b"<p>", b"", "its SHA256SUMS do not list"),
    ):
        with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
            for name, data in members.items():
                changed = {"report.html": report_, "SHA256SUMS": sums}.get(name, data)
                file.writestr(zipfile.ZipInfo(name), changed)
        with pytest.raises(ValueError, match=told):
            archive.read_contents(tmp_path / "b.zip")


# Files that a stranger's config names


def fields(rule, files=()):
    return {"rule": list(rule), "files": list(files)}


def test_no_file_is_run_that_a_stranger_names(tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (tmp_path / "evil.py").write_text(RULE)
    (here / "evil.py").write_text(RULE + "# Another content.\n")
    (here / "link.py").symlink_to(tmp_path / "evil.py")
    digest = comparison.digest_files([f"{tmp_path}/evil.py:mine"])[0]
    for word in (
        f"{tmp_path}/evil.py:mine",
        "../evil.py:mine",
        "evil.py:mine",
        "link.py:mine",
        "gone.py:mine",
        "mine=\x1b[2J.py:mine",
        IN_PYTHON,
    ):
        with pytest.raises(received.NotHereError, match="--rule") as caught:
            received.with_files(fields([word], [digest]), [], here, trusted=False)
        assert str(caught.value).isprintable()
    own = comparison.digest_files(["evil.py:mine"])
    assert received.with_files(
        fields(["evil.py:mine"], own), [], here, trusted=False
    ) == {"rule": ["mine=evil.py:mine"], "files": list(own)}


def test_given_file_takes_the_place_of_the_one_that_was_sent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("theirs.py").write_text(RULE)
    Path("other.py").write_text(RULE + "\n")
    config = fields(
        ["v1=a/mine.py:mine", "adam"], comparison.digest_files(["theirs.py:x"])
    )
    place = lambda *given: received.with_files(config, given, tmp_path, trusted=False)
    expected = ["v1=theirs.py:mine", "adam"]
    for given in ("theirs.py", "theirs.py:mine", "v1=theirs.py", "v1=theirs.py:mine"):
        assert place(given)["rule"] == expected, given
    for given, told in (
        ("other.py", r"other\.py is not the file of v1 in the study: its SHA-256 is"),
        ("adam=theirs.py:mine", r"that comes from a file \(v1\); got 'adam=theirs"),
        ("theirs", r"--rule must be RULE=FILE\.py:NAME"),
    ):
        with pytest.raises(ValueError, match=told):
            place(given)
    with pytest.raises(FileNotFoundError, match=r"'gone\.py' does not exist"):
        place("gone.py")


def test_a_changed_module_of_a_given_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("import helper\n" + RULE)
    Path("helper.py").write_text("FACTOR = 1.0\n")
    config = fields(["mine.py:mine"], comparison.digest_files(["mine.py:mine"]))
    place = lambda: received.with_files(config, [], tmp_path, trusted=False)
    assert place()["files"] == config["files"]
    Path("helper.py").write_text("FACTOR = 2.0\n")
    with pytest.raises(ValueError, match=r"helper\.py, which mine\.py imports, is not"):
        place()
    config["files"] = config["files"][:1]  # An older study has no such record.
    assert place()["files"][0] == config["files"][0]


# Studies on networks


def network_study(rule="mine"):
    """A study of made-up losses, with every entry that `compare_networks` saves."""
    generator = np.random.default_rng(0)
    facts = {
        **{"network": "gpt", "hyperparameters": [], "chosen": {}, "evaluations": 1.0},
        **{"diverged": 0.0, "trainings": 9, "num_steps": 100, "batch_size": 8},
        **{"parameters": 50, "seconds_per_step": 0.001, "warmup": 0.1, "decay": 0.0},
    }
    measured = {}
    for name, shift in ((rule, -0.1), ("adam", 0.0)):
        logs = shift + 0.01 * generator.normal(size=(3, 4))
        arrays = {
            **{"logs": logs, "bad": np.zeros(logs.shape, bool)},
            **{"accuracy": np.full(logs.shape, 0.5), "update_rms": np.ones((3, 4))},
            "curves": np.exp(generator.normal(size=(12, 6))),
        }
        measured["gpt", name] = Saved(arrays, facts | {"rule": name})
    factors = np.array(LENGTH_FACTORS)
    longer = {"gpt": Saved({"factors": factors, "logs": -0.2 * np.log(factors)}, None)}
    protocol = comparison.make_protocol(searches=3, seeds=4, tuning_seeds=3)
    made = conclude_networks(protocol, "adam", [rule, "adam"], measured, longer)
    contenders = comparison.make_contenders({"mine": lambda r: optax.sgd(r)})
    spaces = {rule: {"r": [1e-5, 10.0, "log", None]}, "adam": {}}
    made.numbers.update(network_study=1, size="small", spaces=spaces)
    made.numbers.update(search_schedule=True, evaluations={rule: 1.0, "adam": 1.0})
    made.numbers["sources"] = {rule: 64 * "a", "adam": 64 * "b"}
    words = {"words": {rule: IN_PYTHON, "adam": "adam"}, "own": ["gpt"]}
    made.numbers["origin"] = origin(contenders) | words
    return made


@pytest.mark.on_ci(
    "a whole way; test_redrawing_survives_numbers_of_any_kind has its middle, and "
    "test_leaderboard.py a leaderboard"
)
def test_study_on_networks_travels(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = network_study().save()
    assert {"steps.svg", "curves.png", "report.html"} <= {
        f.name for f in folder.iterdir()
    }
    page = (folder / "report.html").read_text("utf-8")
    assert "lambda r: optax.sgd(r)" in page
    assert "data:image/svg+xml" in page
    assert runs.read_manifest(folder)["command"].startswith("research.comparison.comp")
    assert command(capsys, "pack", folder, "--output", "a.zip")[0] == 0
    status, out, err = command(capsys, "reproduce", "a.zip")
    assert (status, err) == (0, "")
    again = report_path(out)
    assert pictures(again.read_text("utf-8")) == pictures(page)
    assert "Not trained again: the study used a workload that is not one" in out
    assert (again.parent / "sources/mine.py").read_text() == Path(__file__).read_text()
    status, out, _ = command(capsys, "leaderboard", "a.zip")
    assert status == 0
    assert "mine has the lowest cost in 1 of 1 ranking" in out
    assert "On networks, the cost is the validation loss at the end." in out
    page = Path("leaderboard.html").read_text("utf-8")
    assert page.count('<img src="data:image/svg+xml;base64,') == 1
    assert "Every rule on every network" in page
    assert "Every rule on every workload" not in page


def test_networks_config_says_how_to_make_it_again():
    numbers = network_study().numbers
    numbers["origin"]["own"] = []
    config = networks_config(numbers)
    assert config["rule"] == [f"mine={IN_PYTHON}", "adam"]
    assert config["network"] == ["gpt"]
    assert "in_python" not in config


@pytest.mark.parametrize(
    ("where", "change", "told"),
    [
        ("cells", {"loss": "low"}, r"cells\[0\]\.loss is 'low'"),
        ("cells", {"network": []}, r"cells\[0\]\.network is \[\]"),
        ("cells", {"accuracy": 2.0}, r"cells\[0\]\.accuracy is 2\.0"),
        ("cells", {"num_steps": 0}, r"cells\[0\]\.num_steps is 0"),
        ("cells", {"rule": "adam"}, "cells hold 'adam' on 'gpt' twice"),
        ("comparisons", {"loss_ratio": []}, r"comparisons\[0\]\.loss_ratio is \[\]"),
    ],
)
def test_study_on_networks_that_makes_no_sense_is_refused(
    tmp_path, where, change, told
):
    numbers = network_study().numbers
    numbers[where][0] |= change
    with pytest.raises(ValueError, match=told):
        read_study(saved(tmp_path, numbers, experiment="compare_networks"))


def test_entries_of_the_other_kind_do_no_harm(tmp_path):
    numbers = network_study().numbers
    for one in (*numbers["cells"], *numbers["comparisons"]):
        one |= {"workload": {}, "n": [], "cost": "x", "optimum": []}
    path = saved(tmp_path, numbers, experiment="compare_networks")
    leaderboard.write_leaderboard([path], tmp_path / "page.html")
    both = saved(tmp_path / "b", numbers | {"study": 2}, experiment="compare_networks")
    with pytest.raises(ValueError, match="which is not a study"):
        read_study(both)


def test_a_run_folder_is_not_redrawn_and_says_so(tmp_path, capsys):
    path = saved(tmp_path, network_study().numbers, experiment="compare_networks")
    status, out, _ = command(capsys, "reproduce", path, "--redraw")
    assert (status, out) == (
        0,
        f"{path} is a finished study. Only a .zip file is redrawn.\n",
    )


@pytest.mark.on_ci(
    "six drawings; test_redrawing_survives_numbers_of_any_kind has an answer that "
    "does not agree, but no forged verdict"
)
def test_words_that_do_not_follow_from_the_numbers_do_not_agree(
    tmp_path, capsys, monkeypatch
):
    made = network_study()
    # The page has the source of this file, so the text is not written here.
    forged_answer = " ".join(("mine", "is", "best."))
    first, *rest = made.tables
    row = tuple("worse" if one == "better" else one for one in first.rows[0])
    forged = first._replace(rows=(row, *first.rows[1:]))
    files = {
        "right": made,
        "answer": made._replace(answer=forged_answer),
        "verdict": made._replace(tables=(forged, *rest)),
    }
    config = {"in_python": "compare_networks(...)"}
    seen = {}
    for name, result in files.items():
        experiment = "compare_networks"
        run = runs.open_run(experiment, config, tmp_path / name)
        path = runs.finish(run, runs.Result(*result)).path
        packed = archive.pack(path, tmp_path / f"{name}.zip")
        for other_code in (False, True):
            if other_code:
                monkeypatch.setattr(runs, "code_digest", lambda files=(): "other")
            words = ("reproduce", packed, "--results", tmp_path / f"{other_code}")
            status, out, _ = command(capsys, *words)
            page = report_path(out).read_text("utf-8")
            assert "mine reaches" in page
            seen[name, other_code] = status, "Does not agree: " in out
            assert ("reads differently" in out) == (name == "answer")
            assert (forged_answer in page) == (name == "answer")
            assert ("has worse as 'verdict' of mine" in out) == (name == "verdict")
        monkeypatch.undo()
    wrong, right = (1, True), (0, False)
    assert seen == {
        **{("right", False): right, ("right", True): right},
        **{("answer", False): wrong, ("answer", True): right},
        **{("verdict", False): wrong, ("verdict", True): wrong},
    }


def test_an_answer_names_three_pairs_and_counts_the_others():
    numbers = network_study().numbers
    cell = numbers["cells"][0] | {"searches_disagree": True, "reported_diverged": 0}
    for count, end in ((3, ""), (5, " and 2 more")):
        cells = [cell | {"rule": f"r{k}", "network": "gpt"} for k in range(count)]
        told = network_tables.answer(numbers | {"cells": cells})
        assert f": r0 on gpt, r1 on gpt, r2 on gpt{end}." in told


def test_redrawing_survives_numbers_of_any_kind(tmp_path, capsys):
    made = network_study().numbers
    for seed, change in enumerate(
        [
            {"overall": 3},
            {"rules": [["adam"]]},
            {"networks": ["gpt"] * 2000},
            {"baseline": "$\\frac{"},
            {"cells": []},
            {"study": 2},
        ]
    ):
        config = {"rule": [f"mine={IN_PYTHON}"], "seed": seed}
        path = saved(tmp_path, made | change, config, "compare_networks")
        packed = archive.pack(path, tmp_path / f"{seed}.zip")
        status, out, err = command(
            capsys, "reproduce", packed, "--redraw", "--results", tmp_path / "new"
        )
        assert status == 1
        assert "Does not agree: The answer " in out
        assert "warning: the pictures of " in err
        assert report_path(out).exists()


# All of it


@pytest.mark.thorough("two trainings; what is between them has laws above")
def test_study_of_python_is_sent_redrawn_and_trained_again(
    mine, tmp_path, monkeypatch, capsys
):
    study = comparison.compare({"mine": mine, "adam": "adam"}, "quadratic", **TERMS)
    folder = study.save().resolve()
    assert {"ratios.svg", "report.html"} <= {file.name for file in folder.iterdir()}
    status, out, _ = command(capsys, "pack", folder, "--output", tmp_path / "a.zip")
    assert status == 0
    assert "contains the source of: mine." in out
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    status, out, _ = command(capsys, "reproduce", "../a.zip")
    assert status == 0
    assert "Not trained again: the rule mine comes from a file that was not" in out
    sent = report_path(out).parent
    pages = [(at / "report.html").read_text("utf-8") for at in (sent, folder)]
    assert pictures(pages[0]) == pictures(pages[1])
    assert (sent / "sources/mine.py").read_text() == RULE
    status, out, err = command(
        capsys, "reproduce", "../a.zip", "--rule", sent / "sources/mine.py", "--quiet"
    )
    assert status == 0, err
    assert "Bit-identical: all " in out


def test_a_file_for_a_study_without_rules_from_files_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"got 'mine\.py'\. Leave --rule out\."):
        received.with_files({"rule": ["adam"]}, ["mine.py"], tmp_path, trusted=True)
