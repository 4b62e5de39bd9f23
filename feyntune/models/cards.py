"""The model card of an adapter, written from what the run really did."""

from __future__ import annotations

import pandas as pd
from huggingface_hub import EvalResult, ModelCardData

from feyntune.experiment.recipes import dataset_of, flavour_of
from feyntune.experiment.schema import Experiment

_TRAINING = (
    ("optimiser", "{t.optimizer}, betas {t.betas[0]} and {t.betas[1]}, epsilon {t.epsilon}"),
    ("weight decay", "{t.weight_decay}"),
    ("learning rate", "{t.learning_rate}"),
    ("schedule", "{t.schedule}, to {t.min_lr_rate} of it; warm-up {t.warmup_share} of the steps"),
    ("gradient clipping", "norm {t.max_grad_norm}"),
    ("batch", "{t.batch_size} abstracts a step, one abstract a sequence, BOS and EOS, nothing cut"),
    ("epochs", "{t.epochs}"),
    ("LoRA", "r {t.lora.r}, alpha {t.lora.alpha}, dropout {t.lora.dropout}, bias {t.lora.bias}"),
    ("target modules", "{targets}"),
    ("base weights", "{quantisation}"),
    ("seed", "{seed}"),
)  # fmt: skip
_STAND_IN = (
    "> **A stand-in**, made to test the code: its {parts} is synthetic. It says nothing about "
    "physics and is of no use to anybody.\n\n"
)


def card(
    experiment: Experiment,
    variant: str,
    *,
    revision: str | None,
    log: pd.DataFrame,
    perplexity: pd.DataFrame | None = None,
) -> str:
    """A model card in Markdown, with the Hub's metadata at its head.

    Parameters
    ----------
    revision
        Commit of the base model, where it is known.
    log
        The training log, as `logs.training_log` makes it.
    perplexity
        Per abstract of the test set, as notebook 03 leaves it; ``None`` before it has run.
    """
    base = experiment.base.model or "stand-in"
    evaluations = log.dropna(subset="eval_loss")
    results = [
        ("steps", f"{int(log['step'].max()):,}"),
        ("tokens", f"{int(log['tokens'].max()):,}"),
        ("validation loss before", f"{evaluations['eval_loss'].iloc[0]:.4f} nats a token"),
        ("validation loss after", f"{evaluations['eval_loss'].iloc[-1]:.4f} nats a token"),
    ]
    if perplexity is not None:
        mean = perplexity["perplexity"].mean()
        results.append(("mean test perplexity", f"{mean:.3f} ({len(perplexity):,} abstracts)"))
    shown = f"`{base}`" + (f" at revision `{revision}`" if revision else "")
    return (
        f"---\n{_metadata(experiment, variant, perplexity).to_yaml()}\n---\n\n"
        f"# {variant}\n\n"
        + (_STAND_IN.format(parts=experiment.stand_in) if experiment.stand_in else "")
        + f"A LoRA adapter for {shown}, trained on arXiv abstracts: dataset "
        f"`{dataset_of(variant)}`, flavour `{flavour_of(variant)}`, experiment "
        f"`{experiment.name}` of the FeynTune artifact.\n\n"
        f"## Training\n\n{_table(_settings(experiment, variant))}\n"
        f"## Results\n\n{_table(results)}\n"
        "## Use\n\n```python\nfrom peft import AutoPeftModelForCausalLM\n\n"
        'model = AutoPeftModelForCausalLM.from_pretrained("<this repository>")\n```\n'
    )


def _metadata(experiment: Experiment, variant: str, perplexity: pd.DataFrame | None):
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
                metric_value=round(float(perplexity["perplexity"].mean()), 4),
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


def _settings(experiment: Experiment, variant: str) -> list[tuple[str, str]]:
    training, stored = experiment.training_for(variant), experiment.base.quantization
    given = {
        "t": training,
        "targets": ", ".join(training.lora.targets[flavour_of(variant)]),
        "quantisation": f"{stored.type.upper()}{', double quantised' if stored.double else ''}, "
        f"computed in {stored.compute_dtype}" if stored else experiment.base.dtype,
        "seed": experiment.seed,
    }  # fmt: skip
    return [(name, text.format(**given)) for name, text in _TRAINING]


def _table(rows: list[tuple[str, str]]) -> str:
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"| | |\n|---|---|\n{lines}\n"
