"""Models side by side, of one experiment or several: scores, paired differences, settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from feyntune.errors import UserError
from feyntune.evaluation import statistics
from feyntune.evaluation.grouping import Models, Traits
from feyntune.experiment import load
from feyntune.experiment.recipes import BASE
from feyntune.experiment.schema import Experiment
from feyntune.runs import stages
from feyntune.runs.dependencies import flat
from feyntune.runs.freshness import FRESH, Freshness, take_committed

# What tells two sets of texts with the same ids apart, the surest first.
TEXTS = ("bytes", "truth", "truth_tokens")
LOWER, HIGHER = "\N{DOWNWARDS ARROW}", "\N{UPWARDS ARROW}"


@dataclass(frozen=True)
class Metric:
    """A column of a stage's results, and which way is better."""

    stage: str
    column: str
    title: str
    better: str
    digits: int


METRICS = (
    Metric(stages.PERPLEXITY, "perplexity", "perplexity", LOWER, 2),
    Metric(stages.COMPLETIONS, "semscore", "SemScore", HIGHER, 3),
)


@dataclass(frozen=True)
class Model:
    """A model of an experiment or of a trial, with its fresh results."""

    experiment: Experiment
    name: str

    @property
    def reference(self) -> str:
        return f"{self.experiment.name}/{self.name}"

    def run(self, stage: str) -> stages.Run:
        return stages.run(self.experiment, stage, self.name)

    def scores(self, metric: Metric) -> pd.DataFrame | None:
        """One row per abstract; ``None`` if the stage has not run, or is not up to date."""
        return self._frames.get(metric.stage)

    @cached_property
    def _frames(self) -> dict[str, pd.DataFrame]:
        paths, freshness = self.experiment.paths, Freshness(self.experiment)
        places = {stages.PERPLEXITY: paths.perplexity, stages.COMPLETIONS: paths.completions}
        return {
            stage: pd.read_parquet(place(self.name))
            for stage, place in places.items()
            if freshness.status(self.run(stage)).state == FRESH
        }

    @property
    def steps(self) -> int | None:
        """Training steps of its adapter; ``None`` for base, or one that was not trained here."""
        record = self.run(stages.FINETUNE).record if self.name != BASE else None
        return record["facts"].get("steps") if record else None

    @property
    def settings(self) -> dict[str, Any]:
        """What its numbers depend on, by dotted name."""
        trained = [] if self.name == BASE else [stages.FINETUNE]
        found = {"dataset": "none"}
        if trained:
            found = {"dataset": self.experiment.variants[self.name].dataset}
        for stage in (*trained, stages.PERPLEXITY, stages.COMPLETIONS):
            found |= flat(self.run(stage).settings)
        return found

    @property
    def traits(self) -> Traits:
        """What a variant is; all its settings count, as there may be several experiments."""
        its = self.experiment.variants[self.name]
        settings = self.settings | {"recipe": self.experiment.recipes[its.dataset].model_dump()}
        settings.pop("seed")
        return Traits(its.dataset, its.flavour, its.seed, settings)


def models(references: Sequence[str]) -> list[Model]:
    """The named models, and first the base model of the first of them.

    Raises
    ------
    UserError
        If one is unknown, has no fresh perplexity, or another test set than the first.
    """
    named = [Model(*load.model(reference)) for reference in references]
    whole = named[0].experiment.parent or named[0].experiment
    found = list({each.reference: each for each in (Model(whole, BASE), *named)}.values())
    for each in found:
        take_committed(stages.plan(each.experiment))
        run = each.run(stages.PERPLEXITY)
        if each.scores(METRICS[0]) is None:
            state, why = Freshness(each.experiment).status(run)
            raise UserError(f"{each.reference}: {run} is {state} ({why}): {run.command}")
    _check_same_kind(found)
    _check_same_test_set(found)
    return found


def _check_same_kind(found: Sequence[Model]) -> None:
    first = found[0]
    for other in found[1:]:
        kinds = [each.experiment.stand_in or "real" for each in (other, first)]
        if len(set(kinds)) > 1:
            raise UserError(
                f"{other.reference} is {kinds[0]}, {first.reference} is {kinds[1]}: a difference "
                "between them says nothing."
            )


def _check_same_test_set(found: Sequence[Model]) -> None:
    first = found[0]
    for metric in METRICS:
        expected = first.scores(metric)
        for other in found[1:]:
            scores = other.scores(metric)
            if scores is None or expected is None:
                continue
            known = [name for name in TEXTS if name in scores and name in expected]
            columns = ["id", *known[:1]]
            if not scores[columns].equals(expected[columns]):
                raise UserError(
                    f"{other.reference} and {first.reference} were measured on different abstracts "
                    f"({metric.title}): only models with the same test set can be compared."
                )


def scores(found: Sequence[Model]) -> pd.DataFrame:
    """A row per model: each metric, and its paired difference from the first named model.

    Parameters
    ----------
    found
        As :func:`models` gives them; differences are from the second, the first that was named.

    Returns
    -------
    DataFrame
        Index ``model``. ``steps`` of training; per metric its mean, ends of the interval
        (``_low``, ``_high``), ``_difference`` with its ends, and ``_n``, the abstracts.
    """
    reference = found[1] if len(found) > 1 else found[0]
    settings = reference.experiment.statistics.model_dump()
    table = pd.DataFrame({"steps": {each.reference: each.steps for each in found}}, dtype="Int64")
    for metric in METRICS:
        frames = {e.reference: e.scores(metric) for e in found if e.scores(metric) is not None}
        if not frames:
            continue
        values = statistics.aligned(frames, list(frames), metric.column).dropna()
        means = statistics.bootstrap_means(values, **settings)
        name = metric.title
        table[name] = means["mean"]
        table[f"{name}_low"], table[f"{name}_high"] = means["low"], means["high"]
        table[f"{name}_n"] = pd.Series(len(values), means.index, dtype="Int64")
        if reference.reference not in frames:
            continue
        others = [each for each in frames if each != reference.reference]
        pairs = [(each, reference.reference) for each in others]
        paired = statistics.paired_differences(values, pairs, **settings).set_index("model")
        for column, source in (("", "difference"), ("_low", "low"), ("_high", "high")):
            table[f"{name}_difference{column}"] = paired[source]
    return table.rename_axis("model")


def over_seeds(found: Sequence[Model]) -> pd.DataFrame:
    """Spread over the models that differ in nothing but the seed.

    Returns
    -------
    DataFrame
        Index ``model``, the first of each set; by metric ``mean``, ``sd`` (``n - 1``) and ``n``,
        the number of seeds. Empty where no model is repeated.
    """
    variants = {each.reference: each.traits for each in found if each.name != BASE}
    models = Models(variants, tuple(dict.fromkeys(t.flavour for t in variants.values())))
    spreads = {}
    for metric in METRICS:
        frames = {each.reference: each.scores(metric) for each in found}
        means = {ref: f[metric.column].mean() for ref, f in frames.items() if f is not None}
        spreads[metric.title] = models.over_seeds(pd.Series(means, dtype=float))
    return pd.concat(spreads, axis=1)


def settings(found: Sequence[Model]) -> pd.DataFrame:
    """The settings in which the named models differ: a row per setting, a column per model."""
    named = [each for each in found if each.name != BASE] or list(found)
    table = pd.DataFrame({each.reference: pd.Series(each.settings, dtype=object) for each in named})
    return table[[len({repr(value) for value in row}) > 1 for row in table.to_numpy()]]


def text(found: Sequence[Model]) -> str:
    """Both tables for a terminal, with what has to be said of them."""
    table, lines = scores(found), []
    label = found[0].experiment.stand_in
    if label:
        lines.append(f"{label.capitalize()}: these numbers say nothing about physics.")
    shown = pd.DataFrame({"model": table.index, "steps": table["steps"].astype(object)})
    for metric in METRICS:
        if metric.title in table:
            shown[f"{metric.title} {metric.better}"] = _intervals(table, metric, "")
        if f"{metric.title}_difference" in table:
            shown[f"difference ({metric.title})"] = _intervals(table, metric, "_difference")
            shown["n" if metric is METRICS[0] else "n "] = table[f"{metric.title}_n"].astype(object)
    lines += [shown.fillna("").to_string(index=False), ""]
    named = [each for each in found if each.name != BASE]
    if named:
        lines.append(
            f"Differences are paired, abstract by abstract, from {found[1].reference}; intervals "
            f"are bootstrapped ({found[0].experiment.statistics.confidence:.0%})."
        )
    lines += _spreads(over_seeds(found))
    if len({each.steps for each in named if each.steps}) > 1:
        lines.append("These models were trained for different numbers of steps.")
    differing = settings(found)
    if len(named) > 1:
        lines += ["", "Settings that differ:"] if len(differing) else ["", "No setting differs."]
        lines += [differing.fillna("").to_string()] if len(differing) else []
    return "\n".join(lines)


def _spreads(table: pd.DataFrame) -> list[str]:
    """A line per set of repeats."""
    lines = []
    for model in table.index:
        parts = [
            f"{m.title} {row['mean']:.{m.digits}f} with standard deviation {row['sd']:.{m.digits}f}"
            for m in METRICS
            if pd.notna((row := table.loc[model, m.title])["mean"])
        ]
        seeds = table.loc[model].xs("n", level=1).max()
        lines.append(f"Over {seeds:.0f} seeds of {model}: {', '.join(parts)}.")
    return lines


def _intervals(table: pd.DataFrame, metric: Metric, kind: str) -> list[str]:
    """Numbers with the ends of their intervals; differences with their sign."""
    name = f"{metric.title}{kind}"
    form = f"{'+' if kind else ''}.{metric.digits}f"
    rows = table[[name, f"{name}_low", f"{name}_high"]].itertuples(index=False)
    return [
        "" if pd.isna(mean) else f"{mean:{form}} [{low:{form}}, {high:{form}}]"
        for mean, low, high in rows
    ]
