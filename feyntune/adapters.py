"""An adapter's folder: what plain PEFT loads, and nothing that another experiment made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from feyntune import lock
from feyntune.errors import UserError
from feyntune.sections import Lora
from feyntune.settings import Experiment

if TYPE_CHECKING:  # it takes seconds, and only its saving is asked for
    from peft import PeftModel

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


def check(folder: Path, base: str, lora: Lora, flavour: str, revision: str | None = None) -> None:
    """Refuse an adapter that is not of this base model and these LoRA settings.

    Parameters
    ----------
    revision
        Commit of the base model; ``None`` where it is not known, which agrees with any.

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
        "base model": config.get("base_model_name_or_path"),
        "base model's revision": config.get("revision") if revision else None,
        "rank": config.get("r"),
        "alpha": config.get("lora_alpha"),
        # One module may be given by its name alone.
        "target modules": sorted([targets] if isinstance(targets, str) else targets or []),
    }
    expected = {
        "base model": base,
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


def _said(value: object) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def base_revision(experiment: Experiment) -> str | None:
    """Commit of the base model: what was fetched, else what the experiment names."""
    for entry in lock.read(experiment).values():
        if getattr(entry.source, "id", None) == experiment.base.model and entry.commit:
            return entry.commit
    return experiment.base.revision
