"""Which models belong together. Figures, tables and ratings take it from here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pandas as pd

from feyntune.experiment.recipes import BASE, Variant
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sections import Training, result_settings
from feyntune.runs.freshness import flat

WITH_BASE, FLAVOURS, SETTINGS = "with base", "between flavours", "between settings"


@dataclass(frozen=True)
class Traits:
    """What a variant is, whatever its name.

    Attributes
    ----------
    training
        What it sets otherwise than its flavour on top of the experiment's common settings; not
        the seed, and nothing that changes no result.
    """

    dataset: str
    flavour: str
    seed: int
    training: Mapping[str, Any]


@dataclass(frozen=True)
class Models:
    """The base model and the variants of an experiment, in its order.

    Attributes
    ----------
    variants
        Traits of each variant, by name.
    flavours
        All that the experiment knows, used or not: a flavour's place gives its colour and marker.
    """

    variants: Mapping[str, Traits]
    flavours: tuple[str, ...]

    @classmethod
    def of(cls, experiment: Experiment) -> Models:
        return cls(
            {
                name: Traits(v.dataset, v.flavour, v.seed, _own_settings(v, experiment))
                for name, v in experiment.variants.items()
            },
            tuple(experiment.flavours),
        )

    @property
    def names(self) -> list[str]:
        """Base, then the variants."""
        return [BASE, *self.variants]

    @property
    def datasets(self) -> list[str]:
        """Each once, in the order in which variants name them."""
        return list(dict.fromkeys(traits.dataset for traits in self.variants.values()))

    @property
    def used(self) -> list[str]:
        """The flavours that some variant has, in the order of all."""
        found = {traits.flavour for traits in self.variants.values()}
        return [name for name in self.flavours if name in found]

    @property
    def shown(self) -> list[str]:
        """The variants that figures show by themselves: the first dataset's, without repeats."""
        again = {name for names in self.repeats.values() for name in names[1:]}
        first = [name for dataset in self.datasets[:1] for name in self.trained_on(dataset)]
        return [name for name in first if name not in again]

    @property
    def repeats(self) -> dict[str, list[str]]:
        """Variants that differ in nothing but the seed, by the first of them."""
        found: dict[str, dict[int, str]] = {}
        for name, traits in self.variants.items():
            first = next((each for each in found if self._alike(each, name)), name)
            found.setdefault(first, {}).setdefault(traits.seed, name)
        return {first: [*of.values()] for first, of in found.items() if len(of) > 1}

    @property
    def pairs(self) -> dict[tuple[str, str], str]:
        """What is compared, as (model, reference), and what kind of comparison it is.

        Every variant with base. Of variants of one dataset and seed: flavours that were trained
        with the same settings, and settings of the same flavour.
        """
        pairs = {(name, BASE): WITH_BASE for name in self.variants}
        for dataset in self.datasets:
            for one, other in combinations(self.trained_on(dataset), 2):
                a, b = self.variants[one], self.variants[other]
                if a.seed != b.seed or (a.flavour != b.flavour) == (a.training != b.training):
                    continue
                if a.flavour != b.flavour:
                    pairs[one, other] = FLAVOURS
                else:
                    pairs[other, one] = SETTINGS
        # Of one kind after the other.
        kinds = (WITH_BASE, FLAVOURS, SETTINGS)
        return dict(sorted(pairs.items(), key=lambda pair: kinds.index(pair[1])))

    def trained_on(self, dataset: str) -> list[str]:
        """The variants of a dataset, flavour by flavour."""
        names = [name for name, traits in self.variants.items() if traits.dataset == dataset]
        return sorted(names, key=lambda name: self.flavours.index(self.variants[name].flavour))

    def look(self, name: str) -> tuple[int, int]:
        """Place of a variant's flavour, and of the variant among those alike in dataset, flavour.

        Figures give the first a colour and both together a marker.
        """
        traits = self.variants[name]
        alike = [
            other
            for other, its in self.variants.items()
            if (its.dataset, its.flavour) == (traits.dataset, traits.flavour)
        ]
        return self.flavours.index(traits.flavour), alike.index(name)

    def tick(self, name: str) -> str:
        """What an axis of training sets calls a model: its dataset where its name says no more."""
        traits = self.variants.get(name)
        usual = traits and name == f"{traits.dataset}-{traits.flavour}"
        return traits.dataset if usual else name

    def side_by_side(self, share: float = 0.8) -> dict[str, float]:
        """Places on an axis with a unit per dataset; the variants of one fill ``share`` of it.

        As far apart in every dataset as where there are most.
        """
        rows = [self.trained_on(dataset) for dataset in self.datasets]
        step = share / max(map(len, rows), default=1)
        return {
            name: place + step * (at - (len(names) - 1) / 2)
            for place, names in enumerate(rows)
            for at, name in enumerate(names)
        }

    def over_seeds(self, scores: pd.Series) -> pd.DataFrame:
        """Spread of a score over repeats.

        Parameters
        ----------
        scores
            A number per model, such as the mean perplexity; models without one are left out.

        Returns
        -------
        DataFrame
            Indexed by the first variant of each set of repeats: ``mean`` and ``sd`` (``n - 1``)
            over seeds, and ``n``, the seeds with a score. Sets with fewer than two are left out.
        """
        scores = scores.dropna()
        found = {first: scores[scores.index.isin(of)] for first, of in self.repeats.items()}
        rows = {
            first: (some.mean(), some.std(), len(some))
            for first, some in found.items()
            if len(some) > 1
        }
        table = pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "sd", "n"])
        return table.rename_axis("model")

    def _alike(self, one: str, other: str) -> bool:
        a, b = self.variants[one], self.variants[other]
        return (a.dataset, a.flavour, a.training) == (b.dataset, b.flavour, b.training)


def _own_settings(variant: Variant, experiment: Experiment) -> dict[str, Any]:
    """What a variant sets otherwise than its flavour, by dotted name."""
    usual = experiment.training.model_dump()
    lora = usual["lora"] | experiment.flavours[variant.flavour]
    usual["lora"] = {key: value for key, value in lora.items() if value is not None}
    expected = flat(result_settings(Training.model_validate(usual)))
    found = flat(result_settings(variant.training))
    return {
        key: found.get(key) for key in {**expected, **found} if found.get(key) != expected.get(key)
    }
