"""The published prompt split; batched generation; what a killed run leaves."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import torch
from transformers import (
    GenerationConfig,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from feyntune.errors import UserError
from feyntune.evaluation import completions, generation
from feyntune.evaluation.completions import Kept, split_prompt
from feyntune.experiment import load
from feyntune.models import adapters
from feyntune.models import base as modeling
from feyntune.paths import REPOSITORY

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


def test_stops_at_eos_each_row_in_its_own_time(stand_in, settings):
    tokenizer = stand_in.tokenizer
    prompts = ["x", "b", "ab"]
    starts = [modeling.encode(tokenizer, [p], bos=False, eos=False)[0][-1] for p in prompts]
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
    start = modeling.encode(tokenizer, ["x"], bos=False, eos=False)[0][-1]
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
        ids = modeling.encode(tokenizer, [prompt], bos=False, eos=False)[0]
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
    config = generation.generation_config(published, stand_in.tokenizer.eos_token_id)
    assert (config.min_new_tokens, config.max_new_tokens) == (1, 1024)
    assert config.repetition_penalty == 1.0 and config.num_return_sequences == 1
    assert config.eos_token_id == config.pad_token_id == stand_in.tokenizer.eos_token_id


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
    draws = generation.Draws(chosen, uniform, width=3)
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
    draws = generation.Draws(plain, uniform, width=4)
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
        eos_token_id=17,
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


# --- a seed for every prompt ------------------------------------------------------------------


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
    wide = {"temperature": 1.5, "top_p": 1.0, "top_k": 300}
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


def test_another_models_tokenizer_is_refused(stand_in, settings, many):
    model = stand_in.base()
    model.config.eos_token_id = 7
    with pytest.raises(UserError, match="BOS and EOS differ"):
        completions.generate(model, stand_in.tokenizer, many[:1], settings)


def test_nor_does_that_of_a_variant(stand_in, settings, many):
    model = adapters.load_model(stand_in.experiment, tiny.VARIANT, dtype="float32")
    tokenizer, chosen = stand_in.tokenizer, hot(settings)
    together = completions.generate(model, tokenizer, many, chosen)
    assert together[::5] == completions.generate(model, tokenizer, many[::5], chosen)


def test_every_prompt_and_every_seed_has_numbers_of_its_own():
    seeds = {generation.seed_of(seed, prompt) for seed in range(20) for prompt in PROMPTS}
    assert len(seeds) == 20 * len(PROMPTS)
    assert all(0 <= seed < 2**63 for seed in seeds)
    # Results that are already there depend on it.
    assert generation.seed_of(42, "We study") == 4892135416745857978


def test_what_has_ended_costs_no_more(stand_in, settings):
    """Eight rows, of which one ends at each step: a batch is halved, not run to its end."""
    tokenizer = stand_in.tokenizer
    prompts = list("abcdefgh")
    starts = [modeling.encode(tokenizer, [p], bos=False, eos=False)[0][-1] for p in prompts]
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
    (start,) = modeling.encode(tokenizer, ["a"], bos=False, eos=False)[0]
    model = counting(stand_in, start + 1)  # of "a" would be one token; "e" never ends
    chosen = settings.model_copy(update={"min_new_tokens": 3, "max_new_tokens": 7, "batch_size": 2})
    short, long = completions.generate(model, tokenizer, ["a", "e"], chosen)
    assert 3 <= len(short) <= 7 and len(long) == 7


# --- prompts that cannot be completed ---------------------------------------------------------


def test_a_prompt_without_room_for_its_completion_is_named(stand_in, settings):
    model, tokenizer = stand_in.base(), stand_in.tokenizer
    context = model.config.max_position_embeddings
    (length,) = map(len, modeling.encode(tokenizer, [PROMPTS[2]], bos=False, eos=False))
    names = ["0806.1218", "hep-th/9912072"]
    fits = settings.model_copy(update={"max_new_tokens": context - length})
    completions._refuse([[1], [1] * length], names, fits, context)  # to the last token
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


# --- resuming ---------------------------------------------------------------------------------


def no_model(*_, **__):
    raise AssertionError("asked for again")


def test_nothing_is_asked_twice(stand_in, settings, tmp_path, monkeypatch):
    file, model, tokenizer = tmp_path / "kept.jsonl", stand_in.base(), stand_in.tokenizer
    expected = completions.generate(model, tokenizer, PROMPTS, settings)
    some = completions.generate(
        model, tokenizer, PROMPTS[1:3], settings, kept=Kept(file, "this model")
    )
    assert some == expected[1:3]
    with monkeypatch.context() as patch:
        patch.setitem(completions.SAMPLERS, "transformers", no_model)
        again = completions.generate(
            model, tokenizer, PROMPTS[2:0:-1], settings, kept=Kept(file, "this model")
        )
        assert again == expected[2:0:-1]
        with pytest.raises(AssertionError, match="asked for again"):  # of another model
            completions.generate(model, tokenizer, PROMPTS[1:3], settings, kept=Kept(file, "other"))
    asked = []
    monkeypatch.setitem(
        completions.SAMPLERS,
        "transformers",
        lambda model, sequences, *rest, **named: (
            asked.extend(sequences) or generation.sample(model, sequences, *rest, **named)
        ),
    )
    kept = Kept(file, "this model")
    assert completions.generate(model, tokenizer, PROMPTS, settings, kept=kept) == expected
    assert len(asked) == len(PROMPTS) - 2


def test_a_torn_or_damaged_line_is_none(tmp_path):
    file = tmp_path / "kept.jsonl"
    kept = Kept(file, "a")
    kept.add("first", [1, 2])
    kept.add("second", [])
    kept.add("third", [3])
    lines = file.read_bytes().splitlines(keepends=True)
    for torn in (lines[2][:-1], lines[2][:5], b"\0\0\0"):
        file.write_bytes(b"".join(lines[:2]) + torn)
        kept = Kept(file, "a")
        assert kept.of(["third", "second", "first"]) == {1: [], 2: [1, 2]}
        kept.add("third", [4])  # begins a line of its own
        assert Kept(file, "a").of(["first", "third"]) == {0: [1, 2], 1: [4]}
    for damaged in (b"rubbish\n", b"[1]\n", b'{"key": "x"}\n', b'{"key": "x", "ids": 5}\n'):
        file.write_bytes(lines[0] + damaged + lines[1])
        assert Kept(file, "a").of(["first", "second", "third"]) == {0: [1, 2], 1: []}


def test_identity_is_all_that_a_completion_depends_on(stand_in, tmp_path, monkeypatch):
    base = stand_in.experiment
    of_base = completions.identity(base, "base")
    of_variant = completions.identity(base, tiny.VARIANT)
    assert of_base != of_variant

    def changed(**update):
        section = base.completions.model_copy(update=update)
        return completions.identity(base.model_copy(update={"completions": section}), "base")

    assert changed(batch_size=7, abstracts=3, embedder="another") == of_base
    others = [changed(temperature=0.71), changed(seed=1), changed(max_new_tokens=9)]
    assert len({of_base, *others}) == 4
    weights = base.paths.adapter(tiny.VARIANT) / "adapter_model.safetensors"
    whole = weights.read_bytes()
    try:
        weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert completions.identity(base, tiny.VARIANT) != of_variant
        assert completions.identity(base, "base") == of_base
    finally:
        weights.write_bytes(whole)


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_completions, tiny
made = tiny.load(Path({output!r}))
test_completions.run(made, Path(sys.argv[1]), before_each_step=lambda *_: time.sleep(0.03))
"""


def run(made, file, before_each_step=None):
    """What notebook 04 does with the tiny stand-in, slowly enough to be killed."""
    chosen = hot(made.experiment.completions).model_copy(
        update={"max_new_tokens": 24, "batch_size": 4}
    )
    prompts = [split_prompt(text)[0] for text in made.rows("train")["abstract"]]
    model = made.base()
    if before_each_step:
        model.register_forward_pre_hook(before_each_step)
    kept = Kept(file, completions.identity(made.experiment, "base")) if file else None
    return completions.generate(model, made.tokenizer, prompts, chosen, kept=kept)


def test_a_killed_run_goes_on_and_ends_the_same(stand_in, tmp_path, monkeypatch):
    undisturbed = run(stand_in, None)
    file = tmp_path / "kept.jsonl"
    code = CHILD.format(tests=str(Path(__file__).parent), output=str(stand_in.output))
    child = subprocess.Popen([sys.executable, "-c", code, file], stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + 120
        while not file.exists() or file.read_bytes().count(b"\n") < 5:
            assert child.poll() is None, child.stderr.read().decode()
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.stderr.close()
    lines = file.read_bytes().splitlines()
    assert 5 <= len(lines) < len(undisturbed)
    keys = [json.loads(line)["key"] for line in lines if line.endswith(b"}")]
    assert len(set(keys)) == len(keys), "something was asked twice"
    with file.open("ab") as torn:
        torn.write(b'{"key": "0123')
    asked = []
    monkeypatch.setitem(
        completions.SAMPLERS,
        "transformers",
        lambda model, sequences, *rest, **named: (
            asked.extend(sequences) or generation.sample(model, sequences, *rest, **named)
        ),
    )
    assert run(stand_in, file) == undisturbed
    assert len(asked) == len(undisturbed) - len(keys)


def test_the_benchmark_runs(stand_in, tmp_path, monkeypatch, capsys):
    """All its rows, in this process: importing what each needs anew would take a minute."""
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    benchmark = importlib.import_module("generation")
    benchmark.prepare(tmp_path, None, stand_in.experiment.paths.base)
    (tmp_path / "prompts.json").write_text(json.dumps(PROMPTS))

    def measure(row: str, folder: Path, longest: int) -> dict:
        benchmark.run_row(row, folder, longest)
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    monkeypatch.setattr(benchmark, "measure", measure)
    found = benchmark.best(tmp_path, longest=6, rounds=2)
    lines = benchmark.table(found)
    assert len(lines) == 2 + len(benchmark.ROWS) + 2
    assert all(line.count("|") == 9 for line in lines[:-2])
    assert lines[-1].endswith("5 of 5 are equal.")
    for result in found.values():
        assert all(1 <= len(ids) <= 6 for ids in result["completions"])
    found["reference"]["completions"] = [[1]] * 5
    with pytest.raises(SystemExit, match="Only 0 of 5"):
        benchmark.table(found)
