"""Adapters: a folder that plain PEFT loads, put on a base model and taken off again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from transformers import PreTrainedModel

from feyntune.data.fetch import pins
from feyntune.errors import UserError
from feyntune.experiment.recipes import BASE, flavour_of
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sections import Lora
from feyntune.models.base import load_base

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def save(model: PeftModel, folder: Path, base: str, revision: str | None = None) -> None:
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
    # PEFT's own card, which holds nothing of this run.
    (folder / "README.md").unlink(missing_ok=True)
    # PEFT writes the target modules as a set, in an order that changes from run to run.
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_model(experiment: Experiment, model: str, *, dtype: str) -> PreTrainedModel | PeftModel:
    """Base, or base with a variant's adapter on top (unmerged), ready to be evaluated.

    Raises
    ------
    UserError
        If the adapter is not of this experiment; see :func:`check`.
    """
    return _put_on(load_base(experiment, dtype=dtype), experiment, model)


_resident: dict[tuple, PreTrainedModel] = {}


def resident_model(
    experiment: Experiment, model: str, *, dtype: str
) -> PreTrainedModel | PeftModel:
    """What :func:`load_model` gives, over the one base that this process keeps in memory.

    The model that was asked for before is bare from then on. An adapter's layers are taken off
    rather than switched off, so that every model is the same modules as when it is loaded by
    itself, and gives the same numbers to the bit.
    """
    key = (experiment.base_source, experiment.base.revision, dtype)
    if key not in _resident:
        _resident.clear()
        _resident[key] = load_base(experiment, dtype=dtype)
    take_off(_resident[key])
    return _put_on(_resident[key], experiment, model)


@contextmanager
def adapted(
    base: PreTrainedModel, experiment: Experiment, model: str
) -> Iterator[PreTrainedModel | PeftModel]:
    """What :func:`load_model` gives, over a base that is in memory already; afterwards bare."""
    try:
        yield _put_on(base, experiment, model)
    finally:
        take_off(base)


def take_off(base: PreTrainedModel) -> None:
    """Bare a base model of what an adapter, or one whose loading failed, left on it."""
    for name, module in list(base.named_modules()):
        if isinstance(module, BaseTunerLayer):
            base.set_submodule(name, module.get_base_layer())
    # PEFT's own note, for which it warns of several adapters when the next is put on.
    vars(base).pop("peft_config", None)


def _put_on(
    base: PreTrainedModel, experiment: Experiment, model: str
) -> PreTrainedModel | PeftModel:
    if model == BASE:
        return base.eval()
    check(experiment, model)
    folder = experiment.paths.adapter(model)
    try:
        return PeftModel.from_pretrained(base, folder).eval()
    except SafetensorError as error:
        raise UserError(
            f"The adapter in {folder} is not whole ({error}): remove it and train or fetch it anew."
        ) from None


def check(experiment: Experiment, variant: str) -> None:
    """Refuse an adapter that is not of an experiment's base model and LoRA settings.

    Raises
    ------
    UserError
        If it cannot be read, or its base model, rank, scale or target modules are others.
    """
    base, revision = experiment.base.model or "stand-in", base_revision(experiment)
    lora, flavour = experiment.training_for(variant).lora, flavour_of(variant)
    check_folder(experiment.paths.adapter(variant), base, lora, flavour, revision)


def check_folder(
    folder: Path, base: str, lora: Lora, flavour: str, revision: str | None = None
) -> None:
    """Refuse an adapter that is not of this base model and these LoRA settings.

    Parameters
    ----------
    revision
        Commit of the base model; not known here or there, it agrees with any.

    Raises
    ------
    UserError
        If it cannot be read, or its base model, rank, scale or target modules are others.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} holds no adapter that can be read ({error}).") from None
    targets = config.get("target_modules")
    found = {
        "base model": _model_name(config.get("base_model_name_or_path")),
        "base model's revision": (config.get("revision") or revision) if revision else None,
        "rank": config.get("r"),
        "alpha": config.get("lora_alpha"),
        # One module may be given by its name alone.
        "target modules": sorted([targets] if isinstance(targets, str) else targets or []),
    }
    expected = {
        "base model": _model_name(base),
        "base model's revision": revision,
        "rank": lora.r,
        "alpha": lora.alpha,
        "target modules": sorted(lora.targets[flavour]),
    }
    for what, value in expected.items():
        if found[what] != value:
            raise UserError(
                f"The adapter in {folder} has the {what} {_said(found[what])}; the experiment has "
                f"{_said(value)}: train it anew, or use the experiment it was made by."
            )


def _model_name(base: str | None) -> str:
    """A model's own name, wherever it lies; Meta has renamed its repositories."""
    return Path(base or "unknown").name.removeprefix("Meta-")


def _said(value: object) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def base_revision(experiment: Experiment) -> str | None:
    """Commit of the base model: what was fetched, else what the experiment names."""
    for entry in pins.read(experiment).values():
        if getattr(entry.source, "id", None) == experiment.base.model and entry.commit:
            return entry.commit
    return experiment.base.revision
