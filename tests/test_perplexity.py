"""Per-abstract negative log-likelihood: by hand, one by one, in any batch, and its known floor."""

import math
import random
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from feyntune import modeling, perplexity

TEXTS = ["Strings vibrate.", "Schrödinger's 弦 \N{RIGHTWARDS ARROW}", "We show that $E=mc^2$."]


def scored(stand_in, model, frame: pd.DataFrame, tokens_per_batch: int = 4096) -> pd.DataFrame:
    return perplexity.score(
        model,
        stand_in.tokenizer,
        frame["id"],
        frame["abstract"],
        tokens_per_batch=tokens_per_batch,
    )


@pytest.fixture(scope="module")
def held_out(stand_in) -> pd.DataFrame:
    return pd.concat(
        [stand_in.rows(split).to_pandas() for split in ("test", "validation")], ignore_index=True
    )


def test_a_known_chain_by_hand():
    """Token 0 stands for BOS; the rows are P(next | last)."""
    chain = torch.tensor(
        [
            [0.1, 0.4, 0.3, 0.2],
            [0.25, 0.25, 0.25, 0.25],
            [0.5, 0.125, 0.125, 0.25],
            [0.7, 0.1, 0.1, 0.1],
        ]
    )
    sequences = [[0, 1, 2, 3], [0, 3], [0, 2, 0, 1, 1]]
    by_hand = [[0.4, 0.25, 0.25], [0.2], [0.3, 0.5, 0.4, 0.25]]
    found = perplexity.token_nll(tiny.markov(chain), sequences, 8)
    for nll, probabilities in zip(found, by_hand, strict=True):
        np.testing.assert_allclose(np.exp(-nll), probabilities, rtol=1e-5)


def test_a_uniform_model_has_the_vocabulary_as_its_perplexity(stand_in):
    size = len(stand_in.tokenizer)
    model = tiny.markov(torch.full((size, size), 1 / size))
    scores = scored(stand_in, model, pd.DataFrame({"id": list("abc"), "abstract": TEXTS}))
    np.testing.assert_allclose(scores["perplexity"], size, rtol=1e-5)
    np.testing.assert_allclose(scores["nll"], scores["tokens"] * math.log(size), rtol=1e-5)


def test_bos_is_given_and_eos_is_not_scored(stand_in):
    """A chain in which the first token costs 3 nats after BOS, and EOS would cost a fortune."""
    tokenizer = stand_in.tokenizer
    ids = tokenizer("vacuum", add_special_tokens=False)["input_ids"]
    size = len(tokenizer)
    chain = torch.full((size, size), 1 / (size - 1))
    chain[tokenizer.bos_token_id] = (1 - math.exp(-3)) / (size - 2)
    chain[tokenizer.bos_token_id, ids[0]] = math.exp(-3)
    chain[:, tokenizer.eos_token_id] = 1e-30
    frame = pd.DataFrame({"id": ["a"], "abstract": ["vacuum"]})
    score = scored(stand_in, tiny.markov(chain), frame).iloc[0]
    assert score["tokens"] == len(ids)
    assert score["nll"] == pytest.approx(3 + (len(ids) - 1) * math.log(size - 1), rel=1e-5)


def test_equals_one_document_at_a_time(stand_in, held_out):
    model, tokenizer = stand_in.base(), stand_in.tokenizer
    scores = scored(stand_in, model, held_out)
    assert list(scores.columns) == ["id", "nll", "tokens", "bytes", "perplexity"]
    assert list(scores["id"]) == list(held_out["id"])
    plain = model.double()
    for score, text in zip(scores.itertuples(), held_out["abstract"], strict=True):
        ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            labels = torch.tensor([ids])
            mean = plain(input_ids=labels).logits[0, :-1].log_softmax(-1)
        nll = -mean.gather(1, labels[0, 1:, None]).sum().item()
        assert score.tokens == len(ids) - 1
        assert score.nll == pytest.approx(nll, rel=1e-5)
        assert score.perplexity == pytest.approx(math.exp(nll / (len(ids) - 1)), rel=1e-5)


def test_independent_of_batch_composition(stand_in, held_out):
    model = stand_in.base()
    reference = scored(stand_in, model, held_out).set_index("id")
    longest = int(reference["tokens"].max()) + 1
    others = [
        scored(stand_in, model, held_out, tokens_per_batch=1),  # one by one
        scored(stand_in, model, held_out, tokens_per_batch=2 * longest),
        scored(stand_in, model, held_out, tokens_per_batch=10**6),  # all at once
        scored(stand_in, model, held_out.iloc[::-1]),
        scored(stand_in, model, held_out.sample(frac=1, random_state=1), 3 * longest),
        scored(stand_in, model, held_out.iloc[3:4]),
    ]
    for other in others:
        expected = reference.loc[other["id"]]
        np.testing.assert_allclose(other["nll"], expected["nll"], rtol=1e-5)
        np.testing.assert_allclose(other["perplexity"], expected["perplexity"], rtol=1e-5)


@pytest.mark.parametrize("bound", [1, 50, 300, 10_000])
def test_plan_takes_everything_once_within_its_bound(bound):
    lengths = random.Random(bound).choices(range(1, 120), k=200)
    batches = perplexity.plan(lengths, bound)
    assert sorted(i for batch in batches for i in batch) == list(range(200))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= bound
    # Not trivially within it: neighbours could not have shared a batch.
    for batch, after in pairwise(batches):
        assert (len(batch) + 1) * max(lengths[i] for i in [*batch, after[0]]) > bound


def test_plan_puts_like_lengths_together():
    assert perplexity.plan([2, 9, 2, 9, 5], 18) == [[1, 3], [4, 0, 2]]
    assert perplexity.plan([], 18) == []


def test_bytes_are_utf_8(stand_in):
    size = len(stand_in.tokenizer)
    model = tiny.markov(torch.full((size, size), 1 / size))
    scores = scored(stand_in, model, pd.DataFrame({"id": list("abc"), "abstract": TEXTS}))
    # ö is 2 bytes, 弦 and → are 3 each
    assert list(scores["bytes"]) == [16, len(TEXTS[1]) + 1 + 2 + 2, 22]


def test_an_adapter_counts_and_switches_off(stand_in, held_out):
    base = scored(stand_in, stand_in.base(), held_out)["nll"]
    adapted = modeling.load_model(stand_in.experiment, tiny.VARIANT, dtype="float32")
    assert (abs(scored(stand_in, adapted, held_out)["nll"] - base) > 1).all()
    with adapted.disable_adapter():
        np.testing.assert_allclose(scored(stand_in, adapted, held_out)["nll"], base, rtol=1e-6)


@pytest.mark.parametrize("name", ["base", tiny.VARIANT])
def test_no_model_beats_the_grammar_that_wrote_the_abstracts(stand_in, held_out, name):
    known = pd.read_parquet(stand_in.experiment.paths.likelihood).set_index("id")
    known = known.loc[held_out["id"]]
    floor = -(known["loglik"] - known["loglik_end"]).to_numpy()
    model = modeling.load_model(stand_in.experiment, name, dtype="float32")
    nll = scored(stand_in, model, held_out)["nll"].to_numpy()
    assert (floor > 0).all()
    assert nll.mean() > floor.mean()
    # The floor is of the same abstracts in the same unit: it tells the surprising ones.
    assert np.corrcoef(nll, floor)[0, 1] > 0.8
