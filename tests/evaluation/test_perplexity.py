"""Per-abstract negative log-likelihood: by hand, one by one, in any batch, and its known floor."""

import math
import shutil
from functools import cache

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model

from feyntune.errors import UserError
from feyntune.evaluation import perplexity
from feyntune.experiment import load
from feyntune.models import adapters, likelihood

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


@pytest.fixture(scope="module")
def one_by_one(stand_in, held_out):
    """Scores of a model (by name), one abstract at a time, from its full logits."""

    @cache
    def scores(name: str) -> pd.DataFrame:
        model = adapters.load_model(stand_in.experiment, name, dtype="float32")
        tokenizer, rows = stand_in.tokenizer, []
        for text in held_out["abstract"]:
            ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
            labels = torch.tensor([ids])
            with torch.no_grad():
                log_p = model(input_ids=labels).logits[0, :-1].double().log_softmax(-1)
            nll = -log_p.gather(1, labels[0, 1:, None]).sum().item()
            rows.append({"nll": nll, "tokens": len(ids) - 1})
        frame = pd.DataFrame(rows)
        return frame.assign(perplexity=np.exp(frame["nll"] / frame["tokens"]))

    return scores


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
    found = perplexity.token_nll(tiny.markov(chain), sequences, [[0, 1], [2]])
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


@pytest.mark.parametrize("name", ["base", tiny.VARIANT])
@pytest.mark.parametrize("tile", [(256, 4096), (7, 64)], ids=["own tile", "small tile"])
@pytest.mark.parametrize(
    ("dtype", "bound"), [("float32", 1e-5), ("bfloat16", 1e-3), ("float16", 1e-3)]
)
def test_equals_one_document_at_a_time(
    stand_in, held_out, one_by_one, monkeypatch, dtype, bound, tile, name
):
    """The reference: one document, full logits, float32 (its logarithms in float64)."""
    monkeypatch.setitem(likelihood.TILES, "cpu", tile)
    model = adapters.load_model(stand_in.experiment, name, dtype=dtype)
    scores = scored(stand_in, model, held_out)
    assert list(scores.columns) == ["id", "nll", "tokens", "bytes", "perplexity"]
    assert list(scores["id"]) == list(held_out["id"])
    expected = one_by_one(name)
    assert list(scores["tokens"]) == list(expected["tokens"])
    for column in ("nll", "perplexity"):
        off = abs(scores[column] / expected[column] - 1)
        assert off.mean() < bound, column
        assert off.max() < 10 * bound, column
    # The bound is not met because nothing was rounded.
    assert (dtype == "float32") == (off.mean() < 1e-6)


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


def test_batches_must_take_every_sequence_once():
    model = tiny.markov(torch.full((4, 4), 1 / 4))
    for batches in ([[0], [0, 1]], [[0]], [[0, 1, 2]]):
        with pytest.raises(ValueError, match="exactly once"):
            perplexity.token_nll(model, [[0, 1], [0, 2]], batches)


def test_bytes_are_utf_8(stand_in):
    size = len(stand_in.tokenizer)
    model = tiny.markov(torch.full((size, size), 1 / size))
    scores = scored(stand_in, model, pd.DataFrame({"id": list("abc"), "abstract": TEXTS}))
    # ö is 2 bytes, 弦 and → are 3 each
    assert list(scores["bytes"]) == [16, len(TEXTS[1]) + 1 + 2 + 2, 22]


def test_an_adapter_counts_and_switches_off(stand_in, held_out):
    base = scored(stand_in, stand_in.base(), held_out)["nll"]
    adapted = adapters.load_model(stand_in.experiment, tiny.VARIANT, dtype="float32")
    assert (abs(scored(stand_in, adapted, held_out)["nll"] - base) > 1).all()
    with adapted.disable_adapter():
        np.testing.assert_allclose(scored(stand_in, adapted, held_out)["nll"], base, rtol=1e-6)


@pytest.mark.parametrize("name", ["base", tiny.VARIANT])
def test_no_model_beats_the_grammar_that_wrote_the_abstracts(stand_in, held_out, name):
    known = pd.read_parquet(stand_in.experiment.paths.likelihood).set_index("id")
    known = known.loc[held_out["id"]]
    floor = -(known["loglik"] - known["loglik_end"]).to_numpy()
    model = adapters.load_model(stand_in.experiment, name, dtype="float32")
    nll = scored(stand_in, model, held_out)["nll"].to_numpy()
    assert (floor > 0).all()
    assert nll.mean() > floor.mean()
    # The floor is of the same abstracts in the same unit: it tells the surprising ones.
    assert np.corrcoef(nll, floor)[0, 1] > 0.8


# --- what cannot be scored --------------------------------------------------------------------


def test_an_abstract_longer_than_the_context_is_named(stand_in, held_out):
    model = stand_in.base()
    longest = max(scored(stand_in, model, held_out)["tokens"]) + 1
    model.config.max_position_embeddings = longest
    scored(stand_in, model, held_out)
    model.config.max_position_embeddings = longest - 1
    with pytest.raises(UserError, match=f"has {longest} tokens, more than the model's context"):
        scored(stand_in, model, held_out)


def test_another_models_tokenizer_is_refused(stand_in, held_out):
    model = stand_in.base()
    model.config.bos_token_id = 7
    with pytest.raises(UserError, match="another model's"):
        scored(stand_in, model, held_out)


# --- the plan, stored -------------------------------------------------------------------------


def test_a_second_run_writes_the_same_bytes(stand_in, held_out, tmp_path):
    written = []
    for number in range(2):
        path = tmp_path / f"{number}.parquet"
        scored(stand_in, stand_in.base(), held_out).to_parquet(path)
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_a_stored_plan_is_repeated_whatever_one_would_plan_today(
    stand_in, held_out, tmp_path, monkeypatch
):
    model = stand_in.base()
    scored(stand_in, model, held_out, tokens_per_batch=700).to_parquet(tmp_path / "first")
    first = pd.read_parquet(tmp_path / "first")
    batches = perplexity.stored_plan(first)
    lengths = list(first["tokens"] + 1)
    assert batches == likelihood.plan_batches(lengths, 700)
    assert len(batches) > 2

    monkeypatch.setattr(
        perplexity, "plan_batches", lambda lengths, _: [[i] for i in range(len(lengths))]
    )
    assert len(perplexity.stored_plan(scored(stand_in, model, held_out))) == len(held_out)
    again = perplexity.score(
        model,
        stand_in.tokenizer,
        held_out["id"],
        held_out["abstract"],
        tokens_per_batch=1,
        batches=batches,
    )
    again.to_parquet(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "first").read_bytes()


# --- many models over one base -------------------------------------------------------------------


@pytest.fixture(scope="module")
def variants(stand_in) -> list[str]:
    """An untrained adapter of the other flavour beside the trained one; all models in an order."""
    other = tiny.VARIANT.replace("all", "QKV")
    targets = stand_in.experiment.lora(other).target_modules
    torch.manual_seed(1)
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=8, lora_alpha=32, target_modules=targets, init_lora_weights=False
    )
    adapted = get_peft_model(stand_in.base(), lora)
    adapters.save_adapter(adapted, stand_in.experiment.paths.adapter(other), "stand-in")
    # The base last: nothing of an adapter may be left on it.
    yield [tiny.VARIANT, other, "base"]
    shutil.rmtree(stand_in.experiment.paths.finetune(other))


def bytes_of(stand_in, model, held_out) -> bytes:
    file = stand_in.output / "scores.parquet"
    scored(stand_in, model, held_out).to_parquet(file)
    return file.read_bytes()


@pytest.fixture(scope="module")
def alone(stand_in, variants, held_out) -> dict[str, bytes]:
    """What notebook 03 writes for each model, each loaded by itself."""
    settings = stand_in.experiment
    written = {
        name: bytes_of(stand_in, adapters.load_model(settings, name, dtype="float32"), held_out)
        for name in variants
    }
    assert len(set(written.values())) == 3
    return written


def test_models_over_one_base_give_the_bytes_they_give_alone(
    stand_in, variants, alone, held_out, monkeypatch
):
    loaded = []
    load = adapters.load_base
    monkeypatch.setattr(adapters, "_resident", {})
    monkeypatch.setattr(
        adapters, "load_base", lambda *a, **k: loaded.append(load(*a, **k)) or loaded[-1]
    )
    for name in [*variants, *variants]:
        model = adapters.resident_model(stand_in.experiment, name, dtype="float32")
        assert bytes_of(stand_in, model, held_out) == alone[name], name
    assert len(loaded) == 1
    bare = dict(stand_in.base().named_parameters()).keys()
    assert dict(loaded[0].named_parameters()).keys() == bare
    adapters.resident_model(stand_in.experiment, "base", dtype="bfloat16")
    assert len(loaded) == 2


def test_an_adapter_that_cannot_be_read_leaves_the_base_bare(
    stand_in, variants, alone, held_out, monkeypatch
):
    monkeypatch.setattr(adapters, "_resident", {})
    more = {"variants": ["s1-LoRA-all", "s1-LoRA-QKV", "s2-LoRA-all"]}
    experiment = load.with_settings("smoke", tiny.OVERRIDES | more)
    paths = experiment.paths
    broken = paths.adapter("s2-LoRA-all")
    shutil.copytree(paths.adapter(tiny.VARIANT), broken)
    weights = broken / adapters.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    try:
        with pytest.raises(UserError, match="s2-LoRA-all/adapter is not whole"):
            adapters.resident_model(experiment, "s2-LoRA-all", dtype="float32")
    finally:
        shutil.rmtree(paths.finetune("s2-LoRA-all"))
    for name in variants:
        model = adapters.resident_model(stand_in.experiment, name, dtype="float32")
        assert bytes_of(stand_in, model, held_out) == alone[name], name
