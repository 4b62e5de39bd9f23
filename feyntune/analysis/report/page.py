"""How the report looks: HTML from templates, tables from Markdown, executed notebooks as pages.

Every page is whole in itself: no script, no style, font or picture from elsewhere.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup

from feyntune.paths import TEMPLATES

HYPHEN = re.compile(r"(?<![\w.-])-(?=[\d.])")
# Verdict by verdict: a mark that is read without its colour.
MARKS = {"met": "✓", "missed": "✗", "not run": "–"}


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "numbers": numbers}
    style = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))
    environment.globals |= {"style": style, "marks": MARKS}
    return environment


def report(content: object) -> str:
    """The page of a report: of a :class:`feyntune.analysis.report.html.Report`."""
    return _templates().get_template("report.html").render(report=content)


def table(text: str) -> tuple[str, int, Markup]:
    """Title, number of columns and HTML of a table that `typesetting` wrote as Markdown."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    columns = sum(token.type == "th_open" for token in tokens)
    # After the heading: its three tokens come first.
    html = markdown.renderer.render(tokens[3:], markdown.options, {})
    return markdown.parseInline(tokens[1].content)[0].children[0].content, columns, Markup(html)


def notebook(path: Path, title: str) -> str:
    """An executed notebook as a page: code, text and outputs."""
    from nbconvert import HTMLExporter  # takes two seconds
    from pygments.formatters import HtmlFormatter

    body, _ = HTMLExporter(template_name="basic").from_filename(str(path))
    colours = {
        scheme: Markup(HtmlFormatter(style=name).get_style_defs(".highlight"))
        for scheme, name in (("light", "xcode"), ("dark", "github-dark"))
    }
    template = _templates().get_template("notebook.html")
    return template.render(title=title, body=Markup(body), colours=colours)


def numbers(text: str) -> str:
    """A text with minus signs where it has hyphens before numbers."""
    return HYPHEN.sub("−", text)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
