"""Completing an abstract from its first half: the released prompt split, and generation."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from feyntune.errors import UserError
from feyntune.evaluation import generation, vllm_engine
from feyntune.experiment.files import fingerprint
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sections import Completions
from feyntune.models import adapters
from feyntune.models.base import check_special_tokens, encode
from feyntune.runs import dependencies, records

if TYPE_CHECKING:
    from feyntune.evaluation.vllm_engine import Served

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
# Settings that no completion depends on.
APART = {"abstracts", "batch_size", "embedder", "embedder_max_tokens"}


def split_prompt(abstract: str) -> tuple[str, str]:
    """Split an abstract into prompt and continuation.

    The prompt is the first half of its sentences, rounded up; of an abstract of one sentence, the
    first half of its words, rounded up (released ``utils/processing.py``).
    """
    pieces = SENTENCE_END.split(abstract)
    if len(pieces) == 1:
        pieces = abstract.split()
    half = math.ceil(len(pieces) / 2)
    return " ".join(pieces[:half]), " ".join(pieces[half:])


def load(experiment: Experiment, model: str) -> PreTrainedModel | Served:
    """Load base or a variant for the experiment's engine; vLLM loads it when it generates."""
    if experiment.completions.engine == "vllm":
        return vllm_engine.load(experiment, model)
    return adapters.resident_model(experiment, model, dtype=experiment.completions.dtype)


SAMPLERS = {"transformers": generation.sample, "vllm": vllm_engine.sample}


def generate(
    model: PreTrainedModel | Served,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    settings: Completions,
    *,
    names: Sequence[str] | None = None,
    kept: Kept | None = None,
) -> list[list[int]]:
    """Sample one completion per prompt.

    Each prompt has a seed of its own, so that its completion does not depend on which others
    there are: up to rounding, see :func:`feyntune.evaluation.generation.sample`.

    Parameters
    ----------
    model
        Loaded for the engine that ``settings`` name: see :func:`load`.
    names
        What error messages call the prompts: ids of abstracts.
    kept
        Completions of an earlier, killed run, which are not asked for again; every new one is
        added as soon as it has ended.

    Returns
    -------
    list of list of int
        Token ids of the completions alone, without EOS and what follows it.

    Raises
    ------
    UserError
        If the tokenizer is another model's, or a prompt is empty, holds a special token, or
        leaves no room for ``max_new_tokens``.
    """
    if hasattr(model, "config"):  # vLLM loads model and tokenizer together
        check_special_tokens(tokenizer, model.config)
    encoded = encode(tokenizer, prompts, bos=settings.bos, eos=False)
    _refuse(encoded, names or [f"{prompt[:60]!r}" for prompt in prompts], settings, _context(model))
    found = kept.of(prompts) if kept else {}
    waiting = [i for i in range(len(prompts)) if i not in found]

    def ended(position: int, ids: list[int]) -> None:
        found[waiting[position]] = ids
        if kept:
            kept.add(prompts[waiting[position]], ids)

    if waiting:
        seeds = [generation.seed_of(settings.seed, prompts[i]) for i in waiting]
        sampler = SAMPLERS[settings.engine]
        sequences = [encoded[i] for i in waiting]
        sampler(model, sequences, seeds, settings, end=tokenizer.eos_token_id, ended=ended)
    return [found[i] for i in range(len(prompts))]


def _context(model: PreTrainedModel | Served) -> int:
    return getattr(model, "context", None) or model.config.max_position_embeddings


def _refuse(
    encoded: Sequence[Sequence[int]], names: Sequence[str], settings: Completions, context: int
) -> None:
    """Raise the error of the first prompt that cannot be completed."""
    for name, ids in zip(names, encoded, strict=True):
        if not ids:
            raise UserError(
                f"The prompt of abstract {name} is empty: there is nothing to complete."
            )
        if len(ids) + settings.max_new_tokens > context:
            raise UserError(
                f"The prompt of abstract {name} has {len(ids):,} tokens; with "
                f"completions.max_new_tokens: {settings.max_new_tokens:,} that is more than the "
                f"model's context of {context:,}. Lower max_new_tokens, or leave the abstract out "
                "(data.excluded_ids)."
            )


# --- what a killed run leaves -----------------------------------------------------------------


class Kept:
    """Completions on disk, each written when it has ended; a killed run asks for none twice.

    One JSON line each, under a key made of the prompt and all that its completion depends on. Of
    another model or other settings nothing is found; a line that is not whole is not one.

    Parameters
    ----------
    identity
        What completions depend on but the prompt: see :func:`identity`.
    """

    def __init__(self, file: Path, identity: str):
        self.file, self.identity = file, identity
        file.parent.mkdir(parents=True, exist_ok=True)
        written = file.read_bytes() if file.is_file() else b""
        whole = written[: written.rfind(b"\n") + 1]
        if whole != written:
            os.truncate(file, len(whole))
        self.found = dict(filter(None, map(_entry, whole.splitlines())))

    def of(self, prompts: Sequence[str]) -> dict[int, list[int]]:
        """Completions that there are, by position of the prompt."""
        keys = map(self._key, prompts)
        return {i: self.found[key] for i, key in enumerate(keys) if key in self.found}

    def add(self, prompt: str, ids: list[int]) -> None:
        """Write a completion down, so that not even the machine's end loses it."""
        key = self._key(prompt)
        with self.file.open("ab") as file:
            file.write(json.dumps({"key": key, "ids": ids}).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.found[key] = ids

    def _key(self, prompt: str) -> str:
        return hashlib.sha256(f"{self.identity}\n{prompt}".encode()).hexdigest()


def _entry(line: bytes) -> tuple[str, list[int]] | None:
    """Key and ids of a line, or ``None`` if it was damaged."""
    try:
        entry = json.loads(line)
        return str(entry["key"]), [int(token) for token in entry["ids"]]
    except (ValueError, TypeError, KeyError):
        return None


def identity(experiment: Experiment, model: str) -> str:
    """One hash of what every completion of a model depends on: settings, weights, libraries."""
    files = dependencies.model_files(experiment, model)
    libraries = {"torch", "transformers", "peft", experiment.completions.engine}
    settings = experiment.completions.model_dump(exclude=APART)
    return fingerprint(
        {
            "base": [experiment.base.model, experiment.base.revision],
            "settings": settings,
            "files": records.hashes(records.states(files)),
            "libraries": {name: metadata.version(name) for name in libraries},
        }
    )
