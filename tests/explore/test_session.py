"""One abstract under several models: numbers that are the notebooks', and what cannot be used."""

import re
import shutil
import warnings

import nbformat
import numpy as np
import pandas as pd
import pytest
import tiny

from feyntune.errors import UserError
from feyntune.evaluation import completions, metrics, perplexity, semscore
from feyntune.experiment import load
from feyntune.explore import colours
from feyntune.explore.session import Session
from feyntune.models import adapters
from feyntune.models import base as modeling
from feyntune.paths import NOTEBOOKS

TWO = ["base", tiny.VARIANT]
PASTED = "We study strings\r\n  on a torus.\nWe find  $E=mc^2$, as Schrödinger's 弦 𝔤 \u2192 x."


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


# --- a text of one's own ----------------------------------------------------------------------


def test_all_of_a_text_is_continued_as_notebook_04_does(session):
    """The same prompt, whatever its line breaks, gets the same completion."""
    prompt = completions.split_prompt(session.paper()["abstract"])[0]
    settings = session.experiment.completions
    for name in TWO:
        model = adapters.load_model(session.experiment, name, dtype=settings.dtype)
        [ids] = completions.generate(model, session.tokenizer, [prompt], settings)
        found = session.continuation(prompt.replace(" ", "\n") + "\n", name)
        assert found == session.tokenizer.decode(ids, skip_special_tokens=True).rstrip()


def test_the_first_token_has_no_surprise_where_nothing_stands_before_it(session):
    whole = session.surprise(session.paper()["abstract"], tiny.VARIANT)
    before, session.tokenizer.start_ids = session.tokenizer.start_ids, []
    try:
        found = session.surprise(session.paper()["abstract"], tiny.VARIANT)
    finally:
        session.tokenizer.start_ids = before
    assert found["token"].tolist() == whole["token"].tolist()
    assert found["nll_base"].isna().tolist() == [True] + [False] * (len(found) - 1)


# --- surprise ---------------------------------------------------------------------------------


def test_sums_are_the_nll_of_notebook_03(session, stored):
    for row in range(len(session.papers)):
        found = session.surprise(session.papers["abstract"][row], tiny.VARIANT)
        sums = [found["nll_base"].sum(), found["nll_variant"].sum()]
        expected = [stored[name]["nll"][row] for name in TWO]
        np.testing.assert_allclose(sums, expected, rtol=1e-6)
        assert len(found) == stored["base"]["tokens"][row]
    assert abs(sums[0] - sums[1]) > 1e-3 * sums[0]  # two models, not one twice


def test_difference_is_variant_less_base(session):
    found = session.surprise(session.paper()["abstract"], tiny.VARIANT)
    assert (found["difference"] == found["nll_variant"] - found["nll_base"]).all()
    assert found["difference"].abs().max() > 0.01
    assert found.attrs == {"variant": tiny.VARIANT, "label": "stand-in corpus and model"}


def test_base_is_bare_again_after_a_variant(session, recwarn):
    text = session.paper()["abstract"]
    first = session.surprise(text, tiny.VARIANT)
    again = session.surprise(text, tiny.VARIANT)
    assert (session.surprise(text, "base")["difference"] == 0).all()
    pd.testing.assert_frame_equal(first, again)
    assert not [w for w in recwarn if "multiple adapters" in str(w.message)]


def test_one_base_is_loaded(session, monkeypatch):
    session.base("float32")
    monkeypatch.setattr("feyntune.explore.session.load_base", None)  # nothing calls it again
    session.complete(PASTED, TWO)
    session.surprise(PASTED, tiny.VARIANT)


@pytest.mark.parametrize("text", [PASTED, "Alone.", "x", "one sentence without an end"])
def test_tokens_make_up_the_text(session, text):
    found = session.surprise(text, tiny.VARIANT)
    assert "".join(found["token"]) == session.cleaned(text)
    ids = modeling.encode(session.tokenizer, [session.cleaned(text)], eos=False)[0]
    assert len(found) == len(ids) - 1


def test_a_character_of_several_tokens_is_shown_once(session):
    found = session.surprise("弦", tiny.VARIANT)
    assert list(found["token"]) == ["弦", "", ""]


def test_line_breaks_are_cleaned_as_in_curation(session):
    assert session.cleaned(" a\r\n  b\nc ") == "a b c"


# --- completions ------------------------------------------------------------------------------


def test_completions_are_those_of_each_model_by_itself(session):
    sampling, tokenizer = session.experiment.completions, session.tokenizer
    abstract = session.paper()["abstract"]
    prompt, truth = completions.split_prompt(abstract)
    found = session.complete(abstract, TWO)
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
    found = session.complete(PASTED, [*reversed(TWO), "base"])
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
    found = session.complete(text, TWO)
    assert (found.attrs["prompt"], found["completion"]["authors"]) == (prompt, truth)
    # Nothing to compare with has no SemScore, rather than that of an empty text.
    assert found["semscore"][TWO].notna().all() == bool(truth)
    assert colours.completions(found).data.count('class="card"') == 3


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
        lambda: session.surprise(text, tiny.VARIANT),
        lambda: session.complete(text, TWO),
    ):
        with pytest.raises(UserError, match=says) as raised:
            explore()
        assert "\n" not in str(raised.value)


def test_a_text_is_measured_to_the_last_token_that_fits(session):
    dots = "." * 2047  # a token each, after BOS
    assert len(session.surprise(dots, tiny.VARIANT)) == 2047
    with pytest.raises(UserError, match=r"has 2,049 tokens"):
        session.surprise(f"{dots}.", tiny.VARIANT)


def test_a_prompt_leaves_room_for_its_completion(session):
    dots = "." * 2035  # BOS and 12 tokens to come make it 2,048
    assert len(session.complete(f"{dots} Y.", ["base"])) == 2
    with pytest.raises(UserError, match=r"of which 12 are kept for the completion"):
        session.complete(f"{dots}. Y.", ["base"])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "s1-lora-all",
            r"Unknown model 's1-lora-all' of experiment smoke. Did you mean 's1-LoRA-all'\?",
        ),
        (
            "s4-LoRA-QKV",
            r"Unknown model 's4-LoRA-QKV' of experiment smoke.* Valid: base, s1-LoRA-all",
        ),
        ("s1-LoRA-QKV", r"not trained in .* run ./run_all.sh .*--variants s1-LoRA-QKV"),
    ],
)
def test_models_that_are_not_there(session, name, says):
    with pytest.raises(UserError, match=says):
        session.surprise(PASTED, name)
    with pytest.raises(UserError, match=says):
        session.complete(PASTED, ["base", name])


def test_no_model(session):
    with pytest.raises(UserError, match="No model is chosen"):
        session.complete(PASTED, [])


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


def test_the_notebook_says_in_one_line_what_to_run(tmp_path, monkeypatch):
    """Its first cells, run as they are, where nothing has been made."""
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))
    cells = nbformat.read(NOTEBOOKS / "explore.ipynb", as_version=4).cells
    source = "\n".join(cell.source for cell in cells[:3] if cell.cell_type == "code")
    with warnings.catch_warnings(), pytest.raises(UserError) as raised:
        exec(compile(source, "explore.ipynb", "exec"), {})
    said = str(raised.value)
    assert said.endswith("run ./run_all.sh --experiment demo first.") and "\n" not in said
