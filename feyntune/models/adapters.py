"""Adapters: saved as plain PEFT loads them, attached to a base model, detached again, checked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from transformers import PreTrainedModel

from feyntune.errors import UserError
from feyntune.experiment.load import base_revision
from feyntune.experiment.recipes import BASE
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sections import Lora
from feyntune.models.base import load_base

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
FILES = (CONFIG, WEIGHTS)


def save_adapter(model: PeftModel, folder: Path, base: str, revision: str | None = None) -> None:
    """Save an adapter as plain PEFT loads it: safetensors and ``adapter_config.json``.

    Parameters
    ----------
    base, revision
        Name and commit of the base model, written into the configuration.
    """
    model.peft_config["default"].base_model_name_or_path = base
    model.peft_config["default"].revision = revision
    # Embeddings are not trained; asking for them would look the base model up on the Hub.
    model.save_pretrained(folder, save_embedding_layers=False)
    # PEFT's default card says nothing about this run; see `publishing` for ours.
    (folder / "README.md").unlink(missing_ok=True)
    # PEFT writes the target modules as a set, in an order that changes from run to run.
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_model(experiment: Experiment, model: str, *, dtype: str) -> PreTrainedModel | PeftModel:
    """The base model, or the base with a variant's unmerged adapter, ready to be evaluated.

    Raises
    ------
    UserError
        If the adapter does not fit the experiment; see :func:`check_adapter`.
    """
    return attach_adapter(load_base(experiment, dtype=dtype), experiment, model)


_resident: dict[tuple, PreTrainedModel] = {}


def resident_model(
    experiment: Experiment, model: str, *, dtype: str
) -> PreTrainedModel | PeftModel:
    """The same model as :func:`load_model`, on one base that this process keeps in memory.

    The adapter of the previous call is detached. Its layers are removed, not switched off, so that
    every model has the same modules as when it is loaded alone, and gives the same numbers to the
    bit.
    """
    key = (experiment.base_source, experiment.base.revision, dtype)
    if key not in _resident:
        _resident.clear()
        _resident[key] = load_base(experiment, dtype=dtype)
    detach_adapter(_resident[key])
    return attach_adapter(_resident[key], experiment, model)


@contextmanager
def adapted(
    base: PreTrainedModel, experiment: Experiment, model: str
) -> Iterator[PreTrainedModel | PeftModel]:
    """The same model as :func:`load_model`, on a base in memory; detached after the block."""
    try:
        yield attach_adapter(base, experiment, model)
    finally:
        detach_adapter(base)


def detach_adapter(base: PreTrainedModel) -> None:
    """Remove the layers of an adapter from a base model, also those of one that failed to load."""
    for name, module in list(base.named_modules()):
        if isinstance(module, BaseTunerLayer):
            base.set_submodule(name, module.get_base_layer())
    # With this attribute of PEFT, the next adapter would be reported as a second one.
    vars(base).pop("peft_config", None)


def attach_adapter(
    base: PreTrainedModel, experiment: Experiment, model: str
) -> PreTrainedModel | PeftModel:
    """Attach the adapter of ``model`` to a base model; for ``base`` itself, attach nothing."""
    if model == BASE:
        return base.eval()
    check_adapter(experiment, model)
    folder = experiment.paths.adapter(model)
    try:
        return PeftModel.from_pretrained(base, folder).eval()
    except SafetensorError as error:
        raise UserError(
            f"The adapter in {folder} is not whole ({error}): remove it; train or fetch it again."
        ) from None


def check_adapter(experiment: Experiment, variant: str) -> None:
    """Check that a variant's adapter has the experiment's base model and LoRA settings.

    Raises
    ------
    UserError
        See :func:`check_adapter_folder`.
    """
    base, revision = experiment.base.model or "stand-in", base_revision(experiment)
    check_adapter_folder(
        experiment.paths.adapter(variant), base, experiment.lora(variant), revision
    )


def check_adapter_folder(folder: Path, base: str, lora: Lora, revision: str | None = None) -> None:
    """Check that an adapter has this base model and these LoRA settings.

    Parameters
    ----------
    revision
        Commit of the base model; compared only if it is known both here and in the adapter.

    Raises
    ------
    UserError
        If it cannot be read, or its base model, rank, scale, kind or target modules differ.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} holds no adapter that can be read ({error}).") from None
    found = {
        "base model": _model_name(config.get("base_model_name_or_path")),
        "base model's revision": (config.get("revision") or revision) if revision else None,
        "rank": config.get("r"),
        "alpha": config.get("lora_alpha"),
        "target modules": _listed(config.get("target_modules")),
        "use_dora": bool(config.get("use_dora")),
        "use_rslora": bool(config.get("use_rslora")),
    }
    expected = {
        "base model": _model_name(base),
        "base model's revision": revision,
        "rank": lora.r,
        "alpha": lora.lora_alpha,
        "target modules": _listed(lora.target_modules),
        "use_dora": lora.use_dora,
        "use_rslora": lora.use_rslora,
    }
    if lora.target_modules == "all-linear":  # which PEFT spells out in the adapter
        expected["target modules"] = found["target modules"]
    for what, value in expected.items():
        if found[what] != value:
            raise UserError(
                f"The adapter in {folder} has the {what} {_shown(found[what])}; the experiment has "
                f"{_shown(value)}: train it again, or use the experiment that made it."
            )


def _listed(modules: str | list[str] | None) -> list[str]:
    """Target modules in one order; one may be given by its name alone."""
    return sorted([modules] if isinstance(modules, str) else modules or [])


def _model_name(base: str | None) -> str:
    """A model's name without its owner or folder; Meta has renamed its repositories."""
    return Path(base or "unknown").name.removeprefix("Meta-")


def _shown(value: object) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
