"""Adapters: saved as plain PEFT loads them, attached to a base model, detached again, checked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from pickle import UnpicklingError

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import load_peft_weights
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
READ = (WEIGHTS, "adapter_model.bin")  # PEFT before 0.7 wrote the other
# The arguments of LoraConfig that decide what an adapter computes, by what messages call them.
COMPUTING = {
    **{"rank": "r", "alpha": "lora_alpha", "target modules": "target_modules"},
    **{name: name for name in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern")},
    **{name: name for name in ("layers_to_transform", "modules_to_save", "lora_bias")},
}


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
    if isinstance(config["target_modules"], list):  # a regular expression is one text
        config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def restore_adapter(model: PeftModel, folder: Path) -> None:
    """Give an untrained adapter the weights of one that was saved."""
    set_peft_model_state_dict(model, load_peft_weights(folder, device="cpu"))


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
    # Not kept if attaching fails: a damaged adapter may have left its weights in the base.
    kept = _resident.pop(key, None)
    _resident.clear()
    base = load_base(experiment, dtype=dtype) if kept is None else kept
    detach_adapter(base)
    adapted = attach_adapter(base, experiment, model)
    _resident[key] = base
    return adapted


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
    if not any((folder / name).is_file() for name in READ):
        raise UserError(f"The adapter in {folder} has no {WEIGHTS}: train or fetch it again.")
    try:
        adapted = PeftModel.from_pretrained(base, folder).eval()
        check_weights(adapted, load_peft_weights(folder, device="cpu"), folder)
    except (SafetensorError, UnpicklingError, EOFError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise UserError(
            f"The adapter in {folder} is not whole, or of another base model ({said[:200]}): "
            "remove it; train or fetch it again."
        ) from None
    return adapted


def check_weights(adapted: PeftModel, read: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Check that every tensor of an adapter has found its place, and that every place has one.

    PEFT only warns, and leaves untrained layers in the places that stay empty.

    Parameters
    ----------
    read
        Tensors by name, as they are in the file.

    Raises
    ------
    UserError
        If names do not match, or a weight is NaN or infinite.
    """
    places = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    lost, lacking = sorted(set(read) - places), sorted(places - set(read))
    if lost or lacking:
        raise UserError(
            f"The adapter in {folder} does not fit: {len(lost)} of its {len(read)} tensors have no "
            f"place in the model, and {len(lacking)} of {len(places)} places get none "
            f"({(lost or lacking)[0]}). It was saved for another model or by another version of "
            "PEFT: train or fetch it again."
        )
    broken = [name for name, tensor in read.items() if not tensor.isfinite().all()]
    if broken:
        raise UserError(
            f"The adapter in {folder} has weights that are NaN or infinite, in {len(broken)} of "
            f"its {len(read)} tensors ({broken[0]}): train or fetch it again."
        )


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
        **{what: _plain(config.get(name)) for what, name in COMPUTING.items()},
    }
    arguments = lora.arguments
    expected = {
        "base model": _model_name(base),
        "base model's revision": revision,
        **{what: _plain(arguments.get(name)) for what, name in COMPUTING.items()},
    }
    if lora.target_modules == "all-linear":  # which PEFT spells out in the adapter
        expected["target modules"] = found["target modules"]
    for what, value in expected.items():
        if found[what] != value:
            raise UserError(
                f"The adapter in {folder} has the {what} {_shown(found[what])}; the experiment has "
                f"{_shown(value)}: train it again, or use the experiment that made it."
            )


def _plain(value: object) -> object:
    """A setting as it is compared: not set and empty are the same, and a list has no order.

    One target module may be given by its name alone.
    """
    listed = [value] if isinstance(value, str) else value
    return (sorted(listed) if isinstance(listed, list) else listed) or None


def _model_name(base: str | None) -> str:
    """A model's name without its owner or folder; Meta has renamed its repositories.

    Some versions of PEFT write the place of a download: ``.../models--owner--name/snapshots/...``.
    """
    parts = PureWindowsPath(base or "unknown").parts
    cached = [part.rpartition("--")[2] for part in parts if part.startswith("models--")]
    return (cached or parts)[-1].removeprefix("Meta-")


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "none")
