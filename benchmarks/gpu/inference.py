"""Perplexity and completions, by the functions of notebooks 03 and 04."""

from __future__ import annotations

import tempfile
from pathlib import Path

from peft import PeftModel, get_peft_model
from transformers import PreTrainedModel

from feyntune.errors import UserError
from feyntune.evaluation import completions, perplexity
from feyntune.models import adapters
from feyntune.models.likelihood import plan_batches
from feyntune.pipeline import notebooks
from feyntune.runs.stages import FINETUNE
from gpu import flops, lengths, model
from gpu.memory import Memory
from gpu.run import VARIANT, Run
from gpu.timing import synchronised


def _evaluated(run: Run, adapted: bool, folder: Path, dtype: str) -> PreTrainedModel:
    """The unquantised base, with an adapter of random weights on it where one is asked for."""
    settings = run.experiment
    base = model.build(
        model.config(tiny=run.tiny), dtype=dtype, quantization=None, device=run.device
    )
    if not adapted:
        return base
    training = settings.variants[VARIANT].training
    config = notebooks.executed(FINETUNE, "lora", training=training)["lora"]
    wrapped = get_peft_model(base, config)
    adapters.save_adapter(wrapped, folder / "adapter", "random weights")
    # Loaded as `attach_adapter` does: in the type of the base.
    return PeftModel.from_pretrained(
        wrapped.unload(), folder / "adapter", autocast_adapter_dtype=False
    ).eval()


def evaluation(run: Run, adapted: bool) -> dict:
    """Perplexity's own function over length-sorted batches of the paper's size."""
    settings = run.experiment.perplexity
    with tempfile.TemporaryDirectory(prefix="feyntune-benchmark-") as folder:
        measured = _evaluated(run, adapted, Path(folder), settings.dtype)
    rows = lengths.sequences(run.size(2048, 48), 2, measured.config.vocab_size)
    memory = Memory(run.device)

    def score(some: list) -> float:
        batches = plan_batches([len(ids) for ids in some], settings.tokens_per_batch)
        start = synchronised(run.device)
        perplexity.token_nll(measured, some, batches)
        return synchronised(run.device) - start

    score(rows[:128])  # compiles and loads what comes late
    # No more than there is time for, by a first look at how fast it goes.
    some = rows[: max(16, int(len(rows[:128]) * run.left * 0.6 / score(rows[:128])))]
    seconds = score(some)
    batches = plan_batches([len(ids) for ids in some], settings.tokens_per_batch)
    tokens = sum(map(len, some))
    slots = sum(len(batch) * max(len(some[i]) for i in batch) for batch in batches)
    lora = sum(p.numel() for n, p in measured.named_parameters() if "lora_" in n)
    each = flops.forward(measured.config, lora, [len(ids) for ids in some])
    return {
        "steps": len(batches),
        "tokens_per_second": tokens / seconds,
        "flops_per_second": each * tokens / seconds,
        "padding_share": 1 - tokens / slots,
        "lengths": [[len(some[i]) for i in batch] for batch in batches],
        **memory.peak(),
    }


def generation(run: Run, adapted: bool) -> dict:
    """The artifact's sampling, of first halves of abstracts; tokens of completions are counted."""
    settings = run.experiment.completions
    new = run.size(128, 8)
    settings = settings.model_copy(
        update={
            "min_new_tokens": new,  # of random weights an end would come by chance
            "max_new_tokens": new,
            "batch_size": run.size(settings.batch_size, 4),
        }
    )
    with tempfile.TemporaryDirectory(prefix="feyntune-benchmark-") as folder:
        measured = _evaluated(run, adapted, Path(folder), settings.dtype)
    rows = lengths.sequences(settings.batch_size, 3, measured.config.vocab_size)
    prompts = [" ".join(map(str, ids[1 : 1 + len(ids) // 2])) for ids in rows]
    words = model.tokenizer(measured.config.vocab_size)
    memory = Memory(run.device)
    warm = settings.model_copy(update={"min_new_tokens": 2, "max_new_tokens": 2})
    completions.generate(measured, words, prompts, warm)
    start = synchronised(run.device)
    found = completions.generate(measured, words, prompts, settings)
    seconds = synchronised(run.device) - start
    if any(len(ids) != new for ids in found):
        raise UserError(f"Completions of {new} tokens were asked for, and others came.")
    return {
        "steps": new,
        "tokens_per_second": len(found) * new / seconds,
        **memory.peak(),
    }
