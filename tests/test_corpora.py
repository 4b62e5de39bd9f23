"""The ten datasets: their sizes and rows by hand, for small sources and for the paper's."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

from feyntune import corpora, experiment, snapshot
from feyntune.demo import corpus
from feyntune.errors import UserError
from feyntune.paths import SPLITS
from feyntune.variants import DATASETS, FIELDS, RECIPES

SIZES = {"hep-th": 100, "hep-ph": 130, "gr-qc": 70, "q-bio": 20, "cs": 300}
# 105,384 and hep-ph + gr-qc = 195,909 are the paper's; how that sum divides is not known.
PAPER_SIZES = {
    "hep-th": 105_384,
    "hep-ph": 132_409,
    "gr-qc": 63_500,
    "q-bio": 28_600,
    "cs": 200_000,
}
DATA = experiment.load("demo").data.model_copy(update={"sample": dict.fromkeys(FIELDS)})


def papers(sizes: dict[str, int]) -> dict[str, list[dict]]:
    """Rows as `snapshot.select` gives them; the fields take turns in the file."""
    order = sorted((i / size, field, i) for field, size in sizes.items() for i in range(size))
    rows = {field: [] for field in FIELDS}
    for line, (_, field, i) in enumerate(order, 1):
        row = {"line": line, "id": f"{field}:{i}", "primary": field, "abstract": f"{field} {i}"}
        rows[field].append(row)
    return rows


def build(rows: dict[str, list[dict]], data=DATA):
    """Sources, the ten datasets, and what each part of them gave."""
    sources = corpora.split_sources(corpora.sample(rows, data), data)
    mixed = {name: corpora.mix(name, sources, data) for name in DATASETS}
    return (
        sources,
        {n: splits for n, (splits, _) in mixed.items()},
        {n: p for n, (_, p) in mixed.items()},
    )


def sizes_of(splits: dict[str, Dataset]) -> tuple[int, ...]:
    return tuple(len(splits[split]) for split in SPLITS)


def with_sample(**wanted: int | None):
    sample = dict.fromkeys(FIELDS) | {name.replace("_", "-"): n for name, n in wanted.items()}
    return DATA.model_copy(update={"sample": sample})


@pytest.fixture(scope="module")
def small():
    return build(papers(SIZES))


@pytest.fixture(scope="module")
def large():
    return build(papers(PAPER_SIZES))


# --- sizes ------------------------------------------------------------------------------------

# Sources split as hep-th 70/15/15, hep-ph 91/19/20, gr-qc 49/10/11, q-bio 14/3/3, cs 210/45/45,
# hep-ph+gr-qc 140/30/30: the training part rounds down, of the rest the test part rounds up.
BY_HAND = {
    "s1": {"hep-th": (70, 15, 15)},
    "s3": {"hep-th": (70, 15, 15), "hep-ph+gr-qc": (140, 30, 30)},
    # int(0.15 * 70) = 10 and int(0.15 * 15) = 2 of the others, hep-th fills up.
    "s4": {"hep-th": (50, 11, 11), "gr-qc": (10, 2, 2), "hep-ph": (10, 2, 2)},
    "s5": {"hep-th": (60, 13, 13), "gr-qc": (10, 2, 2)},
    "s6": {"hep-th": (60, 13, 13), "hep-ph": (10, 2, 2)},
    "s7": {"hep-th": (70, 15, 15), "gr-qc": (49, 10, 11)},
    "s8": {"hep-th": (70, 15, 15), "hep-ph": (91, 19, 20)},
    # 100 / 200 of each gr-qc split, hep-ph fills up to hep-th's size.
    "s9": {"gr-qc": (24, 5, 5), "hep-ph": (46, 10, 10)},
    # As large as s3: 210/45/45.
    "s10": {"hep-th": (70, 15, 15), "q-bio": (14, 3, 3), "cs": (126, 27, 27)},
}


@pytest.mark.parametrize("name", BY_HAND)
def test_composition_by_hand(small, name):
    _, datasets, parts = small
    expected = BY_HAND[name]
    for i, split in enumerate(SPLITS):
        found = pd.Series(datasets[name][split]["primary"]).value_counts()
        for source, rows in expected.items():
            assert sum(found.get(field, 0) for field in source.split("+")) == rows[i]
        assert len(datasets[name][split]) == sum(rows[i] for rows in expected.values())
    said = {part["only"] or part["source"]: tuple(part["rows"].values()) for part in parts[name]}
    assert said == expected, "what curation.json says of the parts"


def test_a_share_rounds_down():
    # 105 give 73 to the training part, and 0.15 * 73 = 10.95.
    parts = build(papers(SIZES | {"hep-th": 105}))[2]
    assert [part["rows"]["train"] for part in parts["s4"]] == [53, 10, 10]


def test_s2_is_all_of_both_fields(small):
    sources, datasets, _ = small
    assert sizes_of(datasets["s2"]) == (140, 30, 30)
    ids = [i for split in SPLITS for i in datasets["s2"][split]["id"]]
    assert sorted(ids) == sorted(
        [f"hep-ph:{i}" for i in range(130)] + [f"gr-qc:{i}" for i in range(70)]
    )
    assert datasets["s2"]["train"]["id"] == sources["hep-ph+gr-qc"]["train"]["id"]


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("s1", (73_768, 15_808, 15_808)),
        ("s2", (137_136, 29_386, 29_387)),
        ("s3", (210_904, 45_194, 45_195)),
        ("s4", (73_768, 15_808, 15_808)),
        ("s5", (73_768, 15_808, 15_808)),
        ("s6", (73_768, 15_808, 15_808)),
        ("s9", (73_768, 15_808, 15_808)),
        # As large as s3.
        ("s10", (210_904, 45_194, 45_195)),
    ],
)
def test_the_papers_sizes_come_out(large, name, rows):
    assert sizes_of(large[1][name]) == rows
    assert RECIPES[name].paper_rows in (rows, None), "and are what the recipe says of the paper"


def test_the_papers_parts_come_out(large):
    train = {
        name: {part["only"] or part["source"]: part["rows"]["train"] for part in parts}
        for name, parts in large[2].items()
    }
    assert train["s4"] == {"hep-th": 51_638, "gr-qc": 11_065, "hep-ph": 11_065}
    assert train["s5"] == {"hep-th": 62_703, "gr-qc": 11_065}
    assert train["s6"] == {"hep-th": 62_703, "hep-ph": 11_065}
    # int(44,450 * 105,384 / 195,909) = int(23,910.7)
    assert train["s9"] == {"gr-qc": 23_910, "hep-ph": 73_768 - 23_910}
    assert train["s10"] == {"hep-th": 73_768, "q-bio": 20_020, "cs": 137_136 - 20_020}


# --- rows -------------------------------------------------------------------------------------


def numpy_split(ids: list[str]) -> dict[str, list[str]]:
    """The published split without the library: two permutations with seed 42."""

    def cut(these: list[str], test: int) -> tuple[list[str], list[str]]:
        order = np.random.default_rng(42).permutation(len(these))
        return [these[i] for i in order[test:]], [these[i] for i in order[:test]]

    train, rest = cut(ids, len(ids) - int(0.7 * len(ids)))
    validation, test = cut(rest, -(-len(rest) // 2))
    return {"train": train, "validation": validation, "test": test}


def test_s1_is_the_published_split_row_by_row(small):
    expected = numpy_split([f"hep-th:{i}" for i in range(100)])
    for split in SPLITS:
        assert list(small[1]["s1"][split]["id"]) == expected[split]


def test_a_source_of_two_fields_is_in_the_snapshots_order(small):
    """Selected at once from the file, not one field after the other."""
    rows = papers(SIZES)
    both = sorted(rows["hep-ph"] + rows["gr-qc"], key=lambda row: row["line"])
    fields = [row["primary"] for row in both]
    assert sum(a != b for a, b in pairwise(fields)) > 50, "the fields take turns in the file"
    expected = numpy_split([row["id"] for row in both])
    for split in SPLITS:
        assert list(small[0]["hep-ph+gr-qc"][split]["id"]) == expected[split]


def test_order_of_two_sampled_fields_is_the_snapshots_too():
    data = with_sample(hep_ph=60, gr_qc=40)
    rows = papers(SIZES)
    sampled = corpora.sample(rows, data)
    assert not sampled["hep-ph"].index.is_monotonic_increasing, "a sample comes in no order"
    both = pd.concat([sampled["hep-ph"], sampled["gr-qc"]]).sort_index()
    expected = numpy_split(both["id"].tolist())
    sources = corpora.split_sources(sampled, data)
    assert list(sources["hep-ph+gr-qc"]["train"]["id"]) == expected["train"]


def test_a_mixture_is_concatenated_then_shuffled(small):
    sources, datasets, _ = small
    whole = [*sources["hep-th"]["train"]["id"], *sources["hep-ph+gr-qc"]["train"]["id"]]
    order = np.random.default_rng(42).permutation(len(whole))
    assert list(datasets["s3"]["train"]["id"]) == [whole[i] for i in order]


def test_percentage_mixtures_take_the_first_rows(small):
    sources, datasets, _ = small
    hep_th = list(sources["hep-th"]["train"]["id"])
    gr_qc = [i for i in sources["hep-ph+gr-qc"]["train"]["id"] if i.startswith("gr-qc")]
    s5 = datasets["s5"]["train"]["id"]
    assert {i for i in s5 if i.startswith("hep-th")} == set(hep_th[:60])
    assert {i for i in s5 if i.startswith("gr-qc")} == set(gr_qc[:10])
    # The same ten as in s4, which takes as many from the same split.
    assert {i for i in datasets["s4"]["train"]["id"] if i.startswith("gr-qc")} == set(gr_qc[:10])


def test_no_row_twice_and_none_in_two_splits(small):
    for name, splits in small[1].items():
        ids = [i for split in SPLITS for i in splits[split]["id"]]
        assert len(ids) == len(set(ids)), name


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stand-in")
    path = folder / "snapshot.json"
    corpus.write(path, folder / "likelihood.parquet", records=1500, seed=3)
    rows, _ = snapshot.select(path, excluded_ids=[], bad_lines_allowed=0.0)
    data = DATA.model_copy(
        update={"sample": {"hep-th": 52, "hep-ph": 65, "gr-qc": 31, "q-bio": 14, "cs": 99}}
    )
    return rows, data, build(rows, data)


def test_no_training_set_of_the_stand_in_has_a_held_out_hep_th_abstract(stand_in):
    _, _, (sources, datasets, _) = stand_in
    held_out = {*sources["hep-th"]["test"]["id"], *sources["hep-th"]["validation"]["id"]}
    assert len(held_out) == 16
    for name, splits in datasets.items():
        assert not held_out & set(splits["train"]["id"]), name
        found = corpora.overlap(splits["train"], sources["hep-th"]["test"])
        assert found == {"ids": 0, "texts": 0}, name


def test_hep_th_of_every_mixture_keeps_its_split(stand_in):
    """Rows of s1's test set may be in a mixture's test set, and nowhere else in it."""
    _, _, (sources, datasets, _) = stand_in
    for name, splits in datasets.items():
        for split in SPLITS:
            hep_th = [r["id"] for r in splits[split] if r["primary"] == "hep-th"]
            assert set(hep_th) <= set(sources["hep-th"][split]["id"]), name


def test_the_same_abstracts_give_the_same_datasets(stand_in):
    rows, data, (_, datasets, _) = stand_in
    _, again, _ = build(rows, data)
    for name in DATASETS:
        for split in SPLITS:
            assert again[name][split].to_dict() == datasets[name][split].to_dict()


@pytest.mark.parametrize("seed", ["sample_seed", "split_seed", "shuffle_seed"])
def test_every_seed_matters(stand_in, seed):
    rows, data, (_, datasets, _) = stand_in
    _, others, _ = build(rows, data.model_copy(update={seed: 7}))
    assert list(others["s3"]["train"]["id"]) != list(datasets["s3"]["train"]["id"])
    same_abstracts = set(others["s3"]["train"]["id"]) == set(datasets["s3"]["train"]["id"])
    assert same_abstracts is (seed == "shuffle_seed")


def test_columns_are_those_of_the_contract(stand_in):
    for splits in stand_in[2][1].values():
        for split in SPLITS:
            assert splits[split].column_names == [
                "id", "title", "categories", "primary", "year", "abstract",
            ]  # fmt: skip


# --- samples and too few ----------------------------------------------------------------------


def test_sample_takes_the_number_asked_for_without_repeating():
    sampled = corpora.sample(papers(SIZES), with_sample(cs=120))
    assert {field: len(frame) for field, frame in sampled.items()} == SIZES | {"cs": 120}
    assert sampled["cs"]["id"].is_unique
    assert sampled["hep-th"]["id"].tolist() == [f"hep-th:{i}" for i in range(100)], "all: as it is"


def test_a_sample_of_all_is_allowed():
    assert len(corpora.sample(papers(SIZES), with_sample(cs=300))["cs"]) == 300


def refusal(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("field", "using"),
    [
        ("hep-th", "s1, s3, s4, s5, s6, s7, s8, s10"),
        ("hep-ph", "s2, s3, s4, s6, s8, s9"),
        ("gr-qc", "s2, s3, s4, s5, s7, s9"),
        ("q-bio", "s10"),
        ("cs", "s10"),
    ],
)
def test_too_few_abstracts_says_for_what_how_many_and_how_many_there_are(field, using):
    there = SIZES[field]
    data = with_sample(**{field.replace("-", "_"): there + 1})
    message = refusal(corpora.sample, papers(SIZES), data)
    expected = f"Too few {field} abstracts for {using}: {there + 1} are needed, there are {there}"
    assert message.startswith(expected)


@pytest.mark.parametrize("there", [0, 1, 2, 3])
def test_a_field_must_fill_three_splits(there):
    message = refusal(corpora.sample, papers(SIZES | {"q-bio": there}), DATA)
    assert f"Too few q-bio abstracts for s10: 4 are needed, there are {there}" in message


def test_four_abstracts_fill_three_splits():
    sources = corpora.split_sources(corpora.sample(papers(SIZES | {"q-bio": 4}), DATA), DATA)
    assert sizes_of(sources["q-bio"]) == (2, 1, 1)


def test_too_few_to_fill_a_mixture_up():
    # s10 needs 210 - 70 - 14 = 126 of cs; 100 abstracts give 70 to the training part.
    message = refusal(build, papers(SIZES | {"cs": 100}))
    expected = "Too few cs abstracts for the train split of s10: 126 are needed, there are 70."
    assert message == expected


def test_too_few_of_one_field_in_a_source_of_two():
    # 10 of 205 are gr-qc: ten are needed for s4's 70, and some of them are in other splits.
    message = refusal(build, papers(SIZES | {"hep-ph": 195, "gr-qc": 10}))
    assert message.startswith("Too few gr-qc abstracts for the train split of s4: 10 are needed")


def test_a_part_taken_whole_may_be_too_large():
    # 280 of q-bio and 70 of hep-th leave less than nothing of 210 to fill.
    message = refusal(build, papers(SIZES | {"q-bio": 400}))
    assert message.startswith("The train split of s10 is to have 210 abstracts, but ")
    assert "350" in message


# --- overlap ----------------------------------------------------------------------------------


def test_overlap_counts_planted_duplicates():
    test = Dataset.from_dict(
        {
            "id": ["t1", "t2", "t3", "t4"],
            "abstract": ["We study strings.", "Branes, in ADS!", "Something else.", "A new one."],
        }
    )
    training = Dataset.from_dict(
        {
            "id": ["a", "t4", "t4", "b", "c"],
            "abstract": [
                "we  STUDY\nstrings",  # t1 under another id, in another spelling
                "A revised one.",  # t4's id with another text, twice
                "A revised one, again.",
                "Branes in AdS",  # t2
                "We study strings and branes.",  # near, but no copy
            ],
        }
    )
    assert corpora.overlap(training, test) == {"ids": 1, "texts": 2}
    assert corpora.overlap(test, test) == {"ids": 4, "texts": 4}


def test_overlap_is_reported_in_the_description():
    rows = papers(SIZES)
    # The same abstract cross-posted under every hep-ph id: a copy of all of hep-th's first 100.
    for mine, theirs in zip(rows["hep-ph"], rows["hep-th"], strict=False):
        mine["abstract"] = theirs["abstract"].upper()
    sources, datasets, parts = build(rows)
    test = sources["hep-th"]["test"]
    about = corpora.described("s8", datasets["s8"], parts["s8"], test)
    copied = {int(i.split(":")[1]) for i in sources["hep-ph"]["train"]["id"]}
    expected = len(copied & {int(i.split(":")[1]) for i in test["id"]})
    assert 0 < expected < 15
    assert about["overlap_with_s1_test"] == {"ids": 0, "texts": expected}
    assert about["rows"] == {"train": 161, "validation": 34, "test": 35}
    assert about["certainty"] == "inferred"


def test_only_the_order_of_s4_to_s10_is_inferred():
    assert [n for n in DATASETS if RECIPES[n].certainty == "released"] == ["s1", "s2", "s3"]
    assert {RECIPES[n].certainty for n in DATASETS} == {"released", "inferred"}
