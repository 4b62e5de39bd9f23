"""Keep executed notebooks where GitHub shows them: ``notebooks/executed/<experiment>/``.

    ./run_all.sh --experiment demo && python workflow/keep_executed.py --experiment demo

Of a notebook that runs per variant or model, it is the run of the experiment's first variant. What
differs from run to run is left out (times, machines, outputs of cells tagged ``varies``), pictures
are reduced to 256 colours, and links lead from where the copy is. Of real abstracts the text is
left out, and their ids and links stand in its place.
"""

from __future__ import annotations

import base64
import io
import os
import re
import sys
import textwrap
from pathlib import Path

import click
import nbformat
import quotations
from nbformat import NotebookNode
from PIL import Image
from quotations import Quotations

from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.experiment.files import remove
from feyntune.paths import NOTEBOOKS, REPOSITORY, output_root
from feyntune.runs import stages
from feyntune.runs.freshness import FRESH, Freshness, is_recorded
from feyntune.runs.stages import Run

EXECUTED = NOTEBOOKS / "executed"
VARIES = "varies"
TIMED = ("compute",)  # tables
LEFT_OUT = "(Left out of this copy: it differs from run to run.)"
PAGE = 110  # characters
LARGEST = 1_000_000  # bytes of a copy
LINK = re.compile(r"\[([^\]]+)\]\((?!\w+:|#)([^)\s]+)\)")


@click.command()
@click.option("--experiment", "name", default="demo", show_default=True, metavar="NAME")
@click.option("--into", type=click.Path(path_type=Path), help="Another folder, to look first.")
def main(name: str, into: Path | None) -> None:
    try:
        for path in keep(name, into or EXECUTED / name):
            click.echo(f"{path} ({path.stat().st_size / 1e3:.0f} kB)")
    except UserError as error:
        click.echo(f"keep_executed: {error}", err=True)
        sys.exit(2)


def keep(name: str, into: Path) -> list[Path]:
    """Write a copy of every notebook that ran here, in place of the one that is there.

    Raises
    ------
    UserError
        If a run is not fresh, a copy is too large, names a path of this machine, or holds words
        of real abstracts where they cannot be left out.
    """
    experiment = load.load(name)
    first = next(iter(experiment.variants))
    shown = [
        stages.run(experiment, stage.name, None if stage.per == "experiment" else first)
        for stage in stages.STAGES.values()
        if stage.maker is None and stage.when(experiment)
    ]
    freshness = Freshness(experiment)
    for of in shown:
        state, why = freshness.status(of)
        if state != FRESH:
            raise UserError(f"{of} is {state} ({why}): run ./run_all.sh --experiment {name} first.")
    # Committed results have no notebook here: what was copied where they were computed stays.
    copies = {of.stage.name: _copy(of) for of in shown if not is_recorded(of.record)}
    if experiment.data.stand_in is None:
        _leave_out_abstracts(copies, quotations.of_experiment(experiment))
    copies = {stage: nbformat.writes(notebook) for stage, notebook in copies.items()}
    for stage, text in copies.items():
        _check(stage, text)
    into.mkdir(parents=True, exist_ok=True)
    for file in into.glob("*.ipynb"):
        if file.stem not in {of.stage.name for of in shown}:
            remove(file)
    paths = [into / f"{stage}.ipynb" for stage in copies]
    for path, text in zip(paths, copies.values(), strict=True):
        path.write_text(text + "\n", encoding="utf-8")
    return paths


def _copy(of: Run) -> NotebookNode:
    """A run's notebook without what is of this run alone."""
    executed = nbformat.read(of.notebook, as_version=4)
    given = executed.metadata.papermill.parameters
    timed = [of.experiment.paths.table(name).with_suffix(".md") for name in TIMED]
    tables = {path.read_text(encoding="utf-8").lstrip("#") for path in timed if path.exists()}
    cells = [cell for cell in executed.cells if "injected-parameters" not in _tags(cell)]
    ran = 0
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = _relinked(cell.source, NOTEBOOKS, of)
        else:
            ran += 1
            if "parameters" in _tags(cell):
                cell.source = _with_values(cell.source, given)
            cell.execution_count = ran
            cell.outputs = _outputs(cell, tables, of)
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = ran
        cell.metadata = {"tags": _tags(cell)} if _tags(cell) else {}
    kernel = executed.metadata.kernelspec
    metadata = {"kernelspec": kernel, "language_info": {"name": kernel.language}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _with_values(source: str, given: dict[str, object]) -> str:
    """The parameters cell with the values that the run was given."""
    for name, value in given.items():
        source = re.sub(rf"(?m)^{name} = .*?(  #|$)", rf"{name} = {value!r}\1", source)
    return source.replace("'", '"')


def _outputs(cell: NotebookNode, timed: set[str], of: Run) -> list[NotebookNode]:
    if VARIES in _tags(cell) and cell.outputs:
        return [_stream(LEFT_OUT)]
    return [_output(output, timed, of) for output in cell.outputs]


def _stream(text: str) -> NotebookNode:
    return nbformat.v4.new_output("stream", name="stdout", text=text + "\n")


def _output(output: NotebookNode, timed: set[str], of: Run) -> NotebookNode:
    output.get("metadata", {}).clear()
    data = output.get("data", {})
    if "text" in output:
        output.text = _wrapped(output.text)
    if "text/markdown" in data:
        text = data["text/markdown"]
        if text.lstrip("#") in timed:
            data["text/markdown"] = f"{text.splitlines()[0]}\n\n{LEFT_OUT}"
        else:
            data["text/markdown"] = _relinked(text, of.notebook.parent, of)
    if "image/png" in data:
        data["image/png"] = _smaller(data["image/png"])
    return output


def _wrapped(text: str) -> str:
    """Text without lines that are wider than a page of GitHub, which does not wrap them."""
    lines = text.splitlines(keepends=True)
    wide = [textwrap.fill(line, PAGE, break_on_hyphens=False) + "\n" for line in lines]
    return "".join(new if len(line) > PAGE else line for line, new in zip(lines, wide, strict=True))


def _smaller(picture: str) -> str:
    """A picture of 256 colours, if that takes fewer bytes."""
    given, found = base64.b64decode(picture), io.BytesIO()
    image = Image.open(io.BytesIO(given)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(found, "png", optimize=True)
    return base64.b64encode(min(given, found.getvalue(), key=len)).decode("ascii")


def _relinked(text: str, folder: Path, of: Run) -> str:
    """Markdown that was in ``folder`` with links that work from the copy.

    A result that is not committed is named instead.
    """
    kept = EXECUTED / of.experiment.name

    def relinked(match: re.Match) -> str:
        words, target = match.groups()
        place = Path(os.path.normpath(folder / target))
        if place.parent.parent == EXECUTED:  # this copy
            itself = os.path.relpath(NOTEBOOKS / place.name, kept)
            return f"with the results of `{kept.name}` ([the notebook itself]({itself}))"
        if place.is_relative_to(of.experiment.paths.results):
            return f"{words}: `{place.relative_to(output_root()).as_posix()}`"
        of_stage = stages.STAGES.get(place.stem) if place.parent == NOTEBOOKS else None
        copied = of_stage and of_stage.when(of.experiment)
        return match[0] if copied else f"[{words}]({os.path.relpath(place, kept)})"

    return LINK.sub(relinked, text)


def _leave_out_abstracts(copies: dict[str, NotebookNode], quoted: Quotations) -> None:
    """Take authors' words out of what the notebooks print, and refuse any that is left."""
    for stage, notebook in copies.items():
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                if "text" in output:
                    output.text = quoted.left_out(output.text)
        if papers := quoted.papers(nbformat.writes(notebook).replace("\\n", " ")):
            raise UserError(
                f"The copy of {stage} holds words of {', '.join(papers[:3])} outside of what it "
                "prints: they are their authors', not ours to keep."
            )


def _check(stage: str, text: str) -> None:
    if len(text.encode()) > LARGEST:
        raise UserError(f"The copy of {stage} is larger than {LARGEST / 1e6:.0f} MB.")
    for place in {str(REPOSITORY), str(output_root()), str(Path.home())}:
        if place in text:
            line = next(line.strip() for line in text.splitlines() if place in line)
            raise UserError(f"The copy of {stage} names {place}: {line[:200]}")


if __name__ == "__main__":
    main()
