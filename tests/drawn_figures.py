"""Every figure, drawn from small invented frames."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.text import Text

from feyntune.analysis.figures.bootstrap_perplexity import bootstrap_perplexity
from feyntune.analysis.figures.completion_entropy import completion_entropy
from feyntune.analysis.figures.learning_curves import learning_curves
from feyntune.analysis.figures.perplexity_by_year import perplexity_by_year
from feyntune.analysis.figures.validation_perplexity import validation_perplexity
from feyntune.analysis.tables import by_year
from feyntune.evaluation import statistics
from feyntune.experiment.recipes import BASE, MODELS
from feyntune.experiment.sections import Statistics

LABEL, ABSENT = "stand-in corpus and model", "not run"
SAID = {"label": LABEL, "absent": ABSENT}
S1 = ["s1-LoRA-all", "s1-LoRA-QKV"]
SETTINGS = Statistics(resamples=199, confidence=0.9, seed=1)
YEARS = pd.Series({"a": 1999, "b": 1999, "c": 2023, "d": 2024, "e": 2025, "unused": 1995})


def texts(figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def log(first: float = 40.0) -> pd.DataFrame:
    """Four epochs of ten steps whose loss falls in steps; five evaluations."""
    steps = np.arange(41)
    frame = pd.DataFrame(
        {"step": steps, "epoch": steps / 10, "loss": 4 - 0.5 * np.ceil(steps / 10)}
    )
    frame.loc[0, "loss"] = np.nan
    frame["eval_perplexity"] = np.where(steps % 10 == 0, 20 - steps / 10, np.nan)
    frame.loc[0, "eval_perplexity"] = first
    return frame


def bootstrapped(models, base: float = 60.0) -> pd.DataFrame:
    means = {name: base if name == BASE else 20 + 0.1 * at for at, name in enumerate(models)}
    spread = np.random.default_rng(0).normal(1, 0.05, 30)
    values = pd.DataFrame({name: mean * spread for name, mean in means.items()})
    return statistics.bootstrap_means(values, resamples=99, confidence=0.95, seed=1)


def completed(tokens=(3, 4, 0)) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "tokens": tokens,
            "entropy_exp": [2.0, 3.5, np.nan],
            "truth_tokens": [5, 6, 7],
            "truth_entropy_exp": [4.0, 5.0, 6.5],
        }
    )


def scored(*perplexities: float) -> pd.DataFrame:
    """Perplexities of the five abstracts of ``YEARS``."""
    return pd.DataFrame({"id": list("abcde"), "perplexity": perplexities})


def over_the_years(frames, models, label: str | None = LABEL):
    yearly = by_year.by_year(frames, YEARS, models)
    gains = by_year.cutoff(frames, YEARS, 2023, models, SETTINGS, absent=ABSENT)
    about = {"absent": ABSENT, "knowledge_until": 2023, "confidence": SETTINGS.confidence}
    return perplexity_by_year(yearly, gains, models, label, **about)


def all_figures(label: str | None = LABEL) -> dict:
    """With results of everything."""
    said = {"label": label, "absent": ABSENT}
    logs = dict.fromkeys(S1, log())
    completions = {name: completed() for name in ("base", "s1-LoRA-all")}
    frames = dict.fromkeys(MODELS, scored(4, 8, 9, 18, 27))
    return {
        "fig-3.1": learning_curves(logs, S1, **said),
        "fig-3.2": validation_perplexity(logs, S1, **said, window=3),
        "fig-3.3": bootstrap_perplexity(bootstrapped(MODELS), MODELS, **said, confidence=0.95),
        "fig-3.4": completion_entropy(completions, list(completions), **said),
        "fig-years": over_the_years(frames, MODELS, label),
    }
