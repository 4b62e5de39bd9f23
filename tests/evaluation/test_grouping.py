"""Which models belong together, by what they are and not by what they are called."""

import pandas as pd
import pytest
from drawn_figures import MIXED, of

from feyntune.analysis import looks
from feyntune.evaluation.grouping import Models, Traits
from feyntune.experiment import load
from feyntune.experiment.recipes import DATASETS, VARIANTS


def test_the_papers_models():
    models = Models.of(load.load("paper"))
    assert models.names == ["base", *VARIANTS]
    assert models.datasets == list(DATASETS)
    assert models.shown == ["s1-LoRA-all", "s1-LoRA-QKV"]
    assert list(models.pairs.values()) == ["with base"] * 20 + ["between flavours"] * 10
    assert ("s4-LoRA-all", "s4-LoRA-QKV") in models.pairs and not models.repeats


def test_looks_are_those_of_the_flavour_and_never_alike():
    assert looks.look_of("s1-LoRA-all", of(VARIANTS)) == (looks.BLUE, "o")
    assert looks.look_of("s7-LoRA-QKV", of(["s7-LoRA-QKV"])) == (looks.VERMILION, "s")
    many = Models(
        {f"v{f}.{n}": Traits("s1", f"flavour {f}", n, {}) for f in range(9) for n in range(3)},
        tuple(f"flavour {number}" for number in range(9)),
    )
    found = {looks.look_of(name, many) for name in many.variants}
    assert len(found) == len(many.variants)
    assert not {looks.BASE_LOOK, looks.COMMERCIAL_LOOK} & found


def test_settings_of_a_flavour_are_no_settings_of_their_own():
    entries = [
        *("s1-LoRA-all", "s1-wide"),
        {"name": "again", "dataset": "s1", "flavour": "LoRA-all", "seed": 43},
        {"name": "hot", "dataset": "s1", "flavour": "LoRA-all"}
        | {"training": {"learning_rate": 0.01, "lora": {"r": 16}}},
    ]
    wide = {"target_modules": ["q_proj"], "r": 16, "use_dora": True}
    settings = {"flavours.wide": wide, "variants": entries}
    models = Models.of(load.with_settings("smoke", settings))
    assert models.flavours == ("LoRA-all", "LoRA-QKV", "wide")
    assert models.variants["s1-wide"].training == {}
    assert models.variants["hot"].training == {"learning_rate": 0.01, "lora.r": 16}
    assert models.repeats == {"s1-LoRA-all": ["s1-LoRA-all", "again"]}
    compared = {pair: kind for pair, kind in models.pairs.items() if "base" not in pair}
    assert compared == {
        ("s1-LoRA-all", "s1-wide"): "between flavours",
        ("hot", "s1-LoRA-all"): "between settings",
    }


def test_names_are_never_split():
    assert MIXED.datasets == ["s1", "gr-qc", "s11"]
    assert MIXED.trained_on("s1") == ["s1-LoRA-all", "s1-hot", "s1-again", "s1-DoRA"]
    assert MIXED.used == ["LoRA-all", "LoRA-QKV", "DoRA"]
    ticks = {name: MIXED.tick(name) for name in ("s11-DoRA", "s1-hot", "gr-qc-QKV", "base")}
    assert ticks == {n: n for n in ticks} | {"s11-DoRA": "s11"}


def test_places_side_by_side_do_not_overlap_nor_reach_the_next_dataset():
    places = MIXED.side_by_side(0.8)
    assert places["gr-qc-QKV"] == 1 and places["s11-DoRA"] == 2
    own = [places[name] for name in MIXED.trained_on("s1")]
    assert own == pytest.approx([-0.3, -0.1, 0.1, 0.3])


def test_spread_over_seeds():
    assert MIXED.repeats == {"s1-LoRA-all": ["s1-LoRA-all", "s1-again"]}
    scores = pd.Series({"base": 9, "s1-LoRA-all": 1, "s1-again": 3, "s1-hot": 8}, dtype=float)
    found = MIXED.over_seeds(scores)
    assert found.index.tolist() == ["s1-LoRA-all"]
    assert found.loc["s1-LoRA-all"].tolist() == [2, pytest.approx(2**0.5), 2]
    assert MIXED.over_seeds(scores[:2]).empty  # one seed has no spread
    copies = {name: Traits("s1", "LoRA-all", 42, {}) for name in ("one", "copy")}
    assert not Models(copies, ("LoRA-all",)).repeats


def test_one_variant_or_none():
    alone = of(["s2-LoRA-QKV"])
    assert alone.shown == ["s2-LoRA-QKV"] and alone.side_by_side() == {"s2-LoRA-QKV": 0}
    assert of([]).shown == [] and of([]).side_by_side() == {} and of([]).pairs == {}
