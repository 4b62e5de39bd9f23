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
from feyntune.analysis.tables import by_year, scores
from feyntune.evaluation import statistics
from feyntune.evaluation.grouping import Models, Traits
from feyntune.experiment import load
from feyntune.experiment.recipes import BASE, MODELS
from feyntune.experiment.sections import Statistics

LABEL, ABSENT = "stand-in corpus and model", "not run"
SAID = {"label": LABEL, "absent": ABSENT}
S1 = ["s1-LoRA-all", "s1-LoRA-QKV"]
SETTINGS = Statistics(resamples=199, confidence=0.9, seed=1)
PAPER = Models.of(load.load("paper"))
YEARS = pd.Series({"a": 1999, "b": 1999, "c": 2023, "d": 2024, "e": 2025, "unused": 1995})


def of(names) -> Models:
    """The paper's variants, by their names."""
    return Models({name: PAPER.variants[name] for name in names if name != BASE}, PAPER.flavours)


# Three flavours, a setting of its own, a dataset of its own, names that say nothing.
MIXED = Models(
    {
        "s1-LoRA-all": Traits("s1", "LoRA-all", 42, {}),
        "s1-hot": Traits("s1", "LoRA-all", 42, {"learning_rate": 0.01}),
        "s1-again": Traits("s1", "LoRA-all", 43, {}),
        "s1-DoRA": Traits("s1", "DoRA", 42, {}),
        "gr-qc-QKV": Traits("gr-qc", "LoRA-QKV", 42, {}),
        "s11-DoRA": Traits("s11", "DoRA", 42, {}),
    },
    ("LoRA-all", "LoRA-QKV", "DoRA"),
)


def texts(figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def colliding(axes) -> list[str]:
    """Texts of a panel that lie on a mark or on another text."""
    headings = [axes.title, axes._left_title, axes._right_title]
    found = [t for t in [*headings, *axes.texts, *axes.get_xticklabels()] if t.get_text()]
    boxes = [text.get_window_extent() for text in found]
    # Lines that mark a place are no data, nor are those in the panel's own coordinates.
    lines = [line for line in axes.lines if line.get_transform() == axes.transData]
    data = [line for line in lines if line.get_marker() != "None" or line.get_ls() == "-"]
    points = [
        point
        for line in data
        for point in axes.transData.transform(np.column_stack(line.get_data()).astype(float))
    ]
    return [
        text.get_text()
        for at, (text, box) in enumerate(zip(found, boxes, strict=True))
        if box.count_overlaps(boxes[at + 1 :]) or any(box.contains(*point) for point in points)
    ]


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


def values(models, base: float = 60.0) -> pd.DataFrame:
    means = {name: base if name == BASE else 20 + 0.1 * at for at, name in enumerate(models)}
    spread = np.random.default_rng(0).normal(1, 0.05, 30)
    return pd.DataFrame({name: mean * spread for name, mean in means.items()})


def bootstrapped(models, base: float = 60.0) -> pd.DataFrame:
    about = {"resamples": 99, "confidence": 0.95, "seed": 1}
    return statistics.bootstrap_means(values(models, base), **about)


def intervals(found, models: Models, label: str | None = LABEL):
    """Figure 3.3 of the models that are found."""
    frames = {
        name: pd.DataFrame({"id": range(30), "perplexity": values(found)[name]}) for name in found
    }
    differences = scores.perplexity_differences(frames, models, SETTINGS, absent=ABSENT)
    about = {"label": label, "absent": ABSENT, "confidence": 0.95}
    return bootstrap_perplexity(bootstrapped(found), differences, models, **about)


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


def over_the_years(frames, models: Models, label: str | None = LABEL):
    yearly = by_year.by_year(frames, YEARS, models.names)
    gains = by_year.cutoff(frames, YEARS, 2023, models.names, SETTINGS, absent=ABSENT)
    about = {"absent": ABSENT, "knowledge_until": 2023, "confidence": SETTINGS.confidence}
    return perplexity_by_year(yearly, gains, models, label, **about)


def all_figures(label: str | None = LABEL, models: Models | None = None) -> dict:
    """With results of everything."""
    models = models or of(MODELS)
    said = {"label": label, "absent": ABSENT}
    logs = dict.fromkeys(models.names, log())
    completions = dict.fromkeys(models.names, completed())
    frames = dict.fromkeys(models.names, scored(4, 8, 9, 18, 27))
    return {
        "fig-3.1": learning_curves(logs, models, **said),
        "fig-3.2": validation_perplexity(logs, models, **said, window=3),
        "fig-3.3": intervals(models.names, models, label),
        "fig-3.4": completion_entropy(completions, models, **said),
        "fig-years": over_the_years(frames, models, label),
    }
