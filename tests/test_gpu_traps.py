"""What a GPU would meet and a processor does not, checked without a GPU."""

import pytest
import torch
from accelerate import Accelerator
from transformers import LlamaConfig

from feyntune.experiment import load
from feyntune.models import base as modeling
from feyntune.pipeline.gpus import Asked
from feyntune.training import memory

LLAMA = LlamaConfig(
    vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
    num_attention_heads=32, num_key_value_heads=8,
)  # fmt: skip
GB = 10**9
LONGEST = 690  # tokens of the longest abstract of hep-th, 2,114 characters


@pytest.mark.parametrize(("rank", "number"), [(None, 0), ("1", 1)])
def test_a_quantised_model_may_be_trained_where_it_is_put(monkeypatch, rank, number):
    """accelerate compares the place of a 4-bit model with its own, number included."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    if rank:
        monkeypatch.setenv("LOCAL_RANK", rank)
    place = modeling.device()
    assert place == torch.device("cuda", number)
    monkeypatch.undo()
    accelerator = Accelerator(cpu=True)
    before = accelerator.state.device
    try:
        accelerator.state.device = torch.device("cuda", number)
        model = torch.nn.Linear(2, 2)
        model.is_loaded_in_4bit, model.hf_device_map = True, {"": place}
        assert accelerator.prepare_model(model, device_placement=False) is model
    finally:
        accelerator.state.device = before


def test_memory_is_that_of_the_processs_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100 + device, 200))
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert memory.free_memory() == 103


def test_one_process_trains_though_it_sees_several_gpus(stand_in, tmp_path, monkeypatch):
    """TRL raises an error where transformers would split batches over all GPUs."""
    from feyntune.training import arguments

    made = arguments.sft_config

    def sees_two(*args, **kwargs):
        config = made(*args, **kwargs)
        config._n_gpu = 2
        return config

    monkeypatch.setattr(arguments, "sft_config", sees_two)
    assert stand_in.trainer(tmp_path).args.n_gpu == 1


@pytest.mark.parametrize(
    ("total", "base", "again", "rows"),
    [
        (24, "nf4", True, 16),
        (48, "dequantised", True, 16),
        (80, "dequantised", False, 4),
        (141, "dequantised", False, 8),
    ],
)
def test_what_is_planned_for_the_8b_model(total, base, again, rows):
    """For the longest abstracts in one batch, on GPUs of these sizes with 0.6 GB taken."""
    training = load.load("paper").training
    plan = memory.choose(LLAMA, training, [[0] * LONGEST], Asked(), free=int(total * GB - 6e8))
    assert (plan.base, plan.gradient_checkpointing, plan.rows) == (base, again, rows)


def test_nf4_with_recomputed_activations_fits_a_gpu_of_24_gb():
    plan = memory.Plan("nf4", True, 16, False)
    assert 6 * GB < memory.needed(LLAMA, plan, 16 * LONGEST) < 0.9 * 24 * GB
