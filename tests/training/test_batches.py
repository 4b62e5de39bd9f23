"""Batches in pieces and without padding: the same loss, gradients and tokens."""

import pytest
import torch
from kernels import varlen_kernel
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from feyntune.training import attention, batches


@pytest.fixture(scope="module")
def plain(stand_in, tmp_path_factory):
    return stand_in.trainer(tmp_path_factory.mktemp("trainer"))


@pytest.fixture
def padded(plain, stand_in):
    """Five abstracts as the trainer's collator makes a batch of them."""
    rows = stand_in.tokenised("train").select([0, 1, 2, 3, 4])
    return plain.data_collator(list(rows.remove_columns("id")))


@pytest.fixture(params=["sdpa", attention.TORCH])
def trainer(request, plain, monkeypatch):
    """A trainer with either attention; a reference stands for the kernel that only a GPU has."""
    kernel = varlen_kernel()
    monkeypatch.setattr(attention, "varlen_attn", kernel)
    # It computes in float32 too, where small differences show.
    monkeypatch.setattr(attention, "HALF", (torch.float32,))
    monkeypatch.setattr(plain, "padding_free", False)
    plain.model.get_base_model().set_attn_implementation(request.param)
    return plain


def by_the_kernel(trainer) -> bool:
    """Whether the kernel was called as often as there are layers with it, and else never."""
    chosen = trainer.model.get_base_model().config._attn_implementation == attention.TORCH
    return attention.varlen_attn.calls == chosen * trainer.model.config.num_hidden_layers


def gradients(trainer, piece, tokens):
    trainer.model.eval()  # no dropout: the masks of different shapes are different
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, dict(piece), num_items_in_batch=tokens)
    loss.backward()
    trained = ((n, p) for n, p in trainer.model.named_parameters() if p.requires_grad)
    return loss.item(), {name: parameter.grad.clone() for name, parameter in trained}


def test_without_padding_loss_and_gradients_are_the_same(trainer, padded):
    tokens = batches.scored_tokens(padded)
    flat = batches.flattened(padded)
    assert flat["input_ids"].shape == (1, int(padded["attention_mask"].sum()))
    # lora_B is zero at first, and with it every gradient of lora_A.
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    loss, expected = gradients(trainer, padded, tokens)
    trainer.padding_free = True
    flat_loss, found = gradients(trainer, flat, tokens)
    assert by_the_kernel(trainer)
    assert flat_loss == pytest.approx(loss, rel=1e-5)
    for name, gradient in expected.items():
        scale = gradient.abs().max().item()
        assert scale > 0
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4 * scale)


def test_no_abstract_attends_to_another(trainer, padded):
    other = {name: value.clone() for name, value in padded.items()}
    last = int(padded["attention_mask"][0].sum()) - 1
    other["input_ids"][0, 1:last] = 7
    with torch.no_grad():
        nll = [
            -trainer.model(**batches.flattened(b), use_cache=False, fused_lm_head=True).log_probs
            for b in (padded, other)
        ]
    first, second = (values.flatten() for values in nll)
    assert not torch.allclose(first[:last], second[:last])
    torch.testing.assert_close(first[last + 1 :], second[last + 1 :], rtol=0, atol=1e-6)


def test_flattened_is_what_trl_makes_of_it(padded, stand_in):
    rows = [{"input_ids": ids} for ids in stand_in.tokenised("train")["input_ids"][:5]]
    theirs = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(rows)
    ours = batches.flattened(padded)
    for name, value in ours.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value.long(), theirs[name].long()), name
        else:
            assert value == theirs[name]


def test_pieces_are_the_batch(padded):
    assert next(batches.pieces(padded, 5, multiple=8)) is padded
    parts = list(batches.pieces(padded, 2, multiple=8))
    assert [len(part["input_ids"]) for part in parts] == [2, 2, 1]
    assert all(part["input_ids"].shape[1] % 8 == 0 for part in parts)
    # Those of like length go together.
    found = [ids for part in parts for ids in batches.sequences(part)]
    assert found == sorted(batches.sequences(padded), key=len)
    assert sum(part["input_ids"].numel() for part in parts) < padded["input_ids"].numel()
    alone = [batches.sequences(part)[0] for part in batches.pieces(padded, 1, multiple=8)]
    assert alone == batches.sequences(padded), "one alone stays in its place"
