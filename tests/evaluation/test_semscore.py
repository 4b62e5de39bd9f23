"""Embeddings, their cosines, and the pairwise statistics, against brute force."""

import math

import numpy as np
import pytest
import tiny
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizerFast

from feyntune.evaluation import metrics, semscore
from feyntune.models import adapters

TEXTS = [
    "we study strings",
    "black holes",
    "we study strings and black holes in a much longer sentence of many words",
]


def brute(left, right) -> float:
    dot = sum(a * b for a, b in zip(left, right, strict=True))
    norms = math.sqrt(sum(a * a for a in left)), math.sqrt(sum(b * b for b in right))
    return dot / norms[0] / norms[1]


@pytest.mark.parametrize("block", [1024, 2])
def test_pairwise_against_brute_force(monkeypatch, block):
    monkeypatch.setattr(semscore, "BLOCK", block)
    vectors = np.random.default_rng(3).normal(size=(7, 5)) + 0.5
    values = sorted(brute(a, b) for a in vectors for b in vectors)  # 49, the diagonal included
    mean = sum(values) / 49
    sd = math.sqrt(sum((v - mean) ** 2 for v in values) / 48)
    # nearest rank: of ranks 0 ... 48, a quarter is 12, a half 24, three quarters 36
    expected = [values[0], mean, sd, values[12], values[24], values[36], 1.0]
    found = semscore.pairwise(vectors)
    assert found.pop("abstracts") == 7
    assert list(found) == ["min", "mean", "sd", "q25", "q50", "q75", "max"]
    assert list(found.values()) == pytest.approx(expected, abs=1e-6)


def test_quartiles_are_values_of_the_matrix_not_between_them():
    """Two orthogonal vectors: cosines 0, 0, 1, 1. Interpolation would give a median of 0.5."""
    found = semscore.pairwise(np.array([[1.0, 0.0], [0.0, 2.0]]))
    assert found["q50"] in (0.0, 1.0)
    assert (found["mean"], found["sd"]) == (0.5, pytest.approx(math.sqrt(1 / 3)))


def test_mean_pooling_ignores_padding(stand_in):
    model, tokenizer = stand_in.base(), stand_in.tokenizer
    together = semscore.mean_pooled(model, tokenizer, TEXTS)
    assert together.shape == (3, 64) and together.dtype == np.float32
    for text, found in zip(TEXTS, together, strict=True):
        ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            output = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        expected = output.hidden_states[-1][0].mean(0).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_mean_pooling_cuts_where_asked_and_takes_an_empty_text(stand_in):
    model, tokenizer = stand_in.base(), stand_in.tokenizer
    long = " ".join(TEXTS * 5)
    ids = tokenizer(long, add_special_tokens=False)["input_ids"]
    head = tokenizer.decode(ids[:11])
    assert tokenizer(head, add_special_tokens=False)["input_ids"] == ids[:11]
    cut, whole = (semscore.mean_pooled(model, tokenizer, [long], n) for n in (12, None))
    np.testing.assert_allclose(cut, semscore.mean_pooled(model, tokenizer, [head]), atol=1e-5)
    assert abs(cut - whole).max() > 1e-3
    assert np.isfinite(semscore.mean_pooled(model, tokenizer, [""])).all()


def test_every_model_is_judged_by_the_same_embedder(stand_in):
    settings, tokenizer = stand_in.experiment, stand_in.tokenizer
    assert settings.completions.embedder == "base"
    base = stand_in.base()
    adapted = adapters.load_model(stand_in.experiment, tiny.VARIANT, dtype="float32")
    expected = semscore.mean_pooled(base, tokenizer, TEXTS)
    for model in (base, adapted):
        embed = semscore.embedder(settings, model, tokenizer)
        np.testing.assert_allclose(embed(TEXTS), expected, atol=1e-6)
    # Off for the embedder only: as a model under evaluation, the variant sees otherwise.
    assert abs(semscore.mean_pooled(adapted, tokenizer, TEXTS) - expected).max() > 0.01


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A real sentence-transformers model, tiny and untrained."""
    where = tmp_path_factory.mktemp("embedder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(" ".join(TEXTS).split()))]
    vocabulary = {word: i for i, word in enumerate(words)}
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(where / "bert")
    BertTokenizerFast(vocab=vocabulary).save_pretrained(where / "bert")
    transformer = Transformer(str(where / "bert"))
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    SentenceTransformer(modules=[transformer, pooling]).save(str(where / "whole"))
    return where


def bert_mean(folder, text: str, max_tokens: int) -> np.ndarray:
    tokenizer = BertTokenizerFast.from_pretrained(folder / "bert")
    ids = tokenizer(text, truncation=True, max_length=max_tokens, return_tensors="pt")
    with torch.no_grad():
        hidden = BertModel.from_pretrained(folder / "bert").eval()(**ids).last_hidden_state[0]
    return hidden.mean(0).numpy()


@pytest.mark.parametrize("max_tokens", [384, 6])
def test_a_sentence_transformers_model(stand_in, folder, max_tokens):
    max_tokens = min(max_tokens, 64)
    chosen = {"embedder": str(folder / "whole"), "embedder_max_tokens": max_tokens}
    completions = stand_in.experiment.completions.model_copy(update=chosen)
    settings = stand_in.experiment.model_copy(update={"completions": completions})
    found = semscore.embedder(settings, stand_in.base(), stand_in.tokenizer)(TEXTS)
    expected = np.stack([bert_mean(folder, text, max_tokens) for text in TEXTS])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert metrics.cosine(found[:1], found[2:])[0] == pytest.approx(
        brute(expected[0], expected[2]), abs=1e-5
    )


def test_the_longest_text_is_cut_by_sentence_embedders(folder):
    short, long = (semscore.sentence_embedder(str(folder / "whole"), n) for n in (6, 64))
    np.testing.assert_allclose(short(TEXTS[:2]), long(TEXTS[:2]), atol=1e-6)
    assert abs(short(TEXTS[2:]) - long(TEXTS[2:])).max() > 1e-3
