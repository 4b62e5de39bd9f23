"""Sampling in batches, where every sequence has its own random generator.

So a text does not depend on what else is in the batch. A logits processor draws the next token and
masks all others; `generate` in transformers then picks it greedily.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    PreTrainedModel,
    StoppingCriteria,
)

from feyntune.experiment.sections import Completions
from feyntune.models.base import out_of_memory

# Called with the position of a sequence and its completion, as soon as that has ended.
OnEnd = Callable[[int, list[int]], None]


def prompt_seed(seed: int, prompt: str) -> int:
    """The seed of one prompt: 63 bits from the experiment's seed and the prompt's text."""
    digest = hashlib.blake2b(f"{seed}\n{prompt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    seeds: Sequence[int],
    settings: Completions,
    *,
    ends: Sequence[int],
    ended: OnEnd,
) -> None:
    """Sample a completion of every sequence, in batches of sequences of similar length.

    A completion depends on its own sequence and seed, not on its neighbours, up to rounding: the
    rest of the batch changes the last digits of the logits, which rarely (in half precision:
    often) changes a draw, and the text from there on.

    When half the rows of a batch have ended, the others continue without them. Out of memory,
    the rows that have not ended start again, half as many at a time.

    Parameters
    ----------
    sequences
        Token ids, none of them empty.
    seeds
        One of each sequence.
    ends
        Tokens that end a completion; the first also pads.
    ended
        Called with each completion, without its end.
    """
    waiting = sorted(range(len(sequences)), key=lambda i: (len(sequences[i]), i))
    size, done = settings.batch_size, set()

    def ended_once(position: int, completion: list[int]) -> None:
        done.add(position)
        ended(position, completion)

    while waiting:
        rows = waiting[:size]
        ids, mask = pad_left([sequences[i] for i in rows], ends[0], model.device)
        # All of a row's numbers at once, from a generator that is the same on every machine.
        streams = [np.random.default_rng(seeds[i]).random(settings.max_new_tokens) for i in rows]
        uniform = torch.from_numpy(np.stack(streams)).to(model.device)
        try:
            _sample_batch(model, rows, ids, mask, uniform, settings, ends, ended_once)
        except RuntimeError as error:
            if not out_of_memory(error) or size == 1:
                raise
            size = len(rows) // 2 or 1
            print(f"Out of memory: now {size} completions at a time.")
        waiting = [i for i in waiting if i not in done]
        if waiting and torch.cuda.is_available():
            torch.cuda.empty_cache()


def _sample_batch(
    model: PreTrainedModel,
    rows: list[int],
    ids: torch.Tensor,
    mask: torch.Tensor,
    uniform: torch.Tensor,
    settings: Completions,
    ends: Sequence[int],
    ended: OnEnd,
) -> None:
    """Sample until every row has ended; each time half of them have, continue with the others."""
    width, done, cache = ids.shape[1], 0, None
    while rows:
        endings = HalfEndedCriteria(rows, width, ends, ended)
        # What a config leaves open, `generate` takes from the model's own generation_config.
        config = model.generation_config = generation_config(settings, ends, done)
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            generation_config=config,
            logits_processor=[DrawLogitsProcessor(settings, uniform, width)],
            stopping_criteria=[endings],
        )
        ids, cache = output.sequences, output.past_key_values
        done = ids.shape[1] - width
        left = torch.nonzero(~endings.ended).flatten()
        if done == settings.max_new_tokens:
            for row in left.tolist():
                ended(rows[row], ids[row, width:].tolist())
            return
        cache.batch_select_indices(left)
        ids, uniform = ids[left], uniform[left]
        # Only the prompts are padded.
        mask = torch.nn.functional.pad(mask[left], (0, ids.shape[1] - mask.shape[1]), value=1)
        rows = [rows[row] for row in left.tolist()]


def generation_config(
    settings: Completions, ends: Sequence[int], done: int = 0
) -> GenerationConfig:
    """Every setting, so that none comes from the model's own file.

    Parameters
    ----------
    ends
        Tokens that end a completion; the first also pads.
    done
        Tokens that the completions have already.
    """
    return GenerationConfig(
        do_sample=False,  # DrawLogitsProcessor has drawn
        num_beams=1,
        min_new_tokens=max(settings.min_new_tokens - done, 0),
        max_new_tokens=settings.max_new_tokens - done,
        num_return_sequences=1,
        repetition_penalty=1.0,
        return_dict_in_generate=True,
        use_cache=True,
        eos_token_id=list(ends),
        pad_token_id=ends[0],
    )


class DrawLogitsProcessor(LogitsProcessor):
    """Draws the next token of each row by the row's own random number, and masks all others.

    Temperature, then the ``top_k`` likeliest tokens, then the fewest of these whose probabilities
    add up to ``top_p``: the same tokens as by the processors of transformers, without sorting the
    whole vocabulary. They divide the unit interval by their probabilities, the likeliest first;
    the token in whose part the random number falls is drawn.

    Parameters
    ----------
    uniform
        (rows, longest completion), in [0, 1).
    width
        Columns of ids before the completions.
    """

    def __init__(self, settings: Completions, uniform: torch.Tensor, width: int):
        self.settings, self.uniform, self.width = settings, uniform, width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        values, tokens = scores.topk(min(self.settings.top_k, scores.shape[-1]))
        share = (values / self.settings.temperature).softmax(-1, dtype=torch.float64)
        share = share * (share.cumsum(-1) - share < self.settings.top_p)
        ends = share.cumsum(-1)
        column = input_ids.shape[1] - self.width
        drawn = self.uniform[:, column, None] * ends[:, -1:]
        chosen = tokens.gather(-1, torch.searchsorted(ends, drawn, right=True))
        return torch.full_like(scores, -torch.inf).scatter_(-1, chosen, 0.0)


class HalfEndedCriteria(StoppingCriteria):
    """Reports each row when it ends, and stops all rows when half have ended.

    Parameters
    ----------
    rows
        Of each row, the position that ``ended`` is called with.
    width
        Columns of ids before the completions.
    ends
        Tokens that end a completion.
    """

    def __init__(self, rows: Sequence[int], width: int, ends: Sequence[int], ended: OnEnd):
        self.rows, self.width, self.report = rows, width, ended
        self.ends = torch.tensor(ends)
        self.ended: torch.Tensor | None = None
        self.number = 0

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        before = torch.zeros_like(input_ids[:, 0]).bool() if self.ended is None else self.ended
        self.ended = before | torch.isin(input_ids[:, -1], self.ends.to(input_ids.device))
        number = int(self.ended.sum())
        if number > self.number:
            self.number = number
            for row in torch.nonzero(self.ended & ~before).flatten().tolist():
                self.report(self.rows[row], input_ids[row, self.width : -1].tolist())
        return self.ended | (2 * number >= len(self.rows))


def pad_left(
    sequences: Sequence[Sequence[int]], pad: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, both (rows, longest), every sequence ending in the last column."""
    longest = max(map(len, sequences))
    ids = [[pad] * (longest - len(sequence)) + list(sequence) for sequence in sequences]
    mask = [[0] * (longest - len(sequence)) + [1] * len(sequence) for sequence in sequences]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
