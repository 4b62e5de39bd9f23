"""One abstract under several models: numbers that are the notebooks', texts that are kept, HTML."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import tiny

from feyntune.errors import UserError
from feyntune.evaluation import completions, metrics, perplexity, semscore
from feyntune.experiment import load
from feyntune.explore import colours as colouring
from feyntune.explore import exploring
from feyntune.explore.session import Session, checked_text
from feyntune.explore.widgets import NOTHING_YET, Panel
from feyntune.models import adapters
from feyntune.models import base as modeling
from feyntune.paths import NOTEBOOKS

TWO = ["base", tiny.VARIANT]
PASTED = "We study strings\r\n  on a torus.\nWe find  $E=mc^2$, as Schrödinger's 弦 𝔤 \u2192 x."


@pytest.fixture(scope="module")
def session(stand_in):
    """With completions of a few tokens."""
    settings = stand_in.experiment
    few = settings.completions.model_copy(update={"max_new_tokens": 12})
    return Session(settings.model_copy(update={"completions": few}))


@pytest.fixture(scope="module")
def stored(session):
    """Notebook 03's scores of every test abstract, by model."""
    found = {}
    for name in TWO:
        model = adapters.load_model(session.experiment, name, dtype="float32")
        found[name] = perplexity.score(
            model,
            session.tokenizer,
            session.papers["id"],
            session.papers["abstract"],
            tokens_per_batch=4096,
        )
    return found


class Shown(HTMLParser):
    """Texts and attributes of the tokens, as a browser reads them; and every tag."""

    def __init__(self, page: str):
        super().__init__()
        self.tokens, self.tags, self.inside = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside = "title" in dict(attributes)
        if self.inside:
            self.tokens.append({"text": "", **dict(attributes)})

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.tokens[-1]["text"] += data


def frame(tokens, base, variant, name="s1-LoRA-all") -> pd.DataFrame:
    made = pd.DataFrame({"token": tokens, "nll_base": base, "nll_variant": variant})
    made["difference"] = made["nll_variant"] - made["nll_base"]
    made.attrs |= {"variant": name, "label": "stand-in"}
    return made


# --- surprise ---------------------------------------------------------------------------------


def test_sums_are_the_nll_of_notebook_03(session, stored):
    for row in range(len(session.papers)):
        found = exploring.surprise(session, session.papers["abstract"][row], tiny.VARIANT)
        sums = [found["nll_base"].sum(), found["nll_variant"].sum()]
        expected = [stored[name]["nll"][row] for name in TWO]
        np.testing.assert_allclose(sums, expected, rtol=1e-6)
        assert len(found) == stored["base"]["tokens"][row]
    assert abs(sums[0] - sums[1]) > 1e-3 * sums[0]  # two models, not one twice


def test_difference_is_variant_less_base(session):
    found = exploring.surprise(session, session.paper()["abstract"], tiny.VARIANT)
    assert (found["difference"] == found["nll_variant"] - found["nll_base"]).all()
    assert found["difference"].abs().max() > 0.01
    assert found.attrs == {"variant": tiny.VARIANT, "label": "stand-in corpus and model"}


def test_base_is_bare_again_after_a_variant(session, recwarn):
    text = session.paper()["abstract"]
    first = exploring.surprise(session, text, tiny.VARIANT)
    again = exploring.surprise(session, text, tiny.VARIANT)
    assert (exploring.surprise(session, text, "base")["difference"] == 0).all()
    pd.testing.assert_frame_equal(first, again)
    assert not [w for w in recwarn if "multiple adapters" in str(w.message)]


def test_one_base_is_loaded(session, monkeypatch):
    session.base("float32")
    monkeypatch.setattr(modeling, "load_base", None)  # nothing calls it again
    exploring.completions_side_by_side(session, PASTED, TWO)
    exploring.surprise(session, PASTED, tiny.VARIANT)


@pytest.mark.parametrize("text", [PASTED, "Alone.", "x", "one sentence without an end"])
def test_tokens_make_up_the_text(session, text):
    found = exploring.surprise(session, text, tiny.VARIANT)
    assert "".join(found["token"]) == checked_text(session, text)
    ids = modeling.encode(session.tokenizer, [checked_text(session, text)], eos=False)[0]
    assert len(found) == len(ids) - 1


def test_a_character_of_several_tokens_is_shown_once(session):
    found = exploring.surprise(session, "弦", tiny.VARIANT)
    assert list(found["token"]) == ["弦", "", ""]


def test_line_breaks_are_cleaned_as_in_curation(session):
    assert checked_text(session, " a\r\n  b\nc ") == "a b c"


# --- completions ------------------------------------------------------------------------------


def test_completions_are_those_of_each_model_by_itself(session):
    sampling, tokenizer = session.experiment.completions, session.tokenizer
    abstract = session.paper()["abstract"]
    prompt, truth = completions.split_prompt(abstract)
    found = exploring.completions_side_by_side(session, abstract, TWO)
    assert list(found.index) == ["authors", *TWO]
    assert found.attrs["prompt"] == prompt and found["completion"]["authors"] == truth
    assert np.isnan(found["semscore"]["authors"])
    base = adapters.load_model(session.experiment, "base", dtype="float32")
    embed = semscore.embedder(session.experiment, base, tokenizer)
    for name in TWO:
        model = adapters.load_model(session.experiment, name, dtype="float32")
        ids = completions.generate(model, tokenizer, [prompt], sampling)[0]
        text = tokenizer.decode(ids, skip_special_tokens=True).strip()
        assert found["completion"][name] == text
        assert found["tokens"][name] == len(ids)
        assert found["entropy_exp"][name] == metrics.exponentiated_entropy(ids)
        score = metrics.cosine(embed([truth]), embed([text]))[0]
        assert found["semscore"][name] == pytest.approx(score, abs=1e-5)


def test_models_are_shown_once_in_the_order_asked(session):
    found = exploring.completions_side_by_side(session, PASTED, [*reversed(TWO), "base"])
    assert list(found.index) == ["authors", *reversed(TWO)]


@pytest.mark.parametrize(
    ("text", "prompt", "truth"),
    [
        ("One two three four.", "One two", "three four."),
        ("no end and no second sentence", "no end and", "no second sentence"),
        ("Alone.", "Alone.", ""),
    ],
)
def test_less_than_two_sentences(session, text, prompt, truth):
    found = exploring.completions_side_by_side(session, text, TWO)
    assert (found.attrs["prompt"], found["completion"]["authors"]) == (prompt, truth)
    # Nothing to compare with has no SemScore, rather than that of an empty text.
    assert found["semscore"][TWO].notna().all() == bool(truth)
    assert colouring.completions(found).data.count('class="card"') == 3


# --- what a user gets wrong -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        (" \r\n \n", "is empty"),
        ("It ends <|end_of_text|> here.", r"contains <\|end_of_text\|>"),
        ("<|begin_of_text|>It begins.", r"contains <\|begin_of_text\|>"),
        ("A chat.<|eot_id|>", r"contains <\|eot_id\|>"),
        ("word " * 3000, r"tokens and the model reads at most 2,048"),
    ],
)
def test_texts_that_cannot_be_used(session, text, says):
    for explore in (
        lambda: exploring.surprise(session, text, tiny.VARIANT),
        lambda: exploring.completions_side_by_side(session, text, TWO),
    ):
        with pytest.raises(UserError, match=says) as raised:
            explore()
        assert "\n" not in str(raised.value)


def test_a_text_is_measured_to_the_last_token_that_fits(session):
    dots = "." * 2047  # a token each, after BOS
    assert len(exploring.surprise(session, dots, tiny.VARIANT)) == 2047
    with pytest.raises(UserError, match=r"has 2,049 tokens"):
        exploring.surprise(session, f"{dots}.", tiny.VARIANT)


def test_a_prompt_leaves_room_for_its_completion(session):
    dots = "." * 2035  # BOS and 12 tokens to come make it 2,048
    assert len(exploring.completions_side_by_side(session, f"{dots} Y.", ["base"])) == 2
    with pytest.raises(UserError, match=r"of which 12 are kept for the completion"):
        exploring.completions_side_by_side(session, f"{dots}. Y.", ["base"])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("s1-lora-all", r"Unknown model 's1-lora-all'. Did you mean 's1-LoRA-all'\?"),
        ("s4-LoRA-QKV", r"no variant of experiment smoke, which has s1-LoRA-all, s1-LoRA-QKV"),
        ("s1-LoRA-QKV", r"not trained in .* run ./run_all.sh .*--variants s1-LoRA-QKV"),
    ],
)
def test_models_that_are_not_there(session, name, says):
    with pytest.raises(UserError, match=says):
        exploring.surprise(session, PASTED, name)
    with pytest.raises(UserError, match=says):
        exploring.completions_side_by_side(session, PASTED, ["base", name])


def test_no_model(session):
    with pytest.raises(UserError, match="No model is chosen"):
        exploring.completions_side_by_side(session, PASTED, [])


def test_papers_by_id(session):
    last = session.papers.iloc[-1]
    assert session.paper(last["id"])["abstract"] == last["abstract"]
    assert session.paper()["id"] == session.papers["id"][0]
    with pytest.raises(UserError, match=re.escape(f"Did you mean {last['id']!r}?")):
        session.paper(last["id"] + "0")


@pytest.mark.parametrize("missing", ["base", "data"])
def test_without_results_it_says_what_to_run(session, stand_in, tmp_path, monkeypatch, missing):
    results = stand_in.experiment.paths.results
    kept = {"base", "data"} - {missing}
    for name in kept:
        shutil.copytree(results / name, tmp_path / "results" / "smoke" / name)
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))
    with pytest.raises(UserError, match=r"nothing of .*: run ./run_all.sh --experiment smoke"):
        Session(stand_in.experiment)


def test_released_scores_have_no_models():
    with pytest.raises(UserError, match="released scores and no models"):
        Session(load.load("published"))


def test_the_notebook_says_in_one_line_what_to_run(tmp_path):
    """Its first cells, run as they are, where nothing has been made."""
    import nbformat

    cells = nbformat.read(NOTEBOOKS / "explore.ipynb", as_version=4).cells
    source = "\n".join(cell.source for cell in cells[:3] if cell.cell_type == "code")
    done = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        cwd=NOTEBOOKS,
        env={**os.environ, "FEYNTUNE_OUTPUT": str(tmp_path), "PYTHONPATH": str(NOTEBOOKS.parent)},
    )
    last = done.stderr.splitlines()[-1]
    assert "UserError" in last and last.endswith("run ./run_all.sh --experiment demo first.")


# --- HTML -------------------------------------------------------------------------------------


def test_every_token_is_shown_with_its_numbers():
    page = colouring.coloured(frame(["We", " <b>", " &amp;"], [1.0, 2.0, 0.5], [1.0, 1.5, 1.5]))
    shown = Shown(page.data).tokens
    assert [token["text"] for token in shown] == ["We", " <b>", " &amp;"]
    assert "base 2.000 nats (13.53%)" in shown[1]["title"]
    assert "s1-LoRA-all 1.500 nats (22.31%)" in shown[1]["title"]
    assert "difference −0.500" in shown[1]["title"] and "difference +1.000" in shown[2]["title"]


def test_texts_and_names_are_escaped():
    hostile = '"><script>alert(1)</script>'
    page = colouring.coloured(frame([hostile], [1.0], [2.0], name=hostile)).data
    cards = pd.DataFrame(
        {"completion": [hostile], "tokens": [1], "semscore": [0.5], "entropy_exp": [1.0]},
        index=pd.Index([hostile], name="model"),
    )
    cards.attrs |= {"prompt": hostile, "label": hostile}
    for shown in (page, colouring.completions(cards).data):
        assert "script" not in Shown(shown).tags and "&lt;script&gt;" in shown
    assert Shown(page).tokens[0]["text"] == hostile


def colours(page: str) -> list[tuple[str, float]]:
    """Colour and opacity of the background of every token."""
    found = re.findall(r"background: rgba\((\d+, \d+, \d+), ([\d.]+)\)", page)
    return [(colour, float(opacity)) for colour, opacity in found]


def test_colours_are_symmetric_and_grow_with_the_difference():
    steps = [-2.0, -1.0, 0.0, 1.0, 2.0]
    page = colouring.coloured(frame(list("abcde"), [3.0] * 5, [3.0 + step for step in steps])).data
    (less, darkest), (_, dark), (_, none), (more, light), (_, lightest) = colours(page)
    assert (less, more) == (colouring.LESS, colouring.MORE)
    assert (darkest, dark, none) == (lightest, light, 0)
    assert darkest == colouring.OPACITY == 2 * dark
    assert "<span>−2</span><span>0</span><span>2</span>" in page


def test_several_variants_share_one_scale_and_one_legend():
    strong = frame(["a"], [3.0], [1.0], name="s1-LoRA-all")
    weak = frame(["a"], [3.0], [2.0], name="s1-LoRA-QKV")
    page = colouring.coloured(strong, weak).data
    assert [opacity for _, opacity in colours(page)] == [0.6, 0.3]
    assert page.count('class="key"') == 1
    assert "2.0 nats less surprised over 1 tokens" in page


def test_what_lies_beyond_the_scale_is_as_its_end_and_said_so():
    values = [0.1] * 199 + [-9.0]
    page = colouring.coloured(frame(["a"] * 200, [10.0] * 200, [10.0 + v for v in values])).data
    assert {opacity for _, opacity in colours(page)} == {colouring.OPACITY}
    assert "<span>≤ −0.1</span><span>0</span><span>≥ 0.1</span>" in page


@pytest.mark.parametrize(
    ("reached", "limit"), [(0, 1), (0.049, 0.05), (0.05, 0.05), (0.3, 0.3), (1.2, 2), (6, 10)]
)
def test_the_scale_ends_at_a_round_number(reached, limit):
    assert colouring.scale_limit([reached, -reached]) == limit


def test_no_difference_has_no_colour():
    page = colouring.coloured(frame(["a", "b"], [1.0, 2.0], [1.0, 2.0])).data
    assert [opacity for _, opacity in colours(page)] == [0, 0]


def test_the_tokens_of_one_character_are_one_piece():
    page = colouring.coloured(frame(["a", "弦", "", ""], [1.0, 1.0, 2.0, 3.0], [1.0] * 4))
    shown = Shown(page.data).tokens
    assert [token["text"] for token in shown] == ["a", "弦"]
    assert shown[1]["title"].startswith("3 tokens together\nbase 6.000 nats")


def luminance(colour) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    parts = np.asarray(colour) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("hue", [colouring.LESS, colouring.MORE])
@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (17, 255)], ids=["light", "dark"])
def test_text_stays_readable_on_the_strongest_colour(hue, paper, ink):
    behind = colouring.OPACITY * np.array([int(part) for part in hue.split(",")])
    behind = behind + (1 - colouring.OPACITY) * paper
    dark, bright = sorted([luminance(behind), luminance([ink] * 3)])
    assert (bright + 0.05) / (dark + 0.05) >= 7


# --- widgets ----------------------------------------------------------------------------------


def test_the_button_shows_what_the_plain_calls_give(session):
    panel = Panel(session)
    assert panel.found.value == NOTHING_YET
    panel.paper.value = session.papers["id"][2]
    abstract = session.papers["abstract"][2]
    assert panel.text.value == abstract
    panel.button.click()
    written = exploring.completions_side_by_side(session, abstract, TWO)
    surprise = exploring.surprise(session, abstract, tiny.VARIANT)
    expected = colouring.completions(written).data + colouring.coloured(surprise).data
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
