"""The widgets of `explore.ipynb`: they choose a text and variants, and call the session."""

from __future__ import annotations

import html

import ipywidgets as widgets

from feyntune.errors import UserError
from feyntune.experiment.recipes import BASE
from feyntune.explore import colours
from feyntune.explore.session import Session

# A browser grows slow on a list of thousands; the plain calls take any paper.
LISTED = 500
TITLE = 90  # characters of a title in the list
WIDE = widgets.Layout(width="auto")
NOTHING_YET = "<i>Choose, then press the button.</i>"


class Panel(widgets.VBox):
    """Pick or paste an abstract, choose variants, press the button.

    Attributes
    ----------
    paper
        A test paper, whose abstract is put into ``text``.
    text
        The abstract to explore, edited or pasted as one likes.
    variants
        Trained variants to compare with base.
    button
        Calls :meth:`explore`.
    found
        What came of it: completions side by side, then a coloured text per variant.
    """

    def __init__(self, session: Session):
        self.session = session
        listed = session.papers[:LISTED].itertuples(index=False)
        self.paper = widgets.Dropdown(
            options=[(f"{paper.id}  {_short(paper.title)}", paper.id) for paper in listed],
            description="Test paper",
            layout=WIDE,
        )
        self.text = widgets.Textarea(
            description="Abstract", rows=8, layout=WIDE, placeholder="Paste an abstract here"
        )
        self.variants = widgets.SelectMultiple(
            options=session.trained,
            value=session.trained[:2],
            description="Variants",
            rows=min(8, max(2, len(session.trained))),
        )
        self.button = widgets.Button(description="Explore", button_style="primary")
        self.found = widgets.HTML(NOTHING_YET)
        self.paper.observe(self._take_paper, "value")
        self.button.on_click(self.explore)
        self._take_paper()
        chosen = widgets.HBox([self.variants, self.button])
        super().__init__([self.paper, self.text, chosen, self.found])

    def explore(self, _: widgets.Button | None = None) -> None:
        """Show completions and surprise of what is chosen; of a mistake, what it is."""
        self.button.disabled, self.button.description = True, "Exploring …"
        try:
            self.found.value = self._found()
        except UserError as error:
            self.found.value = f"<b>{html.escape(str(error))}</b>"
        finally:
            self.button.disabled, self.button.description = False, "Explore"

    def _found(self) -> str:
        text, variants = self.text.value, self.variants.value
        if not variants:
            raise UserError("No variant is chosen: mark one or more in the list.")
        written = self.session.complete(text, [BASE, *variants])
        surprises = [self.session.surprise(text, variant) for variant in variants]
        return colours.completions(written).data + colours.coloured(*surprises).data

    def _take_paper(self, _: dict | None = None) -> None:
        if self.paper.value is not None:
            self.text.value = self.session.paper(self.paper.value)["abstract"]


def _short(title: str) -> str:
    return title if len(title) <= TITLE else f"{title[: TITLE - 1]}…"
