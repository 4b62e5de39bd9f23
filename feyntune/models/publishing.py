"""Adapters as repositories on the Hugging Face Hub: shown first, pushed only on request."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from feyntune.errors import UserError
from feyntune.experiment.load import base_revision
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sections import Lora
from feyntune.models.adapters import FILES, check_adapter

README = "README.md"
CARD = """\
---
{{ card_data }}
---

# {{ variant }}

{% if experiment.stand_in -%}
> **A stand-in**, made to test the code: its {{ experiment.stand_in }} is synthetic. It says nothing \
about physics and is of no use to anybody.

{% endif -%}
A LoRA adapter for `{{ base }}`{% if revision %} at revision `{{ revision }}`{% endif %}, trained on \
arXiv abstracts: dataset `{{ dataset }}`, flavour `{{ flavour }}`, experiment `{{ experiment.name }}` \
of the FeynTune artifact.

## Training

| | |
|---|---|
| optimiser | {{ training.optim }}, betas {{ training.adam_beta1 }} and {{ training.adam_beta2 }}, epsilon {{ training.adam_epsilon }} |
| weight decay | {{ training.weight_decay }} |
| learning rate | {{ training.learning_rate }} |
| schedule | {{ training.lr_scheduler_type }}{% for name, value in training.lr_scheduler_kwargs.items() %}, {{ name }} {{ value }}{% endfor %}; warm-up {{ training.warmup_steps }}{% if training.warmup_steps < 1 %} of the{% endif %} steps |
| gradient clipping | norm {{ training.max_grad_norm }} |
| batch | {{ training.per_device_train_batch_size }} abstracts a step, one abstract a sequence, BOS and EOS, nothing cut |
| epochs | {{ training.num_train_epochs }} |
| LoRA | r {{ training.lora.r }}, alpha {{ training.lora.lora_alpha }}, dropout {{ training.lora.lora_dropout }}, bias {{ training.lora.bias }}{% for name in special %}, {{ name }}{% endfor %} |
| target modules | {{ modules }} |
| base weights | {% if quantization %}{{ quantization.type | upper }}{% if quantization.double %}, double quantised{% endif %}, \
computed in {{ quantization.compute_dtype }}{% else %}{{ experiment.base.dtype }}{% endif %} |
| seed | {{ seed }} |

## Results

| | |
|---|---|
| steps | {{ "{:,}".format(steps) }} |
| tokens | {{ "{:,}".format(tokens) }} |
| validation loss before | {{ "%.4f" | format(losses[0]) }} nats a token |
| validation loss after | {{ "%.4f" | format(losses[-1]) }} nats a token |
{%- if abstracts %}
| mean test perplexity | {{ "%.3f" | format(perplexity) }} ({{ "{:,}".format(abstracts) }} abstracts) |
{%- endif %}

## Use

```python
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("<this repository>")
```
"""  # noqa: E501


@dataclass(frozen=True)
class Publication:
    """One adapter, and the repository that it would become."""

    variant: str
    repository: str
    folder: Path
    card: str

    def files(self) -> dict[str, int]:
        """The files to be pushed, with their sizes in bytes."""
        sizes = {name: (self.folder / name).stat().st_size for name in FILES}
        return {README: len(self.card.encode()), **sizes}


def prepare(experiment: Experiment, variants: list[str], owner: str) -> list[Publication]:
    """The repositories of these variants, after a check of their adapters and logs.

    Raises
    ------
    UserError
        If an adapter is missing, or has another base model or other LoRA settings.
    """
    return [_prepare(experiment, variant, owner) for variant in variants]


def _prepare(experiment: Experiment, variant: str, owner: str) -> Publication:
    paths = experiment.paths
    folder = paths.adapter(variant)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing or not paths.log(variant).is_file():
        raise UserError(
            f"There is no adapter of {variant} to publish: run feyntune run 02_finetune "
            f"--experiment {experiment.name} --variant {variant} first."
        )
    check_adapter(experiment, variant)
    measured = paths.perplexity(variant)
    text = card(
        experiment,
        variant,
        revision=base_revision(experiment),
        log=pd.read_parquet(paths.log(variant)),
        perplexity=pd.read_parquet(measured) if measured.is_file() else None,
    )
    name = f"feyntune-{experiment.name}-{variant}"
    return Publication(variant, f"{owner}/{name}", folder, text)


def card(
    experiment: Experiment,
    variant: str,
    *,
    revision: str | None,
    log: pd.DataFrame,
    perplexity: pd.DataFrame | None = None,
) -> str:
    """The model card in Markdown: metadata for the Hub, training settings, results.

    Parameters
    ----------
    revision
        Commit of the base model, where it is known.
    log
        The training log; see :func:`feyntune.training.log.training_log`.
    perplexity
        Per abstract of the test set, as notebook 03 writes it; ``None`` before it has run.
    """
    trained, lora = experiment.variants[variant], experiment.lora(variant)
    targets = lora.target_modules
    mean = None if perplexity is None else float(perplexity["perplexity"].mean())
    text = ModelCard.from_template(
        _metadata(experiment, variant, mean),
        template_str=CARD,
        experiment=experiment,
        variant=variant,
        base=experiment.base.model or "stand-in",
        revision=revision,
        dataset=trained.dataset,
        flavour=trained.flavour,
        seed=trained.seed,
        training=trained.training,
        modules=targets if isinstance(targets, str) else ", ".join(targets or []),
        special=[f"{name} {value}" for name, value in _special(lora).items()],
        quantization=experiment.base.quantization,
        steps=int(log["step"].max()),
        tokens=int(log["tokens"].max()),
        losses=log["eval_loss"].dropna().tolist(),
        perplexity=mean,
        abstracts=0 if perplexity is None else len(perplexity),
    )
    return f"{text}\n"


def _special(lora: Lora) -> dict[str, Any]:
    """Arguments of LoRA beyond the usual five, where they say something."""
    usual = {"r", "lora_alpha", "lora_dropout", "bias", "target_modules"}
    plain = {"use_dora": False, "use_rslora": False, "init_lora_weights": True}
    return {
        name: value
        for name, value in lora.arguments.items()
        if name not in usual and (name not in plain or value != plain[name])
    }


def _metadata(experiment: Experiment, variant: str, perplexity: float | None) -> ModelCardData:
    results = None
    if perplexity is not None:
        results = [
            EvalResult(
                task_type="text-generation",
                dataset_type="arxiv-abstracts",
                dataset_name="hep-th test set (s1)",
                dataset_split="test",
                metric_type="perplexity",
                metric_name="mean perplexity of an abstract",
                metric_value=round(perplexity, 4),
            )
        ]
    return ModelCardData(
        base_model=experiment.base.model,
        library_name="peft",
        pipeline_tag="text-generation",
        language="en",
        tags=["lora", "arxiv", *(["stand-in"] if experiment.stand_in else [])],
        model_name=variant,
        eval_results=results,
    )


def show(publication: Publication) -> str:
    """What would be pushed, in lines."""
    lines = [f"{publication.variant} -> {publication.repository}"]
    lines += [f"  {size:>12,} bytes  {name}" for name, size in publication.files().items()]
    return "\n".join(lines)


def push(
    publications: list[Publication],
    *,
    private: bool,
    api: HfApi | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Create each repository unless it exists, and upload its adapter in one commit.

    Uploading the same files again changes nothing. The token comes from the environment or from
    ``hf auth login``.

    Raises
    ------
    UserError
        If the Hub refuses, or cannot be reached.
    """
    api = api or HfApi()
    for publication in publications:
        with tempfile.TemporaryDirectory() as folder:
            write(publication, Path(folder))
            try:
                api.create_repo(publication.repository, private=private, exist_ok=True)
                commit = api.upload_folder(
                    repo_id=publication.repository,
                    folder_path=folder,
                    allow_patterns=[README, *FILES],
                    commit_message=f"{publication.variant}, by feyntune publish",
                )
            except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
                reason = " ".join(str(error).split())[:300]
                raise UserError(
                    f"{publication.repository} could not be published ({reason}): set HF_TOKEN to "
                    "a token that may write, or use `hf auth login`."
                ) from None
        report(f"{publication.repository}: {commit.oid[:7]}")


def write(publication: Publication, folder: Path) -> None:
    """Write the repository's files to ``folder``; the adapter's folder is left unchanged."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(publication.folder / name, folder / name)
    (folder / README).write_text(publication.card, encoding="utf-8")
