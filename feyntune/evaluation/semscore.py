"""Embeddings for SemScore, and the pairwise cosine similarity of the ground-truth abstracts.

Embeddings are mean-pooled last hidden layers: of a sentence-transformers model for real runs, of
the base model for the stand-in (embedder ``base``). SemScore itself stands in `metrics`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from feyntune.evaluation.metrics import Embedder, unit_length
from feyntune.experiment.recipes import BASE
from feyntune.experiment.schema import Experiment
from feyntune.models.base import device, encode, padded
from feyntune.models.likelihood import plan_batches

TOKENS_PER_BATCH = 4096
# Rows of the similarity matrix computed at a time.
BLOCK = 1024


@torch.inference_mode()
def mean_pooled(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_tokens: int | None = None,
) -> np.ndarray:
    """Attention-masked mean of a causal model's last hidden layer.

    Parameters
    ----------
    max_tokens
        Longer texts are cut, as the released scores' embedder does; ``None`` for never.

    Returns
    -------
    np.ndarray
        (texts, width), float32. What texts start with counts as a token, so that an empty text has
        a mean too; where they start with nothing, EOS stands for an empty text.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    encoded = encode(tokenizer, texts, eos=False)
    sequences = [ids[:max_tokens] or [tokenizer.eos_token_id] for ids in encoded]
    width = causal.config.get_text_config(decoder=True).hidden_size
    pooled = np.empty((len(sequences), width), dtype=np.float32)
    for batch in plan_batches([len(s) for s in sequences], TOKENS_PER_BATCH):
        ids, mask = padded([sequences[i] for i in batch], causal.device)
        hidden = causal.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
        summed = (hidden.last_hidden_state.float() * mask[..., None]).sum(1)
        pooled[batch] = (summed / mask.sum(1, keepdim=True)).cpu().numpy()
    return pooled


def embedder(
    experiment: Experiment, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Embedder:
    """The function that turns texts into vectors for SemScore, as the experiment chooses.

    Parameters
    ----------
    model
        The evaluated model. For the embedder ``base`` its adapter is switched off, so that all
        models are compared by the same embedding.
    """
    max_tokens = experiment.completions.embedder_max_tokens
    if experiment.completions.embedder != BASE:
        return sentence_embedder(experiment.embedder_source, max_tokens)

    def embed(texts: Sequence[str]) -> np.ndarray:
        with getattr(model, "disable_adapter", contextlib.nullcontext)():
            return mean_pooled(model, tokenizer, texts, max_tokens)

    return embed


def sentence_embedder(name: str, max_tokens: int) -> Embedder:
    """A sentence-transformers model by Hub id or folder."""
    from sentence_transformers import SentenceTransformer  # two seconds that `base` does not need

    model = SentenceTransformer(name, device=str(device()))
    model.max_seq_length = max_tokens
    return lambda texts: model.encode(list(texts), show_progress_bar=False, convert_to_numpy=True)


def pairwise(embeddings: np.ndarray) -> dict[str, float | int]:
    """Statistics of the full matrix of cosines between all rows, the diagonal included.

    As released (``src/score.py``): mean, standard deviation, extremes, and quartiles by the
    nearest rank.

    Parameters
    ----------
    embeddings
        (abstracts, width).
    """
    vectors = unit_length(embeddings.astype(np.float32))
    cosines = np.empty((len(vectors), len(vectors)), dtype=np.float32)
    for start in range(0, len(vectors), BLOCK):
        np.matmul(vectors[start : start + BLOCK], vectors.T, out=cosines[start : start + BLOCK])
    flat = cosines.reshape(-1)
    quartiles = np.percentile(flat, [25, 50, 75], method="nearest")
    return {
        "abstracts": len(vectors),
        "min": float(flat.min()),
        "mean": float(flat.mean(dtype=np.float64)),
        "sd": float(flat.std(dtype=np.float64)),
        "q25": float(quartiles[0]),
        "q50": float(quartiles[1]),
        "q75": float(quartiles[2]),
        "max": float(flat.max()),
    }
