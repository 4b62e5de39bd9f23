"""The code that a stage depends on: what changes its hash, and what does not."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from smoke_results import SMOKE, at, not_fresh

from feyntune.runs import code
from feyntune.runs.freshness import Freshness
from feyntune.runs.stages import (
    ADOPTED,
    BASE_MODEL,
    COMMERCIAL,
    COMPLETIONS,
    CURATION,
    FIGURES,
    FINETUNE,
    HUMAN,
    PERPLEXITY,
    RELEASED,
    REPORT,
    SNAPSHOT,
    STAGES,
)


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A copy of package and notebooks, of which `code` takes the hashes."""
    for folder in ("feyntune", "notebooks"):
        ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(code.PACKAGE.parent / folder, tmp_path / folder, ignore=ignored)
    monkeypatch.setattr(code, "PACKAGE", tmp_path / "feyntune")
    monkeypatch.setattr(code, "NOTEBOOKS", tmp_path / "notebooks")
    code.forget()
    yield tmp_path
    code.forget()


def hashes() -> dict[str, dict[str, str]]:
    """The code of every stage, looked at anew."""
    code.forget()
    return {
        name: code.of_module(stage.maker) if stage.maker else code.of_notebook(name)
        for name, stage in STAGES.items()
    }


@pytest.fixture(scope="module")
def original() -> dict[str, dict[str, str]]:
    return hashes()


@pytest.fixture
def changed(original, checkout):
    """The stages whose code in the copy differs from the original's."""

    def look() -> set[str]:
        after = hashes()
        return {name for name in STAGES if after[name] != original[name]}

    return look


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, f"{file.name} has no {old!r}"
    file.write_text(text.replace(old, new, 1))


def edit_cells(notebook: Path, kind: str, change, *, tagged: bool = False) -> None:
    """Change the source of a notebook's cells of a kind, or of the one tagged ``parameters``."""
    content = json.loads(notebook.read_text())
    for cell in content["cells"]:
        is_tagged = "parameters" in cell["metadata"].get("tags", [])
        if cell["cell_type"] == kind and is_tagged == tagged:
            cell["source"] = change("".join(cell["source"]))
    notebook.write_text(json.dumps(content))


# --- what makes nothing stale -----------------------------------------------------------------


def test_a_copy_has_the_hashes_of_the_original(original, changed):
    assert changed() == set()
    assert len({json.dumps(value) for value in original.values()}) == len(STAGES)


def test_rewording_changes_no_code(checkout, changed):
    """Every docstring, comment and Markdown cell; also layout, cell ids and kept outputs."""
    for notebook in (checkout / "notebooks").glob("*.ipynb"):
        edit_cells(notebook, "markdown", lambda text: text + "\nAnother word.")
        edit_cells(notebook, "code", lambda text: "# A comment.\n" + text + "  # and another")
        content = json.loads(notebook.read_text())
        for cell in content["cells"]:
            cell["id"] = "other-" + cell.get("id", "")
            if cell["cell_type"] == "code":
                cell.update(outputs=[], execution_count=7)
                cell["metadata"]["collapsed"] = True
        notebook.write_text(json.dumps(content, indent=4))
    for module in (checkout / "feyntune").rglob("*.py"):
        text = module.read_text()
        module.write_text(text.replace('"""', '"""Reworded. ', 1) + "\n\n\n# The end.\n")
    assert changed() == set()


def test_a_parameters_cell_changes_no_code(checkout, changed):
    for notebook in (checkout / "notebooks").glob("*.ipynb"):
        edit_cells(notebook, "code", lambda text: 'experiment = "mine"\nmodel = "x"', tagged=True)
    assert changed() == set()


def test_parameters_cells_hold_only_what_the_runner_injects():
    """They are left out of the hash, so nothing else may be set in them."""
    for stage in STAGES.values():
        if stage.maker:
            continue
        cells = json.loads((code.NOTEBOOKS / f"{stage.name}.ipynb").read_text())["cells"]
        tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
        lines = [line for cell in tagged for line in "".join(cell["source"]).splitlines()]
        names = {"experiment"} | ({stage.per} - {"experiment"})
        if stage.name in (FINETUNE, PERPLEXITY, COMPLETIONS):
            names |= {"overrides", "trial"}
        assert {line.split(" = ")[0] for line in lines} == names
        values = [line.split(" = ")[1].split("#")[0] for line in lines]
        assert all('"' in value or value.strip() == "{}" for value in values)


# A line of code, and the same with another message or progress line.
REWORDED = [
    ('raise UserError(f"{name} is bad.")', 'raise UserError(f"{name} is wrong: {value}.")'),
    ('raise ValueError("no")', 'raise ValueError("not at all")'),
    ('errors.append(UserError("no"))', 'errors.append(UserError(f"not {x}"))'),
    ('warnings.warn("slow")', 'warnings.warn("very slow", stacklevel=2)'),
    ("print(x)", 'print("x is", x, flush=True)'),
    ('report("fetching")', 'report(f"fetching {x}")'),
    ('click.echo("a")', 'click.echo("b", err=True)'),
    ("for x in tqdm(xs): f(x)", 'for x in tqdm(xs, desc="abstracts", unit="a"): f(x)'),
    ('assert x, "no"', "assert x"),
    ('def f(x):\n    "A docstring."\n    return x', "def f(x):\n    return x"),
    ("import numpy\nfrom feyntune.paths import NOTEBOOKS", "import numpy"),
    ("from feyntune.experiment.files import writing\nx = 1", "x = 1"),
    ("%matplotlib inline\nx = 1", "!ls\nx = 1"),
]
OTHER = [
    ("x = f(1)", "x = f(2)"),
    ("for x in tqdm(xs): f(x)", "for x in tqdm(ys): f(x)"),
    ("print(y := f(1))", "print(y := f(2))"),
    ("assert x", "assert y"),
    ("raise ValueError", "raise KeyError"),
    ('loss = cross_entropy(a, reduction="sum")', 'loss = cross_entropy(a, reduction="mean")'),
    ("import numpy", "import scipy"),
    ('warning_level = "a"', 'warning_level = "b"'),
]


@pytest.mark.parametrize(("before", "after"), REWORDED)
def test_what_is_said_to_people_is_no_code(before, after):
    assert code.digest(code.normalised(before)) == code.digest(code.normalised(after))


@pytest.mark.parametrize(("before", "after"), OTHER)
def test_what_is_computed_is_code(before, after):
    assert code.digest(code.normalised(before)) != code.digest(code.normalised(after))


@pytest.mark.parametrize(
    "module",
    [
        *("errors", "paths", "cli", "experiment/schema", "experiment/load", "runs/stages"),
        *("runs/freshness", "runs/records", "pipeline/engine", "pipeline/slurm", "pipeline/runner"),
    ],
)
def test_modules_that_only_order_and_record_the_work_change_nothing(checkout, changed, module):
    file = checkout / "feyntune" / f"{module}.py"
    file.write_text(file.read_text() + "\n\nADDED = 1\n")
    assert changed() == set()


# --- what makes stale exactly what depends on it ----------------------------------------------


@pytest.mark.parametrize(
    ("name", "stage"), [("02_finetune", FINETUNE), ("03_perplexity", PERPLEXITY)]
)
def test_a_code_cell_changes_its_stage_alone(checkout, changed, name, stage):
    edit_cells(checkout / f"notebooks/{name}.ipynb", "code", lambda text: text + "\nx = 1")
    assert changed() == {stage}


MODELS = {FINETUNE, PERPLEXITY, COMPLETIONS, COMMERCIAL}


@pytest.mark.parametrize(
    ("module", "stale"),
    [
        ("data/corpora", {CURATION}),
        ("data/selection", {CURATION}),
        ("data/snapshot", {CURATION, BASE_MODEL, HUMAN, RELEASED}),
        ("data/released_datasets", {RELEASED, ADOPTED}),
        ("data/stand_in/language", {SNAPSHOT}),
        ("models/tiny_llama", {BASE_MODEL}),
        ("models/likelihood", MODELS),
        ("training/arguments", {FINETUNE}),
        ("training/trainer", {FINETUNE}),
        ("training/batches", {FINETUNE}),
        ("evaluation/generation", {COMPLETIONS, COMMERCIAL}),
        ("evaluation/semscore", {COMPLETIONS, COMMERCIAL}),
        ("evaluation/commercial/asking", {COMMERCIAL}),
        ("ratings/sheets", {HUMAN, RELEASED}),
        ("ratings/agreement", {HUMAN}),
        ("analysis/published_scores", {RELEASED}),
        ("analysis/loss_steps", {FIGURES}),
        ("analysis/figures/learning_curves", {FIGURES}),
        ("analysis/tables/scores", {FIGURES}),
        ("analysis/report/html", {REPORT}),
    ],
)
def test_a_module_changes_the_stages_that_reach_it(checkout, changed, module, stale):
    file = checkout / "feyntune" / f"{module}.py"
    file.write_text(file.read_text() + "\n\nADDED = 1\n")
    assert changed() == stale


@pytest.mark.parametrize(
    ("module", "old", "new", "stale"),
    [
        ("models/likelihood", 'reduction="none"', 'reduction="sum"', MODELS),
        ("evaluation/generation", "torch.float64", "torch.float32", {COMPLETIONS, COMMERCIAL}),
    ],
)
def test_the_loss_and_the_sampler_are_code(checkout, changed, module, old, new, stale):
    file = checkout / "feyntune" / f"{module}.py"
    lines = file.read_text().splitlines(keepends=True)
    at_line = next(i for i, line in enumerate(lines) if old in line and '"""' not in line)
    lines[at_line] = lines[at_line].replace(old, new, 1)
    file.write_text("".join(lines))
    assert changed() == stale


def test_every_way_to_import_is_followed(checkout):
    package = checkout / "feyntune"
    (package / "deep.py").write_text("VALUE = 1\n")
    (package / "between.py").write_text("def late():\n    from feyntune.deep import VALUE\n")
    (package / "alone.py").write_text("VALUE = 1\n")
    ways = [
        "import feyntune.between",
        "from feyntune import between as b",
        "import feyntune.between as c",
    ]
    for way in ways:
        (package / "start.py").write_text(way + "\n")
        code.forget()
        before = code.of_module("feyntune.start")
        (package / "alone.py").write_text(f"VALUE = {way!r}\n")
        code.forget()
        assert code.of_module("feyntune.start") == before
        (package / "deep.py").write_text(f"VALUE = {way!r}\n")
        code.forget()
        assert code.of_module("feyntune.start") != before, way


def test_modules_that_import_each_other_end(checkout):
    package = checkout / "feyntune"
    (package / "one.py").write_text("import feyntune.two\n")
    (package / "two.py").write_text("import feyntune.one\n")
    code.forget()
    assert set(code.of_module("feyntune.one")) == {"feyntune.one", "feyntune.two"}


def test_what_earlier_processes_parsed_is_parsed_once(tmp_path, monkeypatch):
    """Only by this code and this Python; what was cut off or cannot be written does not matter."""
    monkeypatch.setattr(code, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    parse = code._parsed.__wrapped__
    source = "from feyntune.models import base\nx = 1\n"
    expected = (
        code.digest(code.normalised(source)),
        ("feyntune.models", "feyntune.models.base"),
    )
    assert parse(source) == expected
    (kept,) = code.KEPT.iterdir()
    kept.write_text('["known"]')
    assert parse(source) == ("known", ())
    monkeypatch.setattr(code, "_how", lambda: "another Python")
    assert parse(source) == expected and len([*code.KEPT.iterdir()]) == 2
    for damaged in ("", '["kno'):
        for file in code.KEPT.iterdir():
            file.write_text(damaged)
        assert parse(source) == expected
    monkeypatch.setattr(code, "KEPT", kept / "no folder")
    assert parse(source) == expected


def test_changed_code_makes_the_result_stale_and_is_named(output, checkout, changed):
    edit_cells(checkout / "notebooks/04_completions.ipynb", "code", lambda text: text + "\nx = 1")
    code.forget()
    job = (COMPLETIONS, "base")
    assert Freshness(SMOKE).status(at(job)) == ("stale", "code changed: code cells")
    stale = {name for name, _ in not_fresh(SMOKE)}
    assert stale == {COMPLETIONS, HUMAN, FIGURES, REPORT}
