"""The published prompt split, prompts that cannot be completed, and resuming a killed run."""

import json

import pytest
import tiny

from feyntune.errors import UserError
from feyntune.evaluation import completions, generation
from feyntune.evaluation.completions import SavedCompletions, split_prompt
from feyntune.models import base as modeling

PROMPTS = [
    "We study",
    "In this paper we compute the one-loop effective action of the theory and",
    "Black holes in anti-de Sitter space have been studied for many years. We show that the",
    "The",
    "It is well known that supersymmetry",
]


@pytest.fixture(scope="module")
def settings(stand_in):
    return stand_in.experiment.completions.model_copy(
        update={"max_new_tokens": 24, "batch_size": 3}
    )


# --- the split ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("abstract", "prompt", "truth"),
    [
        # one sentence: half of its words, rounded up
        ("One two three four.", "One two", "three four."),
        ("One two three four five.", "One two three", "four five."),
        ("Alone.", "Alone.", ""),
        # sentences: the first half, rounded up
        ("A first. A second.", "A first.", "A second."),
        ("A first. A second. A third.", "A first. A second.", "A third."),
        ("One a. Two b. Three c. Four d.", "One a. Two b.", "Three c. Four d."),
        ("Is it so? It is! We prove it.", "Is it so? It is!", "We prove it."),
        ("Why?  Because.\nAnd so", "Why? Because.", "And so"),
        # a full stop without a blank after it ends nothing
        ("We find 3.14 at arXiv:1.2 scales", "We find 3.14", "at arXiv:1.2 scales"),
        # the published rule knows no abbreviations
        ("See e.g. the work of Witten.", "See e.g.", "the work of Witten."),
    ],
)
def test_split_by_hand(abstract, prompt, truth):
    assert split_prompt(abstract) == (prompt, truth)


def test_split_loses_no_word_of_a_real_abstract(stand_in):
    for abstract in stand_in.rows("test")["abstract"]:
        prompt, truth = split_prompt(abstract)
        assert prompt and truth
        assert f"{prompt} {truth}".split() == abstract.split()


# --- prompts that cannot be completed -----------------------------------------------------------


def test_a_prompt_without_room_for_its_completion_is_named(stand_in, settings):
    model, tokenizer = stand_in.base(), stand_in.tokenizer
    context = model.config.max_position_embeddings
    (length,) = map(len, modeling.encode(tokenizer, [PROMPTS[2]], start=False, eos=False))
    names = ["0806.1218", "hep-th/9912072"]
    fits = settings.model_copy(update={"max_new_tokens": context - length})
    completions.check_prompts([[1], [1] * length], names, fits, context)  # to the last token
    over = settings.model_copy(update={"max_new_tokens": context - length + 1})
    with pytest.raises(UserError, match=rf"abstract hep-th/9912072 has {length} tokens.*max_new"):
        completions.generate(model, tokenizer, ["We", PROMPTS[2]], over, names=names)
    # without names the prompt says which it is
    with pytest.raises(UserError, match="abstract 'Black holes in anti-de Sitter"):
        completions.generate(model, tokenizer, ["We", PROMPTS[2]], over)


def test_an_empty_prompt_is_named(stand_in, settings):
    with pytest.raises(UserError, match=r"abstract 2401\.1 is empty"):
        completions.generate(
            stand_in.base(), stand_in.tokenizer, ["We", ""], settings, names=["2401.0", "2401.1"]
        )


def test_a_special_token_in_a_prompt_is_refused(stand_in, settings):
    with pytest.raises(UserError, match="special token"):
        completions.generate(
            stand_in.base(), stand_in.tokenizer, [stand_in.tokenizer.eos_token], settings
        )


def test_another_models_tokenizer_is_refused(stand_in, settings):
    model = stand_in.base()
    model.config.eos_token_id = 7
    with pytest.raises(UserError, match="BOS and EOS differ"):
        completions.generate(model, stand_in.tokenizer, PROMPTS[:1], settings)


# --- resuming -----------------------------------------------------------------------------------


def no_model(*_, **__):
    raise AssertionError("asked for again")


def record_sampled(monkeypatch) -> list:
    """A list to which every sequence is added that is sampled from now on."""
    asked, sample = [], generation.sample

    def recorded(model, sequences, *rest, **named):
        asked.extend(sequences)
        sample(model, sequences, *rest, **named)

    monkeypatch.setattr(generation, "sample", recorded)
    return asked


def test_nothing_is_asked_twice(stand_in, settings, tmp_path, monkeypatch):
    file, model, tokenizer = tmp_path / "kept.jsonl", stand_in.base(), stand_in.tokenizer
    expected = completions.generate(model, tokenizer, PROMPTS, settings)
    some = completions.generate(
        model, tokenizer, PROMPTS[1:3], settings, saved=SavedCompletions(file, "this model")
    )
    assert some == expected[1:3]
    with monkeypatch.context() as patch:
        patch.setattr(generation, "sample", no_model)
        again = completions.generate(
            model, tokenizer, PROMPTS[2:0:-1], settings, saved=SavedCompletions(file, "this model")
        )
        assert again == expected[2:0:-1]
        with pytest.raises(AssertionError, match="asked for again"):  # of another model
            completions.generate(
                model, tokenizer, PROMPTS[1:3], settings, saved=SavedCompletions(file, "other")
            )
    asked = record_sampled(monkeypatch)
    saved = SavedCompletions(file, "this model")
    assert completions.generate(model, tokenizer, PROMPTS, settings, saved=saved) == expected
    assert len(asked) == len(PROMPTS) - 2


def test_a_torn_or_damaged_line_is_none(tmp_path):
    file = tmp_path / "kept.jsonl"
    saved = SavedCompletions(file, "a")
    saved.add("first", [1, 2])
    saved.add("second", [])
    saved.add("third", [3])
    lines = file.read_bytes().splitlines(keepends=True)
    for torn in (lines[2][:-1], lines[2][:5], b"\0\0\0"):
        file.write_bytes(b"".join(lines[:2]) + torn)
        saved = SavedCompletions(file, "a")
        assert saved.find(["third", "second", "first"]) == {1: [], 2: [1, 2]}
        saved.add("third", [4])  # begins a line of its own
        assert SavedCompletions(file, "a").find(["first", "third"]) == {0: [1, 2], 1: [4]}
    for damaged in (b"rubbish\n", b"[1]\n", b'{"key": "x"}\n', b'{"key": "x", "ids": 5}\n'):
        file.write_bytes(lines[0] + damaged + lines[1])
        assert SavedCompletions(file, "a").find(["first", "second", "third"]) == {0: [1, 2], 1: []}


def test_the_key_is_all_that_a_completion_depends_on(stand_in, tmp_path, monkeypatch):
    base = stand_in.experiment
    of_base = completions.completions_key(base, "base")
    of_variant = completions.completions_key(base, tiny.VARIANT)
    assert of_base != of_variant

    def changed(**update):
        section = base.completions.model_copy(update=update)
        return completions.completions_key(base.model_copy(update={"completions": section}), "base")

    assert changed(batch_size=7, abstracts=3, embedder="another") == of_base
    others = [changed(temperature=0.71), changed(seed=1), changed(max_new_tokens=9)]
    assert len({of_base, *others}) == 4
    weights = base.paths.adapter(tiny.VARIANT) / "adapter_model.safetensors"
    whole = weights.read_bytes()
    try:
        weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert completions.completions_key(base, tiny.VARIANT) != of_variant
        assert completions.completions_key(base, "base") == of_base
    finally:
        weights.write_bytes(whole)


def test_a_killed_run_goes_on_and_ends_the_same(stand_in, tmp_path, monkeypatch):
    """Stopped at a step at which five completions are on the disk, as a kill would leave them."""
    update = {"temperature": 1.5, "top_p": 1.0, "top_k": 300, "max_new_tokens": 24, "batch_size": 4}
    hot = stand_in.experiment.completions.model_copy(update=update)
    prompts = [split_prompt(text)[0] for text in stand_in.rows("train")["abstract"]]
    file, key = tmp_path / "kept.jsonl", completions.completions_key(stand_in.experiment, "base")
    model, tokenizer = stand_in.base(), stand_in.tokenizer
    undisturbed = completions.generate(model, tokenizer, prompts, hot)

    def kill(*_):
        if file.exists() and file.read_bytes().count(b"\n") >= 5:
            raise KeyboardInterrupt

    hook = model.register_forward_pre_hook(kill)
    with pytest.raises(KeyboardInterrupt):
        completions.generate(model, tokenizer, prompts, hot, saved=SavedCompletions(file, key))
    hook.remove()
    lines = file.read_bytes().splitlines()
    assert 5 <= len(lines) < len(undisturbed)
    keys = [json.loads(line)["key"] for line in lines]
    assert len(set(keys)) == len(keys), "something was asked twice"
    with file.open("ab") as torn:
        torn.write(b'{"key": "0123')
    asked = record_sampled(monkeypatch)
    saved = SavedCompletions(file, key)
    assert completions.generate(model, tokenizer, prompts, hot, saved=saved) == undisturbed
    assert len(asked) == len(undisturbed) - len(keys)
