"""Models of other shapes are trained and measured like the stand-in."""

import pytest
import tiny
import torch
from other_bases import SHAPES, experiment, make
from peft import PeftModel
from transformers import AutoModelForCausalLM

from feyntune.evaluation import completions, perplexity
from feyntune.models import adapters, base, suitability
from feyntune.training import arguments


@pytest.fixture(scope="module")
def rows(stand_in):
    return stand_in.rows("train").select(range(8))


@pytest.fixture(scope="module", params=SHAPES)
def trained(request, stand_in, rows, tmp_path_factory):
    """Two steps of training by the code of notebook 02, and the adapter on the disk."""
    shape, place = SHAPES[request.param], tmp_path_factory.mktemp(request.param)
    settings = experiment(shape, make(shape, rows["abstract"], place / "base"))
    suitability.check_base(settings)
    tokenizer = base.load_tokenizer(settings)
    data = arguments.tokenised(tokenizer, rows, max_tokens=settings.training.max_length)
    chosen = settings.variants["s1-LoRA-all"].model_copy(update={"seed": 1})
    trainer = tiny.by_cells(
        settings,
        "s1-LoRA-all",
        place / "checkpoints",
        training=chosen.training.model_copy(update={"evaluations": 2}),
        chosen=chosen,
        model=base.load_base(settings, dtype="float32", quantization=tiny.nf4(settings)),
        tokenizer=tokenizer,
        train=data,
        validation=data,
    )
    trainer.train()
    adapters.save_adapter(trainer.model, place / "adapter", "any")
    return shape, settings, trainer, place


def by_hand(trained, texts) -> list[list[float]]:
    """Nats of every scored token, by nothing but transformers and PEFT, token by token."""
    shape, settings, _, place = trained
    model = AutoModelForCausalLM.from_pretrained(settings.base_source)
    model = PeftModel.from_pretrained(model, place / "adapter").eval()
    tokenizer = base.load_tokenizer(settings)
    before = [] if shape.before is None else [tokenizer.convert_tokens_to_ids(shape.before)]
    found = []
    for text in texts:
        ids = before + tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0].double()
        shares = logits.log_softmax(-1)
        found.append([-shares[i, token].item() for i, token in enumerate(ids[1:])])
    return found


def test_training_moves_every_target_and_learns(trained):
    shape, _, trainer, _ = trained
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert trainer.state.global_step == 2 and losses[-1] < losses[0]
    moved = {
        name.split(".lora_B")[0].rsplit(".", 1)[-1]
        for name, weight in trainer.model.named_parameters()
        if "lora_B" in name and weight.abs().max() > 0
    }
    assert moved == set(shape.targets["LoRA-all"])


def test_one_eos_is_learnt_and_no_padding(trained):
    """Also where EOS pads, and where it stands before every abstract."""
    shape, _, trainer, _ = trained
    batch, eos = trainer.data_collator(list(trainer.train_dataset)), trainer.processing_class
    ends, lengths = eos.eos_token_id, batch["attention_mask"].sum(1)
    assert lengths.min() < lengths.max()
    for row, length in enumerate(lengths):
        labels = batch["labels"][row]
        assert labels[length - 1] == ends and (labels[length:] == -100).all()
        starts = shape.before == shape.eos
        assert (labels == ends).sum() == 1 + starts


def test_perplexity_is_that_of_a_plain_loop(trained, rows):
    _, settings, _, place = trained
    model = PeftModel.from_pretrained(
        base.load_base(settings, dtype="float32"), place / "adapter"
    ).eval()
    tokenizer, texts = base.load_tokenizer(settings), rows["abstract"][:4]
    found = perplexity.score(model, tokenizer, rows["id"][:4], texts, tokens_per_batch=500)
    expected = by_hand(trained, texts)
    assert found["tokens"].tolist() == [len(values) for values in expected]
    assert found["nll"].tolist() == pytest.approx([sum(values) for values in expected], rel=1e-5)


def test_completions_end_where_the_model_says(trained):
    shape, settings, _, _ = trained
    model, tokenizer = base.load_base(settings, dtype="float32"), base.load_tokenizer(settings)
    ends = [tokenizer.convert_tokens_to_ids(end) for end in (shape.eos, *shape.ends)]
    assert base.ends_of_text(tokenizer, model) == ends
    prompts = ["We study", "Strings on a torus are"]
    found = completions.generate(model, tokenizer, prompts, settings.completions)
    assert all(0 < len(ids) <= 8 and not set(ids) & set(ends) for ids in found)
    for end in ends:
        hook = model.get_output_embeddings().register_forward_hook(
            lambda _, given, logits, end=end: logits.index_fill(-1, torch.tensor([end]), 1e4)
        )
        found = completions.generate(model, tokenizer, prompts, settings.completions)
        hook.remove()
        # No completion is shorter than one token; the next one is the end.
        assert [len(ids) for ids in found] == [settings.completions.min_new_tokens] * 2
