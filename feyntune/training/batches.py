"""One step's batch in pieces that fit into memory: the optimisation is the same whatever they are.

A batch of the trainer is always the whole batch of a step, on every process. Each process takes
its share of the rows, and takes them through the model ``rows`` at a time; the loss of every
piece is divided by the tokens of the whole batch, so that the gradients add up to those of the
mean over all its tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from accelerate.utils.memory import should_reduce_batch_size

Batch = dict[str, torch.Tensor]


def out_of_memory(error: Exception) -> bool:
    """Whether an exception says that a device has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)


def random_state() -> tuple:
    """The state of the generators that dropout draws from."""
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return torch.get_rng_state(), devices


def restore(state: tuple) -> None:
    """Put the generators back into a state that :func:`random_state` returned."""
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])


def pieces(batch: Batch, rows: int, *, multiple: int) -> Iterator[Batch]:
    """Cut a right-padded batch into pieces of at most ``rows`` rows.

    Parameters
    ----------
    batch
        Tensors of shape (abstracts, longest), ``attention_mask`` among them.
    multiple
        The padding of a piece is cut to its longest row, rounded up to a multiple of this.

    Yields
    ------
    dict of torch.Tensor
        (up to ``rows``, longest of them); the batch itself if it has no more rows than that, and
        nothing if it has none, as the last batch has for some of many processes.
    """
    lengths = batch["attention_mask"].sum(1)
    if 0 < len(lengths) <= rows:
        yield batch
        return
    for first in range(0, len(lengths), rows):
        longest = int(lengths[first : first + rows].max())
        width = -(-longest // multiple) * multiple
        yield {name: value[first : first + rows, :width] for name, value in batch.items()}


def share(batch: Batch, process: int, processes: int) -> Batch:
    """The rows of a batch that one of several processes takes: every ``processes``-th."""
    if processes == 1:
        return batch
    return {name: value[process::processes] for name, value in batch.items()}


def average(loss: torch.Tensor, model: torch.nn.Module, processes: int) -> None:
    """Average loss and gradients over processes: each holds its part times their number."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for tensor in (loss, *(parameter.grad for parameter in parameters)):
        torch.distributed.all_reduce(tensor)
        tensor /= processes


def sequences(batch: Batch) -> list[list[int]]:
    """The token ids of every row, without padding."""
    rows = zip(batch["input_ids"], batch["attention_mask"], strict=True)
    return [ids[mask.bool()].tolist() for ids, mask in rows]


def scored_tokens(batch: Batch) -> torch.Tensor:
    """Number of tokens that the loss is a mean over: all but the first of each row."""
    return batch["labels"][:, 1:].ne(-100).sum()


def flattened(batch: Batch) -> dict[str, torch.Tensor | int]:
    """A padded batch as one row without padding, for attention of variable lengths.

    As TRL's padding-free collator has it: positions start anew at each abstract, whose first
    token is not scored, and cumulative lengths say to the kernel where abstracts end.
    """
    real = batch["attention_mask"].bool()
    positions = torch.arange(real.shape[1], device=real.device).expand(real.shape)[real][None]
    lengths = real.sum(1)
    ends = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    longest = int(lengths.max())
    return {
        "input_ids": batch["input_ids"][real][None],
        "labels": batch["labels"][real][None].masked_fill(positions == 0, -100),
        "position_ids": positions,
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": longest,
        "max_length_k": longest,
    }
