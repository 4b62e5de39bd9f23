"""What TRL and PEFT really built, the loss and the evaluations."""

import copy
import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from peft import get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerCallback, set_seed
from trl import SFTTrainer

from feyntune.experiment import load
from feyntune.models import base
from feyntune.training.log import training_log
from feyntune.training.trainer import PaperTrainer, evaluation_steps

ALL = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
QKV = {"q_proj", "k_proj", "v_proj"}


@pytest.fixture(scope="module")
def demo():
    """Demo's training: the released but for the learning rate; evaluated as often as released."""
    return load.with_settings("demo", {"training.evaluations": 10})


@pytest.fixture(scope="module")
def run(stand_in, demo, tmp_path_factory):
    """A whole run with the demo's settings on the stand-in."""
    trainer = stand_in.trainer(tmp_path_factory.mktemp("run"), training=demo.training)
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def fresh(stand_in, tmp_path_factory):
    """A trainer that has not trained, with the stand-in's settings."""
    return stand_in.trainer(tmp_path_factory.mktemp("fresh"))


def log_of(trainer) -> pd.DataFrame:
    return training_log(trainer.state.log_history)


def wrapped(model: nn.Module) -> dict[str, LoraLayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def token_nll(model: nn.Module, ids: list[int]) -> torch.Tensor:
    """Full logits of one sequence on its own; the last token, EOS, is among the targets."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].double()
    return -logits.log_softmax(-1)[range(len(ids) - 1), ids[1:]]


# --- the objects that were built --------------------------------------------------------------


def test_optimizer_is_adamw_with_the_papers_values(run):
    optimizer = run.optimizer.optimizer  # within accelerate's
    assert type(optimizer) is torch.optim.AdamW
    decayed = set()
    for group in optimizer.param_groups:
        assert (group["betas"], group["eps"]) == ((0.9, 0.95), 1e-5)
        assert group["initial_lr"] == 3e-3
        if group["weight_decay"] == 0.1:
            decayed |= set(map(id, group["params"]))
        assert group["weight_decay"] == 0.1 or not group["params"]
    assert decayed == {id(p) for p in run.model.parameters() if p.requires_grad}


def test_learning_rate_by_hand(run):
    """35 abstracts in batches of 16, four epochs: 12 steps, two of them (10 %, up) warm-up."""
    rates = log_of(run).set_index("step")["learning_rate"].dropna()
    by_hand = {1: 0.0, 2: 1.5e-3, 3: 3e-3}
    for step in range(4, 13):
        cosine = (1 + math.cos(math.pi * (step - 3) / 10)) / 2
        by_hand[step] = 3e-3 * (0.01 + 0.99 * cosine)
    assert rates.to_dict() == pytest.approx(by_hand, rel=1e-9)
    assert run.lr_scheduler.get_last_lr()[0] == pytest.approx(3e-5)  # where it ends: 1 %


def test_epochs_steps_and_batches(stand_in, run):
    lengths = [len(ids) for ids in stand_in.tokenised("train")["input_ids"]]
    assert len(lengths) == 35 and run.args.train_batch_size == 16
    assert run.state.max_steps == run.state.global_step == 12
    # Every epoch reads every token of every abstract once, whatever its order.
    tokens = log_of(run).set_index("step")["tokens"]
    assert [tokens[step] for step in (3, 6, 9, 12)] == [sum(lengths) * k for k in (1, 2, 3, 4)]
    assert tokens[1] != tokens[4] - tokens[3]


def test_settings_that_trl_would_choose_otherwise(run):
    args = run.args
    assert args.loss_type == "nll"
    assert (args.packing, args.eval_packing, args.padding_free) == (False, False, False)
    assert args.max_length is None
    assert (args.seed, args.data_seed) == (42, 42)
    assert args.max_grad_norm == 1.0 and args.gradient_accumulation_steps == 1
    assert (args.bf16, args.fp16, args.gradient_checkpointing) == (False, False, False)
    assert args.lr_scheduler_type.value == "cosine_with_min_lr"
    assert args.logging_steps == 1


def test_lora_on_the_modules_really_wrapped(stand_in, run):
    layers = stand_in.experiment.base.stand_in.layers
    found = wrapped(run.model)
    assert {name.split(".")[-1] for name in found} == ALL
    assert len(found) == layers * len(ALL)
    for layer in found.values():
        assert layer.r == {"default": 8}
        assert layer.scaling == {"default": 4.0}  # alpha 32 over r 8
        assert layer.lora_dropout["default"].p == 0.05
        assert layer.lora_A["default"].out_features == layer.lora_B["default"].in_features == 8
        assert layer.lora_A["default"].bias is None and layer.lora_B["default"].bias is None
        assert not layer.use_dora.get("default", False)
    trainable = {name for name, p in run.model.named_parameters() if p.requires_grad}
    assert trainable and all("lora_" in name for name in trainable)


@pytest.mark.parametrize(("flavour", "targets"), [("LoRA-all", ALL), ("LoRA-QKV", QKV)])
def test_trainable_parameters_by_hand(stand_in, demo, tmp_path, flavour, targets):
    s = stand_in.experiment.base.stand_in
    wide, narrow, keys = s.hidden_size, s.intermediate_size, s.hidden_size // 2
    shapes = {
        "q_proj": (wide, wide), "k_proj": (wide, keys), "v_proj": (wide, keys),
        "o_proj": (wide, wide), "gate_proj": (wide, narrow), "up_proj": (wide, narrow),
        "down_proj": (narrow, wide),
    }  # fmt: skip
    by_hand = s.layers * sum(8 * sum(shapes[name]) for name in targets)
    trainer = stand_in.trainer(tmp_path, training=demo.training, variant=f"s1-{flavour}")
    assert base.trainable_parameters(trainer.model) == by_hand
    assert {name.split(".")[-1] for name in wrapped(trainer.model)} == targets


def test_adapters_start_from_zero_and_stay_float32(run, fresh, tmp_path):
    for name, parameter in fresh.model.named_parameters():
        if "lora_B" in name:
            assert not parameter.any()
    assert {p.dtype for p in run.model.parameters() if p.requires_grad} == {torch.float32}
    run.model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    # Not merely stored so: bfloat16 would leave the last 16 bits empty.
    assert any((tensor.view(torch.int32) & 0xFFFF).any() for tensor in saved.values())
    assert all(tensor.any() for tensor in saved.values())


def test_adapters_start_as_peft_makes_them(stand_in, fresh):
    """TRL would round them to bfloat16, which leaves the last 16 bits empty."""
    set_seed(stand_in.experiment.seed)
    lora = copy.deepcopy(fresh.model.peft_config["default"])
    alone = dict(get_peft_model(stand_in.base(quantized=True), lora).named_parameters())
    for name, parameter in fresh.model.named_parameters():
        if "lora_A" in name:
            assert (parameter.view(torch.int32) & 0xFFFF).any()
            assert torch.equal(parameter, alone[name])


def test_the_seed_alone_decides_where_the_adapter_starts(stand_in, tmp_path):
    other_seed = stand_in.experiment.model_copy(update={"seed": 43})
    starts = []
    for noise, made in (
        (1, stand_in),
        (2, stand_in),
        (1, replace(stand_in, experiment=other_seed)),
    ):
        torch.manual_seed(noise)
        parameters = dict(made.trainer(tmp_path).model.named_parameters())
        starts.append(torch.cat([p.flatten() for n, p in parameters.items() if "lora_A" in n]))
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_one_process_trains_though_it_sees_several_gpus(stand_in, tmp_path):
    """TRL raises an error where transformers would split batches over all GPUs."""

    class SeesTwo(PaperTrainer):
        def __init__(self, *given, args, **more):
            args._n_gpu = 2
            super().__init__(*given, args=args, **more)

    assert stand_in.trainer(tmp_path, trainer_class=SeesTwo).args.n_gpu == 1


class GradientNorms(TrainerCallback):
    """Norm of the gradient that the optimiser is about to use."""

    def __init__(self):
        self.seen = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        self.seen.append(torch.stack([g.norm() for g in gradients]).norm().item())


def test_gradients_are_clipped_to_norm_1(stand_in, tmp_path):
    class Steep(PaperTrainer):
        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs) * 1000

    norms = GradientNorms()
    training = stand_in.experiment.training.model_copy(
        update={"num_train_epochs": 1, "per_device_train_batch_size": 16}
    )
    trainer = stand_in.trainer(tmp_path, training=training, trainer_class=Steep, callbacks=(norms,))
    trainer.train()
    assert norms.seen == pytest.approx([1.0] * 3, rel=1e-3)
    assert (log_of(trainer)["grad_norm"].dropna() > 10).all()  # what it was before


# --- tokens and loss --------------------------------------------------------------------------


def test_a_batch_holds_whole_abstracts(stand_in, run):
    """BOS and EOS once each, padding to a multiple of 8 neither attended nor scored."""
    tokenizer = stand_in.tokenizer
    known = {tuple(ids) for ids in stand_in.tokenised("train")["input_ids"]}
    seen = set()
    for batch in run.get_train_dataloader():
        assert batch["input_ids"].shape[1] % 8 == 0
        for ids, mask, labels in zip(
            batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True
        ):
            real = ids[mask.bool()].tolist()
            assert real[0] == tokenizer.bos_token_id and real.count(real[0]) == 1
            assert real[-1] == tokenizer.eos_token_id and real.count(real[-1]) == 1
            assert labels[mask.bool()].tolist() == real
            assert (labels[~mask.bool()] == -100).all()
            seen.add(tuple(real))
    assert seen == known


def test_loss_by_hand(stand_in, fresh):
    """The mean over all tokens of a batch, EOS scored, BOS given, padding not."""
    whole, eos = stand_in.tokenised("train")["input_ids"], stand_in.tokenizer.eos_token_id
    sequences = [[*whole[0][:8], eos], [*whole[1][:39], eos], [*whole[2][:20], eos]]
    batch = fresh.data_collator([{"input_ids": ids, "labels": ids} for ids in sequences])
    fresh.model.eval()
    with torch.no_grad():
        loss = fresh.compute_loss(fresh.model, dict(batch))
    nll = torch.cat([token_nll(fresh.model, ids) for ids in sequences])
    assert len(nll) == 8 + 39 + 20
    assert loss.item() == pytest.approx(nll.mean().item(), rel=1e-5)


def test_loss_and_gradients_equal_trls_own(stand_in, run):
    """On CPU the loss is ours; elsewhere TRL's. The trained model, dropout and all."""
    batches, items = run.get_batch_samples(iter(run.get_train_dataloader()), 1, run.args.device)
    results = []
    for compute in (run.compute_loss, super(PaperTrainer, run).compute_loss):
        assert compute.__func__ in (
            PaperTrainer.compute_loss,
            SFTTrainer.compute_loss,
        )
        run.model.train()
        run.model.zero_grad()
        set_seed(7)  # the same dropout
        loss = compute(run.model, dict(batches[0]), num_items_in_batch=items)
        loss.backward()
        gradients = {n: p.grad.clone() for n, p in run.model.named_parameters() if p.requires_grad}
        results.append((loss.item(), gradients))
    (ours, our_gradients), (theirs, their_gradients) = results
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert our_gradients.keys() == their_gradients.keys()
    for name, gradient in our_gradients.items():
        scale = gradient.abs().max().item()
        assert scale > 0
        torch.testing.assert_close(gradient, their_gradients[name], rtol=1e-3, atol=1e-4 * scale)


# --- evaluation -------------------------------------------------------------------------------


def test_evaluation_by_hand(stand_in, fresh):
    """Seven abstracts in batches of three, 3, 3 and 1, of which each counts once."""
    metrics = fresh.evaluate()
    nll = [token_nll(fresh.model, ids) for ids in stand_in.tokenised("validation")["input_ids"]]
    assert len(nll) == 7
    expected = sum(math.exp(values.mean()) for values in nll) / 7
    assert metrics["eval_loss"] == pytest.approx(torch.cat(nll).mean().item(), rel=1e-5)
    assert metrics["eval_perplexity"] == pytest.approx(expected, rel=1e-5)


def test_ten_evaluations_the_first_before_training(stand_in, run):
    log = log_of(run)
    evaluated = log.dropna(subset=["eval_loss", "eval_perplexity"])
    # every 12/9 steps, rounded down
    assert list(evaluated["step"]) == [0, 1, 2, 4, 5, 6, 8, 9, 10, 12]
    untrained = stand_in.base(quantized=True)
    nll = [token_nll(untrained, ids) for ids in stand_in.tokenised("validation")["input_ids"]]
    first = evaluated.iloc[0]
    assert first["eval_loss"] == pytest.approx(torch.cat(nll).mean().item(), rel=1e-5)
    assert math.isnan(first["loss"]) and math.isnan(first["tokens"])
    assert evaluated["eval_loss"].iloc[-1] < first["eval_loss"]
    assert list(log["step"]) == list(range(13)) and log["loss"].count() == 12


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(18444, [2049, 4098, 6148, 8197, 10246, 12296, 14345, 16394, 18444]), (3, [1, 2, 3])],
)
def test_evaluations_lie_at_equal_distances(steps, expected):
    found = evaluation_steps(steps, 10)
    assert sorted(set(found) - {0}) == expected
