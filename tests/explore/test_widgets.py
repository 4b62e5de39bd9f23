"""The panel: what the button shows is what the plain calls give."""

import tiny
from shown_tokens import Shown

from feyntune.explore import colours
from feyntune.explore.widgets import NOTHING_YET, Panel

TWO = ["base", tiny.VARIANT]


def test_the_button_shows_what_the_plain_calls_give(session):
    panel = Panel(session)
    assert panel.found.value == NOTHING_YET
    panel.paper.value = session.papers["id"][2]
    abstract = session.papers["abstract"][2]
    assert panel.text.value == abstract
    panel.button.click()
    written = session.complete(abstract, TWO)
    surprise = session.surprise(abstract, tiny.VARIANT)
    expected = colours.completions(written).data + colours.coloured(surprise).data
    assert panel.found.value == expected
    assert (panel.button.disabled, panel.button.description) == (False, "Explore")


def test_a_pasted_text_is_explored_in_place_of_the_paper(session):
    panel = Panel(session)
    panel.text.value = "A pasted sentence about branes."
    panel.explore()
    texts = [token["text"] for token in Shown(panel.found.value).tokens]
    assert "".join(texts) == "A pasted sentence about branes."


def test_a_mistake_is_shown_and_the_panel_goes_on(session):
    panel = Panel(session)
    panel.text.value = "<|eot_id|>"
    panel.explore()
    assert "contains &lt;|eot_id|&gt;" in panel.found.value
    panel.variants.value = ()
    panel.explore()
    assert "No variant is chosen" in panel.found.value
    assert not panel.button.disabled


def test_only_trained_variants_are_offered(session):
    assert Panel(session).variants.options == (tiny.VARIANT,)


def test_a_long_title_is_cut_and_a_long_list_too(session, monkeypatch):
    monkeypatch.setattr("feyntune.explore.widgets.LISTED", 3)
    monkeypatch.setattr("feyntune.explore.widgets.TITLE", 10)
    listed = Panel(session).paper.options
    assert [paper for _, paper in listed] == list(session.papers["id"][:3])
    assert all(name.endswith("…") and len(name) <= len(paper) + 12 for name, paper in listed)
