"""One step's batch in pieces that fit into memory; the optimisation is the same for any pieces.

The rows of a batch go through the model ``rows`` at a time. The loss of each piece is divided by
the tokens of the whole batch, so that the gradients add up to those of the mean over all tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

Batch = dict[str, torch.Tensor]


def random_state() -> tuple:
    """The state of the generators that dropout draws from."""
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return torch.get_rng_state(), devices


def restore_random_state(state: tuple) -> None:
    """Return the generators to a state from :func:`random_state`."""
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])


def pieces(batch: Batch, rows: int, *, multiple: int) -> Iterator[Batch]:
    """Cut a right-padded batch into pieces of at most ``rows`` rows, of like length.

    Parameters
    ----------
    batch
        Tensors of shape (abstracts, longest), ``attention_mask`` among them.
    multiple
        The padding of a piece is cut to its longest row, rounded up to a multiple of this.

    Yields
    ------
    dict of torch.Tensor
        (up to ``rows``, longest of them); the batch itself if it has no more rows than that.
    """
    lengths = batch["attention_mask"].sum(1)
    if len(lengths) <= rows:
        yield batch
        return
    # Of equal length as far as possible, so that little is padding; one alone has none.
    order = lengths.argsort(stable=True) if rows > 1 else torch.arange(len(lengths))
    for chosen in order.split(rows):
        width = -(-int(lengths[chosen].max()) // multiple) * multiple
        yield {name: value[chosen, :width] for name, value in batch.items()}


def sequences(batch: Batch) -> list[list[int]]:
    """The token ids of every row, without padding."""
    rows = zip(batch["input_ids"], batch["attention_mask"], strict=True)
    return [ids[mask.bool()].tolist() for ids, mask in rows]


def scored_tokens(batch: Batch) -> torch.Tensor:
    """Number of tokens that the loss is a mean over: all but the first of each row."""
    return batch["labels"][:, 1:].ne(-100).sum()


def flattened(batch: Batch) -> dict[str, torch.Tensor | int]:
    """A padded batch as one row without padding, for attention of variable lengths.

    The format of TRL's padding-free collator: positions start again at each abstract, whose first
    token is not scored, and cumulative lengths tell the kernel where abstracts end.
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
