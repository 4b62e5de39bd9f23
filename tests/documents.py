"""What the README and the pages of docs/ say, in parts that tests can hold to the code."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import nbformat

from feyntune.experiment import load
from feyntune.paths import NOTEBOOKS, REPOSITORY

README = REPOSITORY / "README.md"
DOCS = sorted((REPOSITORY / "docs").glob("*.md"))
PAGES = [
    README,
    *DOCS,
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "CHANGELOG.md",
    REPOSITORY / "benchmarks" / "README.md",
]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
OURS = ("feyntune", "./run_all.sh", "./run_tests.sh")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language and its text, without indentation."""

    page: Path
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}: {self.text.splitlines()[0]}"


def shipped() -> list[str]:
    """The experiments of this repository, without those that its user has added."""
    command = ["git", "-C", str(REPOSITORY), "ls-files", "experiments/"]
    known = subprocess.run(command, capture_output=True, text=True).stdout.split()
    return [name for name in load.names() if not known or f"experiments/{name}.yaml" in known]


def text(path: Path) -> str:
    """A page as Markdown; of a notebook, its Markdown cells."""
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return path.read_text(encoding="utf-8")


def blocks(*languages: str, pages=(README, *DOCS)) -> list[Block]:
    """Fenced blocks in these languages."""
    found = [
        Block(page, language, dedent(body))
        for page in pages
        for _, language, body in FENCE.findall(text(page))
    ]
    return [block for block in found if block.language in languages]


def prose(path: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", text(path))


def pages_with_links() -> list[Path]:
    """Every page, and every notebook with its executed copies."""
    return [*PAGES, NOTEBOOKS / "executed" / "README.md", *sorted(NOTEBOOKS.rglob("*.ipynb"))]


def links(path: Path) -> list[str]:
    """Links and pictures that lead elsewhere in the repository."""
    return [
        link
        for link in re.findall(r"\]\(([^)\s]+)\)", prose(path))
        if not re.match(r"[a-z]+:", link)
    ]


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in kept}


def rows(path: Path, heading: str) -> list[list[str]]:
    """Rows of the table whose heading starts so: cells without Markdown's quotes and links."""
    _, _, below = text(path).partition(f"\n| {heading}")
    _, rule, *lines = below.split("\n\n")[0].splitlines()
    assert set(rule) <= set("|-: "), f"{path.name} has no table {heading!r}"
    return [[_plain(cell) for cell in line.strip("|").split(" | ")] for line in lines]


def _plain(cell: str) -> str:
    return re.sub(r"\[(.+?)\]\(.+?\)", r"\1", cell).replace("`", "").strip()


def shell_lines() -> list[str]:
    """Every command of a shell block, without its comment."""
    lines = (line for block in blocks("sh") for line in block.text.splitlines())
    return [line for whole in lines for line in whole.split(" && ") if shlex.split(line, True)]


def words(line: str) -> list[str]:
    """A command's words: without comment, and without variables set for it alone."""
    found = shlex.split(line, comments=True)
    while found and re.match(r"[A-Z_]+=", found[0]):
        found = found[1:]
    return found


def inline_commands() -> list[str]:
    """Our commands in running text, from ``feyntune list`` on."""
    found = (code for page in PAGES for code in re.findall(r"`([^`\n]+)`", prose(page)))
    return sorted({code for code in found if code.startswith(tuple(f"{o} " for o in OURS))})
