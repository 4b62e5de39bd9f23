"""What the README and docs/ say is so: length, links, commands, tables, and every block."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import click
import documents
import pytest
from documents import DOCS, README

from feyntune import cli
from feyntune.experiment import load
from feyntune.paths import NOTEBOOKS, REPOSITORY, Paths
from feyntune.runs.stages import STAGES

COMMANDS = REPOSITORY / "docs" / "commands.md"
EXECUTED = NOTEBOOKS / "executed"
# Programs in shell blocks that are not ours.
OTHERS = {"git", "cd", "export", "pip", "tensorboard"}
# What `Paths` places by the name of a model, a source or a run.
PLACES_BY_NAME = (
    *("fetched", "finetune", "perplexity", "completions", "similarity", "answers", "reported"),
    *("record", "notebook", "job_log", "job_stamp"),
)


# --- pages and links --------------------------------------------------------------------------


def test_readme_is_short():
    assert len(documents.text(README)) <= 9000


@pytest.mark.parametrize("page", documents.pages_with_links(), ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page):
    listed = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    tracked = {REPOSITORY / file for file in listed.stdout.splitlines()}
    folders = {folder for file in tracked for folder in file.parents}
    for link in documents.links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if target.parent.parent == EXECUTED and target.parent not in folders:
            continue  # copies of the experiment are not made yet
        assert target in tracked | folders, f"{page.name} links to {link}"
        assert not anchor or anchor in documents.anchors(target), f"{page.name} links to {link}"


def test_readme_links_to_every_page():
    linked = {link.split("#")[0] for link in documents.links(README)}
    assert {f"docs/{page.name}" for page in DOCS} <= linked


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_a_page_starts_with_what_it_is_for(page):
    title, purpose, *_ = documents.text(page).split("\n\n")
    assert title.startswith("# ")
    assert re.fullmatch(r"[A-Z][^|#`]+\.", purpose.replace("\n", " ").replace("`-h`", "")), purpose


def test_no_variable_overrides_settings():
    assert not [page.name for page in (README, *DOCS) if "FEYNTUNE__" in documents.text(page)]


def test_every_variable_that_is_described_is_accepted(monkeypatch):
    named = re.compile(r"\bFEYNTUNE_[A-Z][A-Z_]*[A-Z]\b")
    described = {name for page in (README, *DOCS) for name in named.findall(documents.text(page))}
    assert {"FEYNTUNE_OUTPUT", "FEYNTUNE_ROWS"} <= described <= set(load.VARIABLES)
    for name in described - {"FEYNTUNE_OUTPUT"}:
        monkeypatch.setenv(name, "1")
    assert load.load("smoke").name == "smoke"


# --- commands ---------------------------------------------------------------------------------


def parsed(words: list[str]) -> click.Context:
    """A command line as the command itself reads it, without running it."""
    name, *arguments = ["reproduce", *words[1:]] if words[0] == "./run_all.sh" else words[1:]
    command = cli.main.get_command(click.Context(cli.main), name)
    return command.make_context(name, arguments)


def named_experiments() -> set[str]:
    """Those that are shipped, and those that a page writes."""
    written = (re.match(r"# experiments/(.+)\.yaml", b.text) for b in documents.blocks("yaml"))
    return {*load.names(), *(found[1] for found in written if found)}


OUR_LINES = [line for line in documents.shell_lines() if documents.words(line)[0] not in OTHERS]


@pytest.fixture
def texts(tmp_path, monkeypatch):
    """The files that commands of the pages read."""
    for name in ("FILE", "beginning.txt"):
        (tmp_path / name).write_text("We study", encoding="utf-8")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("texts")
@pytest.mark.parametrize("line", OUR_LINES)
def test_a_command_of_a_block_is_understood(line):
    words = documents.words(line)
    assert words[0] in documents.OURS
    if words[0] == "./run_tests.sh":
        return
    redirected = (place for place, word in enumerate(words) if word in "<>")
    context = parsed(words[: next(redirected, None)])
    given = context.params
    assert given.get("name", "demo") in named_experiments()
    stage_names = [*given.get("stage_names", ()), *filter(None, [given.get("stage")])]
    assert {cli._stage_name(stage) for stage in stage_names} <= set(STAGES)
    if variants := given.get("variants"):
        chosen = variants.split(",") if isinstance(variants, str) else variants
        assert set(chosen) <= set(load.load(given["name"]).variants)


@pytest.mark.usefixtures("texts")
@pytest.mark.parametrize("line", documents.inline_commands())
def test_a_command_in_a_sentence_has_its_options(line):
    words = documents.words(line)
    if words[0] == "./run_tests.sh":
        return
    # A sentence may name a command without everything that it needs.
    with contextlib.suppress(click.MissingParameter):
        parsed(words)


def synopses() -> dict[str, str]:
    """Of the page of commands: each command's line, by the command's name."""
    (block,) = documents.blocks("", pages=[COMMANDS])
    lines = re.sub(r"\n +", " ", block.text).splitlines()
    found = {line.removeprefix("feyntune ").split()[0]: line for line in lines}
    found["reproduce"] = found.pop("./run_all.sh")
    del found["./run_tests.sh"]
    return found


@pytest.mark.parametrize("name", sorted({*synopses(), *cli.main.commands}))
def test_the_page_of_commands_has_every_option(name):
    options = {
        option
        for parameter in cli.main.commands[name].params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    }
    assert set(re.findall(r"--[a-z][a-z-]*", synopses()[name])) == options


def test_the_page_of_commands_explains_each():
    explained = [row[0].split()[-1] for row in documents.rows(COMMANDS, "command")]
    ours = [name for name in synopses() if name != "reproduce"]
    assert explained == ["./run_all.sh", "./run_tests.sh", *ours]


# --- tables -----------------------------------------------------------------------------------


def test_table_of_experiments():
    rows = documents.rows(README, "`--experiment`")
    assert sorted(row[0].split()[0] for row in rows) == documents.shipped()
    default = next(o for o in cli.main.commands["run"].params if o.name == "name").default
    assert [row[0] for row in rows if "(default)" in row[0]] == [f"{default} (default)"]


def test_table_of_fetched_experiments():
    listed = documents.rows(REPOSITORY / "docs" / "sources-and-mirrors.md", "experiment")
    fetching = {name for name in documents.shipped() if load.load(name).outside}
    assert {row[0] for row in listed} == fetching


def test_table_of_notebooks():
    listed = {row[0]: row[1] for row in documents.rows(README, "notebook")}
    assert sorted(listed) == sorted(file.stem for file in NOTEBOOKS.glob("*.ipynb"))
    assert {n: per for n, per in listed.items() if n in STAGES} == {
        n: STAGES[n].per for n in listed if n in STAGES
    }


def test_table_of_variables():
    listed = documents.rows(REPOSITORY / "docs" / "gpu-and-slurm.md", "variable")
    source = (REPOSITORY / "feyntune" / "training" / "memory.py").read_text(encoding="utf-8")
    assert {row[0] for row in listed} == set(re.findall(r'"(FEYNTUNE_\w+)"', source))


def test_the_tree_of_results_is_that_of_the_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))
    paths = Paths("E")
    places = [getattr(paths, n) for n, p in vars(Paths).items() if isinstance(p, property)]
    places += [getattr(paths, name)("s1") for name in PLACES_BY_NAME]
    flat = [place for each in places for place in (each if isinstance(each, list) else [each])]
    inside = [place.relative_to(paths.results) for place in flat if paths.results in place.parents]
    there = {place.parts[0] for place in inside if not place.name.startswith(".")}
    tree = documents.text(REPOSITORY / "docs" / "results.md")
    listed = re.findall(r"^results/<experiment>/(\{.+?\}|[\w.-]+)", tree, re.MULTILINE)
    assert {name for each in listed for name in each.strip("{}").split(",")} == there


# --- blocks -----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with the shipped experiments, to which a page adds its own."""
    copies = tmp_path / "experiments"
    copies.mkdir()
    for file in load.EXPERIMENTS.glob("*.yaml"):
        shutil.copy(file, copies)
    monkeypatch.setattr(load, "EXPERIMENTS", copies)
    return copies


def experiment_name(block: documents.Block) -> str:
    found = re.match(r"# experiments/(.+)\.yaml\n", block.text)
    return found[1] if found else "part"


@pytest.mark.parametrize("block", documents.blocks("yaml"), ids=str)
def test_every_yaml_block_is_an_experiment(block, folder):
    name = experiment_name(block)
    assert name not in documents.shipped(), (
        "a page's example must not have a shipped experiment's name"
    )
    whole = block.text if "extends:" in block.text else f"extends: demo\n{block.text}"
    (folder / f"{name}.yaml").write_text(whole, encoding="utf-8")
    assert load.load(name).name == name


@pytest.mark.parametrize("block", documents.blocks("python"), ids=str)
def test_every_python_block_imports_what_there_is(block):
    """Of ours; the README's lines of plain PEFT are run in `tests/models/test_adapters.py`."""
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("feyntune"):
            for alias in node.names:
                assert _is_module(f"{node.module}.{alias.name}") or alias.name in _defined(
                    node.module
                )


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _defined(module: str) -> set[str]:
    """Names that a module defines, without importing it."""
    source = Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")
    return {node.name for node in ast.parse(source).body if hasattr(node, "name")}
