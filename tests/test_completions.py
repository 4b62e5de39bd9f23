"""The published prompt split, and batched generation."""

import pytest
import tiny
import torch
from transformers import GenerationConfig

from feyntune import completions, experiment, modeling
from feyntune.completions import split_prompt

PROMPTS = [
    "We study",
    "In this paper we compute the one-loop effective action of the theory and",
    "Black holes in anti-de Sitter space have been studied for many years. We show that the",
    "The",
    "It is well known that supersymmetry",
]


@pytest.fixture(scope="module")
def sampling(stand_in):
    return stand_in.experiment.completions.model_copy(
        update={"max_new_tokens": 24, "batch_size": 3}
    )


# --- the split --------------------------------------------------------------------------------


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


# --- generation -------------------------------------------------------------------------------


def counting(stand_in, end_after: int) -> torch.nn.Module:
    """A chain whose token n is followed by n + 1, and token ``end_after`` by EOS."""
    tokenizer = stand_in.tokenizer
    size = len(tokenizer)
    chain = torch.full((size, size), 1e-20)
    for token in range(size):
        following = tokenizer.eos_token_id if token == end_after else (token + 1) % size
        chain[token, following] = 1.0
    return tiny.markov(chain / chain.sum(1, keepdim=True))


def test_stops_at_eos_each_row_in_its_own_time(stand_in, sampling):
    tokenizer = stand_in.tokenizer
    prompts = ["x", "b", "ab"]
    starts = [modeling.encode(tokenizer, [p], bos=False, eos=False)[0][-1] for p in prompts]
    end = max(starts) + 5
    expected = [list(range(start + 1, end + 1)) for start in starts]
    settings = sampling.model_copy(update={"max_new_tokens": max(map(len, expected)) + 3})
    model = counting(stand_in, end)
    assert completions.generate(model, tokenizer, prompts, settings) == expected
    # and without EOS in reach, at the limit
    settings = sampling.model_copy(update={"max_new_tokens": 4})
    found = completions.generate(model, tokenizer, prompts, settings)
    assert found == [ids[:4] for ids in expected]


def test_at_least_the_fewest_tokens(stand_in, sampling):
    tokenizer = stand_in.tokenizer
    start = modeling.encode(tokenizer, ["x"], bos=False, eos=False)[0][-1]
    model = counting(stand_in, start)  # would end at once
    settings = sampling.model_copy(update={"min_new_tokens": 3})
    (ids,) = completions.generate(model, tokenizer, ["x"], settings)
    assert len(ids) >= 3


def test_left_padding_changes_nothing(stand_in, sampling):
    """With the likeliest token taken each time, a batch equals its prompts one by one."""
    greedy = sampling.model_copy(update={"top_k": 1, "batch_size": 5})
    model, tokenizer = stand_in.base(), stand_in.tokenizer
    together = completions.generate(model, tokenizer, PROMPTS, greedy)
    alone = [completions.generate(model, tokenizer, [p], greedy)[0] for p in PROMPTS]
    assert together == alone
    # and that is really what the model finds likeliest, without any padding or cache
    for prompt, found in zip(PROMPTS, together, strict=True):
        ids = modeling.encode(tokenizer, [prompt], bos=False, eos=False)[0]
        for token in found[:8]:
            with torch.no_grad():
                assert model(input_ids=torch.tensor([ids])).logits[0, -1].argmax() == token
            ids = [*ids, token]


def test_same_seed_same_texts(stand_in, sampling):
    model, tokenizer = stand_in.base(), stand_in.tokenizer
    torch.manual_seed(1)
    first = completions.generate(model, tokenizer, PROMPTS, sampling)
    torch.manual_seed(2)
    assert completions.generate(model, tokenizer, PROMPTS, sampling) == first
    other = sampling.model_copy(update={"seed": sampling.seed + 1})
    assert completions.generate(model, tokenizer, PROMPTS, other) != first
    assert all(1 <= len(ids) <= 24 for ids in first)
    eos = tokenizer.eos_token_id
    assert not any(eos in ids for ids in first)


def test_nothing_but_the_nucleus_is_sampled(stand_in, sampling):
    """Probabilities 0.5, 0.3, 0.15, 0.05: top-p 0.7 keeps two of them, top-k 3 three."""
    tokenizer = stand_in.tokenizer
    size = len(tokenizer)
    chain = torch.full((size, size), 1e-20)
    chain[:, [10, 20, 30, 40]] = torch.tensor([0.5, 0.3, 0.15, 0.05])
    model = tiny.markov(chain / chain.sum(1, keepdim=True))
    plain = {"temperature": 1.0, "top_p": 1.0, "top_k": 50, "max_new_tokens": 200}

    def drawn(**update) -> list[int]:
        settings = sampling.model_copy(update=plain | update)
        (ids,) = completions.generate(model, tokenizer, ["x"], settings)
        return ids

    assert set(drawn()) == {10, 20, 30, 40}
    assert set(drawn(top_p=0.7)) == {10, 20}
    assert set(drawn(top_k=3)) == {10, 20, 30}
    # temperature 0.5 squares the probabilities: 0.25 / (0.25 + 0.09 + 0.0225 + 0.0025)
    assert drawn(temperature=0.5).count(10) / 200 == pytest.approx(0.685, abs=0.1)


def test_generation_config_is_the_published_one(stand_in):
    demo = experiment.load("demo").completions
    config = completions.generation_config(demo, stand_in.tokenizer)
    assert config.do_sample is True
    assert (config.temperature, config.top_p, config.top_k) == (0.7, 0.9, 50)
    assert (config.min_new_tokens, config.max_new_tokens) == (1, demo.max_new_tokens)
    assert config.repetition_penalty == 1.0 and config.num_return_sequences == 1
    assert config.eos_token_id == config.pad_token_id == stand_in.tokenizer.eos_token_id
    assert demo.bos is False and demo.seed == 42


def test_the_models_own_generation_file_has_no_say(stand_in, sampling):
    model, tokenizer = stand_in.base(), stand_in.tokenizer
    # Values that a library takes for "not given" must hold against the file too.
    settings = sampling.model_copy(update={"temperature": 1.0, "top_p": 1.0})
    expected = completions.generate(model, tokenizer, PROMPTS, settings)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=0.1,
        top_p=0.1,
        top_k=2,
        min_p=0.5,
        typical_p=0.2,
        epsilon_cutoff=0.05,
        repetition_penalty=5.0,
        no_repeat_ngram_size=1,
        num_beams=2,
        max_new_tokens=2,
        min_new_tokens=2,
        eos_token_id=17,
    )
    assert completions.generate(model, tokenizer, PROMPTS, settings) == expected


@pytest.mark.parametrize("bos", [False, True])
def test_prompts_are_given_without_bos_unless_asked_for(stand_in, sampling, bos):
    model, tokenizer = stand_in.base(), stand_in.tokenizer
    seen = []
    model.model.embed_tokens.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    settings = sampling.model_copy(update={"bos": bos, "max_new_tokens": 1, "batch_size": 5})
    completions.generate(model, tokenizer, PROMPTS, settings)
    rows = seen[0].tolist()
    assert len(rows) == 5
    eos = tokenizer.eos_token_id
    given = [[token for token in row if token != eos] for row in rows]
    wanted = [tokenizer(p, add_special_tokens=False)["input_ids"] for p in PROMPTS]
    wanted = [[tokenizer.bos_token_id] * bos + ids for ids in wanted]
    assert sorted(given) == sorted(wanted)
    assert all(row[-1] != eos for row in rows)  # padding is on the left


def test_until():
    assert completions.until([3, 1, 2, 1], 1) == [3]
    assert completions.until([3, 2], 1) == [3, 2]
    assert completions.until([1], 1) == []
