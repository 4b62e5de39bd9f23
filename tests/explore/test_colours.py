"""Frames as HTML: texts that are kept, colours that are fair, contrast that can be read."""

import re

import numpy as np
import pandas as pd
import pytest
from shown_tokens import Shown

from feyntune.explore import colours


def frame(tokens, base, variant, name="s1-LoRA-all") -> pd.DataFrame:
    made = pd.DataFrame({"token": tokens, "nll_base": base, "nll_variant": variant})
    made["difference"] = made["nll_variant"] - made["nll_base"]
    made.attrs |= {"variant": name, "label": "stand-in"}
    return made


def test_every_token_is_shown_with_its_numbers():
    page = colours.coloured(frame(["We", " <b>", " &amp;"], [1.0, 2.0, 0.5], [1.0, 1.5, 1.5]))
    shown = Shown(page.data).tokens
    assert [token["text"] for token in shown] == ["We", " <b>", " &amp;"]
    assert "base 2.000 nats (13.53%)" in shown[1]["title"]
    assert "s1-LoRA-all 1.500 nats (22.31%)" in shown[1]["title"]
    assert "difference −0.500" in shown[1]["title"] and "difference +1.000" in shown[2]["title"]


def test_texts_and_names_are_escaped():
    hostile = '"><script>alert(1)</script>'
    page = colours.coloured(frame([hostile], [1.0], [2.0], name=hostile)).data
    cards = pd.DataFrame(
        {"completion": [hostile], "tokens": [1], "semscore": [0.5], "entropy_exp": [1.0]},
        index=pd.Index([hostile], name="model"),
    )
    cards.attrs |= {"prompt": hostile, "label": hostile}
    for shown in (page, colours.completions(cards).data):
        assert "script" not in Shown(shown).tags and "&lt;script&gt;" in shown
    assert Shown(page).tokens[0]["text"] == hostile


def opacities(page: str) -> list[tuple[str, float]]:
    """Colour and opacity of the background of every token."""
    found = re.findall(r"background: rgba\((\d+, \d+, \d+), ([\d.]+)\)", page)
    return [(colour, float(opacity)) for colour, opacity in found]


def test_colours_are_symmetric_and_grow_with_the_difference():
    steps = [-2.0, -1.0, 0.0, 1.0, 2.0]
    page = colours.coloured(frame(list("abcde"), [3.0] * 5, [3.0 + step for step in steps])).data
    (less, darkest), (_, dark), (_, none), (more, light), (_, lightest) = opacities(page)
    assert (less, more) == (colours.LESS, colours.MORE)
    assert (darkest, dark, none) == (lightest, light, 0)
    assert darkest == colours.OPACITY == 2 * dark
    assert "<span>−2</span><span>0</span><span>2</span>" in page


def test_several_variants_share_one_scale_and_one_legend():
    strong = frame(["a"], [3.0], [1.0], name="s1-LoRA-all")
    weak = frame(["a"], [3.0], [2.0], name="s1-LoRA-QKV")
    page = colours.coloured(strong, weak).data
    assert [opacity for _, opacity in opacities(page)] == [0.6, 0.3]
    assert page.count('class="key"') == 1
    assert "2.0 nats less surprised over 1 tokens" in page


def test_what_lies_beyond_the_scale_is_as_its_end_and_said_so():
    values = [0.1] * 199 + [-9.0]
    page = colours.coloured(frame(["a"] * 200, [10.0] * 200, [10.0 + v for v in values])).data
    assert {opacity for _, opacity in opacities(page)} == {colours.OPACITY}
    assert "<span>≤ −0.1</span><span>0</span><span>≥ 0.1</span>" in page


@pytest.mark.parametrize(
    ("reached", "limit"), [(0, 1), (0.049, 0.05), (0.05, 0.05), (0.3, 0.3), (1.2, 2), (6, 10)]
)
def test_the_scale_ends_at_a_round_number(reached, limit):
    assert colours.scale_limit([reached, -reached]) == limit


def test_no_difference_has_no_colour():
    page = colours.coloured(frame(["a", "b"], [1.0, 2.0], [1.0, 2.0])).data
    assert [opacity for _, opacity in opacities(page)] == [0, 0]


def test_the_tokens_of_one_character_are_one_piece():
    page = colours.coloured(frame(["a", "弦", "", ""], [1.0, 1.0, 2.0, 3.0], [1.0] * 4))
    shown = Shown(page.data).tokens
    assert [token["text"] for token in shown] == ["a", "弦"]
    assert shown[1]["title"].startswith("3 tokens together\nbase 6.000 nats")


def luminance(colour) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    parts = np.asarray(colour) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("hue", [colours.LESS, colours.MORE])
@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (17, 255)], ids=["light", "dark"])
def test_text_stays_readable_on_the_strongest_colour(hue, paper, ink):
    behind = colours.OPACITY * np.array([int(part) for part in hue.split(",")])
    behind = behind + (1 - colours.OPACITY) * paper
    dark, bright = sorted([luminance(behind), luminance([ink] * 3)])
    assert (bright + 0.05) / (dark + 0.05) >= 7
