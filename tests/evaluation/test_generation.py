"""Batched generation: EOS, sampling settings, and a random generator for every prompt."""

import pytest
import tiny
import torch
from transformers import (
    GenerationConfig,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from feyntune.evaluation import completions, generation
from feyntune.evaluation.completions import split_prompt
from feyntune.experiment import load
from feyntune.models import adapters
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


def counting(stand_in, end_after: int) -> torch.nn.Module:
    """A chain whose token n is followed by n + 1, and token ``end_after`` by EOS."""
    tokenizer = stand_in.tokenizer
    size = len(tokenizer)
    chain = torch.full((size, size), 1e-20)
    for token in range(size):
        following = tokenizer.eos_token_id if token == end_after else (token + 1) % size
        chain[token, following] = 1.0
    return tiny.markov(chain / chain.sum(1, keepdim=True))


def test_stops_at_eos_each_row_in_its_own_time(stand_in, settings):
    tokenizer = stand_in.tokenizer
    prompts = ["x", "b", "ab"]
    starts = [modeling.encode(tokenizer, [p], start=False, eos=False)[0][-1] for p in prompts]
    end = max(starts) + 5
    expected = [list(range(start + 1, end + 1)) for start in starts]
    settings = settings.model_copy(update={"max_new_tokens": max(map(len, expected)) + 3})
    model = counting(stand_in, end)
    assert completions.generate(model, tokenizer, prompts, settings) == expected
    # and without EOS in reach, at the limit
    settings = settings.model_copy(update={"max_new_tokens": 4})
    found = completions.generate(model, tokenizer, prompts, settings)
    assert found == [ids[:4] for ids in expected]


def test_at_least_the_fewest_tokens(stand_in, settings):
    tokenizer = stand_in.tokenizer
    start = modeling.encode(tokenizer, ["x"], start=False, eos=False)[0][-1]
    model = counting(stand_in, start)  # would end at once
    settings = settings.model_copy(update={"min_new_tokens": 3})
    (ids,) = completions.generate(model, tokenizer, ["x"], settings)
    assert len(ids) >= 3


def test_left_padding_changes_nothing(stand_in, settings):
    """With the likeliest token taken each time, a batch equals its prompts one by one."""
    greedy = settings.model_copy(update={"top_k": 1, "batch_size": 5})
    model, tokenizer = stand_in.base(), stand_in.tokenizer
    together = completions.generate(model, tokenizer, PROMPTS, greedy)
    alone = [completions.generate(model, tokenizer, [p], greedy)[0] for p in PROMPTS]
    assert together == alone
    # and that is really what the model finds likeliest, without any padding or cache
    for prompt, found in zip(PROMPTS, together, strict=True):
        ids = modeling.encode(tokenizer, [prompt], start=False, eos=False)[0]
        for token in found[:8]:
            with torch.no_grad():
                assert model(input_ids=torch.tensor([ids])).logits[0, -1].argmax() == token
            ids = [*ids, token]


def test_same_seed_same_texts(stand_in, settings):
    model, tokenizer = stand_in.base(), stand_in.tokenizer
    torch.manual_seed(1)
    first = completions.generate(model, tokenizer, PROMPTS, settings)
    torch.manual_seed(2)
    assert completions.generate(model, tokenizer, PROMPTS, settings) == first
    other = settings.model_copy(update={"seed": settings.seed + 1})
    assert completions.generate(model, tokenizer, PROMPTS, other) != first
    assert all(1 <= len(ids) <= 24 for ids in first)
    eos = tokenizer.eos_token_id
    assert not any(eos in ids for ids in first)


def test_nothing_but_the_nucleus_is_sampled(stand_in, settings):
    """Probabilities 0.5, 0.3, 0.15, 0.05: top-p 0.7 keeps two of them, top-k 3 three."""
    tokenizer = stand_in.tokenizer
    size = len(tokenizer)
    chain = torch.full((size, size), 1e-20)
    chain[:, [10, 20, 30, 40]] = torch.tensor([0.5, 0.3, 0.15, 0.05])
    model = tiny.markov(chain / chain.sum(1, keepdim=True))
    plain = {"temperature": 1.0, "top_p": 1.0, "top_k": 50, "max_new_tokens": 200}

    def drawn(**update) -> list[int]:
        chosen = settings.model_copy(update=plain | update)
        (ids,) = completions.generate(model, tokenizer, ["x"], chosen)
        return ids

    assert set(drawn()) == {10, 20, 30, 40}
    assert set(drawn(top_p=0.7)) == {10, 20}
    assert set(drawn(top_k=3)) == {10, 20, 30}
    # temperature 0.5 squares the probabilities: 0.25 / (0.25 + 0.09 + 0.0225 + 0.0025)
    assert drawn(temperature=0.5).count(10) / 200 == pytest.approx(0.685, abs=0.1)


def test_settings_are_the_published_ones(stand_in):
    for name in ("demo", "paper"):
        published = load.load(name).completions
        assert (published.temperature, published.top_p, published.top_k) == (0.7, 0.9, 50)
        assert (published.min_new_tokens, published.bos, published.seed) == (1, False, 42)
    assert (published.max_new_tokens, published.dtype) == (1024, "float16")
    config = generation.generation_config(published, [stand_in.tokenizer.eos_token_id])
    assert (config.min_new_tokens, config.max_new_tokens) == (1, 1024)
    assert config.repetition_penalty == 1.0 and config.num_return_sequences == 1
    assert config.eos_token_id == [config.pad_token_id] == [stand_in.tokenizer.eos_token_id]


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [
        (0.7, 50, 0.9),
        (1.0, 50, 1.0),
        (2.0, 7, 0.5),
        (1.0, 1, 0.9),
        (0.7, 5000, 0.3),
        (1.3, 3, 1e-9),
    ],
)
def test_a_draw_has_the_probabilities_of_the_librarys_processors(
    settings, temperature, top_k, top_p
):
    """Evenly spread numbers fall on every token as often as its probability says."""
    chosen = settings.model_copy(
        update={"temperature": temperature, "top_k": top_k, "top_p": top_p}
    )
    number, prompt = 4000, torch.zeros(1, 3, dtype=torch.long)
    scores = 3 * torch.randn(1, 600, generator=torch.Generator().manual_seed(5))
    uniform = (torch.arange(number, dtype=torch.float64)[:, None] + 0.5) / number
    draws = generation.DrawLogitsProcessor(chosen, uniform, width=3)
    drawn = draws(prompt.expand(number, 3), scores.expand(number, 600))
    assert (drawn.isfinite().sum(-1) == 1).all()
    found = torch.bincount(drawn.argmax(-1), minlength=600) / number
    warpers = (
        TemperatureLogitsWarper(temperature),
        TopKLogitsWarper(top_k),
        TopPLogitsWarper(top_p),
    )
    for warp in warpers:
        scores = warp(prompt, scores)
    expected = scores.softmax(-1)[0]
    assert (found - expected).abs().max() <= 1.5 / number
    assert not found[expected == 0].any()


def test_each_column_has_its_own_number(settings):
    scores = torch.zeros(2, 10)
    uniform = torch.tensor([[0.05, 0.95], [0.55, 0.15]], dtype=torch.float64)
    plain = settings.model_copy(update={"temperature": 1.0, "top_k": 10, "top_p": 1.0})
    draws = generation.DrawLogitsProcessor(plain, uniform, width=4)
    order = scores.topk(10).indices[0].tolist()
    for column, expected in enumerate([(0, 5), (9, 1)]):
        ids = torch.zeros(2, 4 + column, dtype=torch.long)
        assert draws(ids, scores).argmax(-1).tolist() == [order[i] for i in expected]


def test_the_models_own_generation_file_has_no_say(stand_in, settings):
    model, tokenizer = stand_in.base(), stand_in.tokenizer
    # Values that a library takes for "not given" must hold against the file too.
    settings = settings.model_copy(update={"temperature": 1.0, "top_p": 1.0})
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
    )
    assert completions.generate(model, tokenizer, PROMPTS, settings) == expected


@pytest.mark.parametrize("bos", [False, True])
def test_prompts_are_given_without_bos_unless_asked_for(stand_in, settings, bos):
    model, tokenizer = stand_in.base(), stand_in.tokenizer
    seen = []
    model.model.embed_tokens.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    settings = settings.model_copy(update={"bos": bos, "max_new_tokens": 1, "batch_size": 5})
    completions.generate(model, tokenizer, PROMPTS, settings)
    rows = seen[0].tolist()
    assert len(rows) == 5
    eos = tokenizer.eos_token_id
    given = [[token for token in row if token != eos] for row in rows]
    wanted = [tokenizer(p, add_special_tokens=False)["input_ids"] for p in PROMPTS]
    wanted = [[tokenizer.bos_token_id] * bos + ids for ids in wanted]
    assert sorted(given) == sorted(wanted)
    assert all(row[-1] != eos for row in rows)  # padding is on the left


# --- a seed for every prompt --------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(stand_in):
    return [split_prompt(text)[0] for text in stand_in.rows("train")["abstract"]] + PROMPTS


@pytest.fixture(scope="module")
def alone(stand_in, settings, many):
    """Every prompt by itself, hot enough for completions of all lengths."""
    model, tokenizer = stand_in.base(), stand_in.tokenizer
    found = {p: completions.generate(model, tokenizer, [p], hot(settings))[0] for p in many}
    lengths = list(map(len, found.values()))
    assert len(set(lengths)) > 5, "too few end by themselves"
    return found


def hot(settings):
    # Which prompts end by themselves within so many tokens depends on the processor's last digits.
    wide = {"temperature": 1.5, "top_p": 1.0, "top_k": 300, "max_new_tokens": 48}
    return settings.model_copy(update=wide)


@pytest.mark.parametrize("batch_size", [2, 5, 64])
@pytest.mark.parametrize("order", [1, -1])
def test_a_completion_does_not_depend_on_its_neighbours(
    stand_in, settings, many, alone, batch_size, order
):
    chosen = hot(settings).model_copy(update={"batch_size": batch_size})
    prompts = many[::order]
    found = completions.generate(stand_in.base(), stand_in.tokenizer, prompts, chosen)
    assert found == [alone[prompt] for prompt in prompts]


@pytest.mark.parametrize("at_once", [1, 2])
def test_out_of_memory_halves_the_batch_and_changes_nothing(
    stand_in, settings, many, alone, monkeypatch, capsys, at_once
):
    batch = generation._sample_batch

    def small(model, rows, *given):
        if len(rows) <= at_once:
            return batch(model, rows, *given)
        ended, asked = given[-1], []
        with pytest.raises(StopIteration):  # one has ended when memory runs out

            def first(row, ids):
                asked.append(row)
                ended(row, ids)
                raise StopIteration

            batch(model, rows, *given[:-1], first)
        assert asked
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(generation, "_sample_batch", small)
    chosen = hot(settings).model_copy(update={"batch_size": 4})
    found = completions.generate(stand_in.base(), stand_in.tokenizer, many, chosen)
    assert found == [alone[prompt] for prompt in many]
    assert f"now {at_once} completions at a time" in capsys.readouterr().out


def test_out_of_memory_with_one_at_a_time_is_an_error(stand_in, settings, many, monkeypatch):
    def none(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(generation, "_sample_batch", none)
    with pytest.raises(torch.OutOfMemoryError):
        completions.generate(stand_in.base(), stand_in.tokenizer, many[:3], settings)


def test_nor_does_that_of_a_variant(stand_in, settings, many):
    model = adapters.load_model(stand_in.experiment, tiny.VARIANT, dtype="float32")
    tokenizer, chosen = stand_in.tokenizer, hot(settings)
    together = completions.generate(model, tokenizer, many, chosen)
    assert together[::5] == completions.generate(model, tokenizer, many[::5], chosen)


def test_every_prompt_and_every_seed_has_numbers_of_its_own():
    seeds = {generation.prompt_seed(seed, prompt) for seed in range(20) for prompt in PROMPTS}
    assert len(seeds) == 20 * len(PROMPTS)
    assert all(0 <= seed < 2**63 for seed in seeds)
    # Results that are already there depend on it.
    assert generation.prompt_seed(42, "We study") == 4892135416745857978


def test_what_has_ended_costs_no_more(stand_in, settings):
    """Eight rows, of which one ends at each step: a batch is halved, not run to its end."""
    tokenizer = stand_in.tokenizer
    prompts = list("abcdefgh")
    starts = [modeling.encode(tokenizer, [p], start=False, eos=False)[0][-1] for p in prompts]
    assert starts == list(range(starts[0], starts[0] + 8)), "letters are neighbours"
    model = counting(stand_in, starts[-1] + 2)
    rows = []
    model.model.embed_tokens.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    chosen = settings.model_copy(update={"batch_size": 8})
    found = completions.generate(model, tokenizer, prompts, chosen)
    assert list(map(len, found)) == [9, 8, 7, 6, 5, 4, 3, 2]
    # The first to end takes 3 steps; after 6 four have; then two, one and one.
    assert rows == [8] * 6 + [4] * 2 + [2] + [1]


def test_least_and_most_tokens_hold_across_halvings(stand_in, settings):
    tokenizer = stand_in.tokenizer
    (start,) = modeling.encode(tokenizer, ["a"], start=False, eos=False)[0]
    model = counting(stand_in, start + 1)  # of "a" would be one token; "e" never ends
    chosen = settings.model_copy(update={"min_new_tokens": 3, "max_new_tokens": 7, "batch_size": 2})
    short, long = completions.generate(model, tokenizer, ["a", "e"], chosen)
    assert 3 <= len(short) <= 7 and len(long) == 7
