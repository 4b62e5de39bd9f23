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

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from feyntune.errors import UserError
from feyntune.evaluation import generation
from feyntune.experiment.files import fingerprint
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sections import Completions
from feyntune.models.architecture import context_length
from feyntune.models.base import check_special_tokens, encode, ends_of_text
from feyntune.runs import dependencies, records

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
# Settings that no completion depends on.
NOT_IN_KEY = {"abstracts", "batch_size", "embedder", "embedder_max_tokens"}


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


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    settings: Completions,
    *,
    names: Sequence[str] | None = None,
    saved: SavedCompletions | None = None,
) -> list[list[int]]:
    """Sample one completion per prompt.

    Each prompt has its own seed, so that its completion does not depend on the other prompts (up
    to rounding, see :func:`feyntune.evaluation.generation.sample`).

    Parameters
    ----------
    names
        What error messages call the prompts: ids of abstracts.
    saved
        Completions of an earlier, killed run, which are not generated again; every new one is
        added as soon as it has ended.

    Returns
    -------
    list of list of int
        Token ids of the completions alone, without the end of text and what follows it.

    Raises
    ------
    UserError
        If the tokenizer is another model's, or a prompt is empty, holds a special token, or
        leaves no room for ``max_new_tokens``.
    """
    check_special_tokens(tokenizer, model.config)
    encoded = encode(tokenizer, prompts, start=settings.bos, eos=False)
    names = names or [f"{prompt[:60]!r}" for prompt in prompts]
    check_prompts(encoded, names, settings, context_length(model.config))
    found = saved.find(prompts) if saved else {}
    waiting = [i for i in range(len(prompts)) if i not in found]

    def ended(position: int, ids: list[int]) -> None:
        found[waiting[position]] = ids
        if saved:
            saved.add(prompts[waiting[position]], ids)

    if waiting:
        seeds = [generation.prompt_seed(settings.seed, prompts[i]) for i in waiting]
        sequences = [encoded[i] for i in waiting]
        ends = ends_of_text(tokenizer, model)
        generation.sample(model, sequences, seeds, settings, ends=ends, ended=ended)
    return [found[i] for i in range(len(prompts))]


def check_prompts(
    encoded: Sequence[Sequence[int]], names: Sequence[str], settings: Completions, context: float
) -> None:
    """Raise a UserError for the first prompt that is empty or leaves no room to complete it."""
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


# --- resuming a killed run --------------------------------------------------------------------


class SavedCompletions:
    """Completions on disk, each written when it has ended, so that a killed run resumes.

    One JSON line each, under a key made of the prompt and all that its completion depends on:
    nothing is found of another model or other settings. A damaged line is skipped.

    Parameters
    ----------
    key
        What completions depend on besides the prompt: see :func:`completions_key`.
    """

    def __init__(self, file: Path, key: str):
        self.file, self.key = file, key
        file.parent.mkdir(parents=True, exist_ok=True)
        written = file.read_bytes() if file.is_file() else b""
        whole = written[: written.rfind(b"\n") + 1]
        if whole != written:
            os.truncate(file, len(whole))
        self.found = dict(filter(None, map(_entry, whole.splitlines())))

    def find(self, prompts: Sequence[str]) -> dict[int, list[int]]:
        """The saved completions, by position of the prompt."""
        keys = map(self._key, prompts)
        return {i: self.found[key] for i, key in enumerate(keys) if key in self.found}

    def add(self, prompt: str, ids: list[int]) -> None:
        """Write a completion to the disk before returning."""
        key = self._key(prompt)
        with self.file.open("ab") as file:
            file.write(json.dumps({"key": key, "ids": ids}).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.found[key] = ids

    def _key(self, prompt: str) -> str:
        return hashlib.sha256(f"{self.key}\n{prompt}".encode()).hexdigest()


def _entry(line: bytes) -> tuple[str, list[int]] | None:
    """Key and ids of a line, or ``None`` if it was damaged."""
    try:
        entry = json.loads(line)
        return str(entry["key"]), [int(token) for token in entry["ids"]]
    except (ValueError, TypeError, KeyError):
        return None


def completions_key(experiment: Experiment, model: str) -> str:
    """One hash of what every completion of a model depends on: settings, weights, libraries."""
    files = dependencies.model_files(experiment, model)
    libraries = ("torch", "transformers", "peft")
    settings = experiment.completions.model_dump(exclude=NOT_IN_KEY)
    return fingerprint(
        {
            "base": [experiment.base.model, experiment.base.revision, experiment.base.start],
            "settings": settings,
            "files": records.hashes(records.states(files)),
            "libraries": {name: metadata.version(name) for name in libraries},
        }
    )
