"""What the machine is, and whether what only a GPU exercises works on it, before time is spent."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable

import torch
from trl.trainer.utils import add_fused_lm_head

from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.models.base import device as device_here
from feyntune.models.base import padded
from feyntune.models.likelihood import next_token_nll
from feyntune.pipeline import gpus
from feyntune.training import attention, batches, preflight
from feyntune.training.memory import MemoryPlan, prepare_base
from gpu import lengths, model

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "triton",
            "flash-attn")  # fmt: skip


def look(*, tiny: bool) -> dict:
    """The facts of this machine; if nothing can be measured on it, ``error`` says why."""
    try:
        refuse(tiny=tiny)
        attempt(device_here())
    except UserError as error:
        return {"error": str(error)}
    return facts()


def facts() -> dict[str, str | int | float | bool | None]:
    """Device, memory and versions, as they stand above the table."""
    versions = {name: version(name) for name in PACKAGES}
    if not torch.cuda.is_available():
        return {"device": "CPU", **versions}
    free, total = torch.cuda.mem_get_info()
    return {
        "device": torch.cuda.get_device_name(),
        "capability": ".".join(map(str, torch.cuda.get_device_capability())),
        "memory": total,
        "free": free,
        "cuda": torch.version.cuda,
        "varlen_attention": attention.implementation(),
        **versions,
    }


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def refuse(*, tiny: bool) -> None:
    """Raise a UserError if nothing could be measured here, and say why."""
    if torch.cuda.is_available():
        if torch.cuda.get_device_capability() < preflight.BF16_CAPABILITY:
            raise UserError(
                f"{torch.cuda.get_device_name()} has no bfloat16 (compute capability "
                f"{torch.cuda.get_device_capability()[0]}, 8 is needed): use a newer GPU."
            )
        return
    if gpus.gpus():
        raise UserError(
            f"There is a GPU, but torch {torch.__version__} cannot use it: install the CUDA build "
            "of this version, with a driver that is new enough for it."
        )
    if not tiny:
        raise UserError(
            "There is no GPU here, and the 8B model needs one of 24 GB or more; --tiny runs the "
            "same code with a small model on the processor."
        )


# --- trials -----------------------------------------------------------------------------------


def nf4(device: torch.device) -> None:
    """Forward and backward through quantised layers."""
    base = _tiny(device, quantized=True)
    ids, _ = _ids(device)
    states = base.get_input_embeddings()(ids).detach().requires_grad_()
    base(inputs_embeds=states, use_cache=False).logits.float().sum().backward()


def fused_head(device: torch.device) -> None:
    """Forward and backward of TRL's head, which Triton compiles on a GPU."""
    base = _tiny(device)
    add_fused_lm_head(base, outputs=("log_probs", "entropy", "is_top1"))
    ids, mask = _ids(device)
    labels = ids.masked_fill(mask == 0, -100)
    found = base(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)
    found.log_probs.sum().backward()


def head_of_evaluation(device: torch.device) -> None:
    """Ours, in the numbers in which perplexity is measured."""
    with torch.inference_mode():
        next_token_nll(_tiny(device), *_ids(device))


def without_padding(device: torch.device) -> None:
    """Attention of variable lengths, where there is a kernel for it."""
    if attention.implementation():
        base = prepare_base(_tiny(device), MemoryPlan("nf4", False, 2, True))
        ids, mask = _ids(device)
        flat = batches.flattened({"input_ids": ids, "attention_mask": mask, "labels": ids})
        del flat["labels"]
        base(**flat, use_cache=False).logits.float().sum().backward()


# What is tried, and what helps where it fails.
TRIALS: tuple[tuple[str, Callable[[torch.device], None], str], ...] = (
    ("bitsandbytes' NF4 layer", nf4,
     "`python -m bitsandbytes` says which CUDA it finds; reinstall it, or torch, for that one"),
    ("TRL's fused head", fused_head,
     "on a GPU Triton compiles it: install a C compiler and Python's headers (gcc, python3-dev)"),
    ("the head of evaluation", head_of_evaluation,
     "install the torch of requirements.lock in its build for this CUDA"),
    ("attention without padding", without_padding,
     "remove flash-attn, or install one that was built for this torch"),
)  # fmt: skip


def attempt(device: torch.device) -> list[str]:
    """Try each with a small model; return what was tried.

    Raises
    ------
    UserError
        That names the first one to fail, its error and what helps.
    """
    for what, trial, help_ in TRIALS:
        try:
            trial(device)
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # errors of kernels come late
        except Exception as error:
            said = " ".join(str(error).split())[:300]
            raise UserError(
                f"On this device {what} fails ({type(error).__name__}: {said}): {help_}."
            ) from error
    return [what for what, _, _ in TRIALS]


def _tiny(device: torch.device, *, quantized: bool = False):
    settings = load.load("paper" if device.type == "cuda" else "demo")
    return model.build(
        model.config(tiny=True),
        dtype=settings.base.dtype,
        quantization=model.nf4(settings) if quantized else None,
        device=device,
    )


def _ids(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return padded(lengths.sequences(2, 1, model.TINY["vocab_size"], 64), device)
