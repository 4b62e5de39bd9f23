"""The ten datasets: their sizes and rows by hand, for small sources and for the paper's."""

import json
from itertools import pairwise
from pathlib import Path
from random import Random

import literal
import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

from feyntune.data import corpora, selection
from feyntune.data.stand_in import corpus
from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.experiment.recipes import DATASETS
from feyntune.paths import SPLITS

SIZES = {"hep-th": 100, "hep-ph": 130, "gr-qc": 70, "q-bio": 20, "cs": 300}
# 105,384 and hep-ph + gr-qc = 195,909 are the paper's; how that sum divides is not known.
PAPER_SIZES = {
    "hep-th": 105_384,
    "hep-ph": 132_409,
    "gr-qc": 63_500,
    "q-bio": 28_600,
    "cs": 200_000,
}
FIELDS = load.load("demo").fields
# The released share.
SHARE = {"data.train_share": 0.7}
DEMO = load.with_settings("demo", SHARE | {"data.sample": dict.fromkeys(FIELDS)})
RECIPES = DEMO.recipes


def papers(sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Row numbers of every field; the fields take turns in the snapshot."""
    order = sorted((i / size, field) for field, size in sizes.items() for i in range(size))
    fields = np.array([field for _, field in order])
    return {field: np.flatnonzero(fields == field) for field in FIELDS}


def build(rows: dict[str, np.ndarray], settings=DEMO):
    """Sources, the ten datasets, and what each part of them gave."""
    sources = corpora.split_sources(corpora.sample(rows, settings), settings)
    mixed = {name: corpora.mix(name, sources, settings) for name in DATASETS}
    return (
        sources,
        {n: splits for n, (splits, _) in mixed.items()},
        {n: p for n, (_, p) in mixed.items()},
    )


def rows_of(split: Dataset) -> list[int]:
    return corpora.rows_of(split).tolist()


def splits_of(size: int) -> tuple[int, int, int]:
    """What a source of so many abstracts gives to each split."""
    train = int(0.7 * size)
    test = -(-(size - train) // 2)
    return train, size - train - test, test


def sizes_of(splits: dict[str, Dataset]) -> tuple[int, ...]:
    return tuple(len(splits[split]) for split in SPLITS)


def with_sample(**wanted: int | None):
    sample = dict.fromkeys(FIELDS) | {name.replace("_", "-"): n for name, n in wanted.items()}
    return load.with_settings("demo", SHARE | {"data.sample": sample})


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
    # As large as hep-th, hep-ph and gr-qc by themselves: 210/44/46.
    "s10": {"hep-th": (70, 15, 15), "q-bio": (14, 3, 3), "cs": (126, 26, 28)},
}


@pytest.mark.parametrize("name", BY_HAND)
def test_composition_by_hand(small, name):
    _, datasets, parts = small
    expected = BY_HAND[name]
    for i, split in enumerate(SPLITS):
        found = pd.Series(datasets[name][split]["field"][:]).value_counts()
        for source, rows in expected.items():
            assert sum(found.get(field, 0) for field in source.split("+")) == rows[i]
        assert len(datasets[name][split]) == sum(rows[i] for rows in expected.values())
    said = {part["only"] or part["source"]: tuple(part["rows"].values()) for part in parts[name]}
    assert said == expected, "what curation.json says of the parts"


def test_a_share_rounds_down():
    # 105 give 73 to the training part, and 0.15 * 73 = 10.95.
    parts = build(papers(SIZES | {"hep-th": 105}))[2]
    assert [part["rows"]["train"] for part in parts["s4"]] == [53, 10, 10]


def test_the_share_of_the_scaled_part_is_rounded_as_released():
    """44 * (60 / 176) is just below 15, though 44 * 60 / 176 is 15."""
    assert 44 * 60 / 176 == 15
    parts = build(papers(SIZES | {"hep-th": 60, "gr-qc": 63, "hep-ph": 113}))[2]
    assert parts["s9"][0]["rows"]["train"] == 14


def test_s2_is_all_of_both_fields(small):
    sources, datasets, _ = small
    assert sizes_of(datasets["s2"]) == (140, 30, 30)
    there = papers(SIZES)
    rows = [row for split in SPLITS for row in rows_of(datasets["s2"][split])]
    assert sorted(rows) == sorted([*there["hep-ph"], *there["gr-qc"]])
    assert rows_of(datasets["s2"]["train"]) == rows_of(sources["hep-ph+gr-qc"]["train"])


def test_the_last_mixture_is_as_large_as_the_single_fields_together():
    """Not as the pair: 101 and 101 give 70 each to their training parts, 202 give 141."""
    datasets = build(papers(SIZES | {"hep-ph": 101, "gr-qc": 101}))[1]
    assert len(datasets["s2"]["train"]) == 141
    assert len(datasets["s10"]["train"]) == 70 + 70 + 70


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
        # hep-th and both others counted by themselves: 92,686 + 44,450 happen to be s2's 137,136.
        ("s10", (210_904, 45_194, 45_195)),
    ],
)
def test_the_papers_sizes_come_out(large, name, rows):
    assert sizes_of(large[1][name]) == rows
    assert RECIPES[name].paper_rows in ([*rows], None), "and are what the recipe says of the paper"


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


def numpy_split(rows: list) -> dict[str, list]:
    """The published split without the library: two permutations with seed 42."""

    def cut(these: list, test: int) -> tuple[list, list]:
        order = np.random.default_rng(42).permutation(len(these))
        return [these[i] for i in order[test:]], [these[i] for i in order[:test]]

    train, rest = cut(rows, len(rows) - int(0.7 * len(rows)))
    validation, test = cut(rest, -(-len(rest) // 2))
    return {"train": train, "validation": validation, "test": test}


def test_s1_is_the_published_split_row_by_row(small):
    expected = numpy_split(papers(SIZES)["hep-th"].tolist())
    for split in SPLITS:
        assert rows_of(small[1]["s1"][split]) == expected[split]


def test_a_source_of_two_fields_is_in_the_snapshots_order(small):
    """Selected at once from the file, not one field after the other."""
    rows = papers(SIZES)
    both = sorted([*rows["hep-ph"], *rows["gr-qc"]])
    turns = np.isin(both, rows["gr-qc"])
    assert sum(a != b for a, b in pairwise(turns)) > 50, "the fields take turns in the file"
    expected = numpy_split(both)
    for split in SPLITS:
        assert rows_of(small[0]["hep-ph+gr-qc"][split]) == expected[split]


def test_order_of_two_sampled_fields_is_the_snapshots_too():
    data = with_sample(hep_ph=60, gr_qc=40)
    sampled = corpora.sample(papers(SIZES), data)
    assert (np.diff(sampled["hep-ph"]) < 0).any(), "a sample comes in no order"
    expected = numpy_split(sorted([*sampled["hep-ph"], *sampled["gr-qc"]]))
    sources = corpora.split_sources(sampled, data)
    assert rows_of(sources["hep-ph+gr-qc"]["train"]) == expected["train"]


def test_a_mixture_is_concatenated_then_shuffled(small):
    sources, datasets, _ = small
    whole = rows_of(sources["hep-th"]["train"]) + rows_of(sources["hep-ph+gr-qc"]["train"])
    order = np.random.default_rng(42).permutation(len(whole))
    assert rows_of(datasets["s3"]["train"]) == [whole[i] for i in order]


def test_percentage_mixtures_take_the_first_rows(small):
    sources, datasets, _ = small
    there = papers(SIZES)
    hep_th = rows_of(sources["hep-th"]["train"])
    gr_qc = [i for i in rows_of(sources["hep-ph+gr-qc"]["train"]) if i in there["gr-qc"]]
    s5 = set(rows_of(datasets["s5"]["train"]))
    assert s5 == {*hep_th[:60], *gr_qc[:10]}
    # The same ten as in s4, which takes as many from the same split.
    assert set(rows_of(datasets["s4"]["train"])) & {*there["gr-qc"]} == set(gr_qc[:10])


@pytest.mark.parametrize(("name", "field", "rows"), [("s9", "gr-qc", 24), ("s10", "cs", 126)])
def test_other_mixtures_shuffle_what_they_take_a_share_of(small, name, field, rows):
    sources, datasets, _ = small
    whole = rows_of(sources[field]["train"])
    order = np.random.default_rng(42).permutation(len(whole))
    expected = {whole[i] for i in order[:rows]}
    assert expected != set(whole[:rows])
    assert set(rows_of(datasets[name]["train"])) & {*papers(SIZES)[field]} == expected


def test_no_row_twice_and_none_in_two_splits(small):
    for name, splits in small[1].items():
        rows = [i for split in SPLITS for i in rows_of(splits[split])]
        assert len(rows) == len(set(rows)), name


def test_every_row_is_of_its_field(small):
    there = papers(SIZES)
    for splits in small[1].values():
        for split in splits.values():
            for row, field in zip(rows_of(split), split["field"], strict=True):
                assert row in there[field]


def test_hep_th_of_every_mixture_keeps_its_split(small):
    """Rows of s1's test set may be in a mixture's test set, and nowhere else in it."""
    sources, datasets, _ = small
    hep_th = {*papers(SIZES)["hep-th"]}
    for name, splits in datasets.items():
        for split in SPLITS:
            found = hep_th & {*rows_of(splits[split])}
            assert found <= {*rows_of(sources["hep-th"][split])}, name


@pytest.mark.parametrize("seed", ["sample_seed", "split_seed", "shuffle_seed"])
def test_every_seed_matters(seed):
    rows = papers(SIZES)
    data = with_sample(**{name.replace("-", "_"): size - 5 for name, size in SIZES.items()})
    mine = rows_of(build(rows, data)[1]["s3"]["train"])
    assert mine == rows_of(build(rows, data)[1]["s3"]["train"])
    others = rows_of(
        build(
            rows,
            load.with_settings(
                "demo", SHARE | {"data.sample": data.data.sample, f"data.{seed}": 7}
            ),
        )[1]["s3"]["train"]
    )
    assert others != mine
    assert (set(others) == set(mine)) is (seed == "shuffle_seed")


# --- against a literal reading of the published rules -----------------------------------------

RECORDS, CS_SAMPLE = 60_000, 10_000


@pytest.fixture(scope="module")
def snapshot_file(tmp_path_factory) -> Path:
    """Stand-in records over and over, under new ids and in another order, with every trap."""
    records = [record for record, _ in corpus.generate(4000, seed=3)]
    # The rule for abstracts knows two spellings only.
    for place, word in enumerate(("withdrawn", "Withdrawn", "WITHDRAWN")):
        for record in records[place::60]:
            record["abstract"] = record["abstract"].rstrip() + f"\n  {word}\n"
    lines = [json.dumps(record) for record in records]
    path = tmp_path_factory.mktemp("literal") / "snapshot.json"
    order = Random(9).choices(range(len(lines)), k=RECORDS)
    with path.open("w", encoding="utf-8") as file:
        for number, i in enumerate(order):
            old = json.loads(lines[i][: lines[i].index(",")] + "}")["id"]
            file.write(lines[i].replace(f'"{old}"', f'"{number:09}"', 1) + "\n")
    return path


@pytest.fixture(scope="module")
def both_readings(snapshot_file):
    with snapshot_file.open(encoding="utf-8") as file:
        hep_th = [line for line in file if '"categories": "hep-th' in line]
    excluded = [json.loads(line)["id"] for line in hep_th[::1000]]
    data = with_sample(cs=CS_SAMPLE)
    abstracts, counts = selection.select(
        snapshot_file, snapshot_file.parent / "scratch", fields=FIELDS,
        excluded_ids=excluded, bad_lines_allowed=0.0,
    )  # fmt: skip
    datasets = build(selection.rows_of_fields(abstracts, FIELDS), data)[1]
    expected = literal.datasets(snapshot_file, excluded, CS_SAMPLE)
    return abstracts, counts, datasets, expected


def test_the_traps_are_set(both_readings):
    """Where a rule bent a little would give other rows, it must be seen to."""
    _, counts, _, _ = both_readings
    fields = counts["fields"]
    assert sum(field["withdrawn"] for field in fields.values()) > 50
    assert fields["cs"]["kept"] > CS_SAMPLE
    hep_th, hep_ph, gr_qc = (fields[name]["kept"] for name in ("hep-th", "hep-ph", "gr-qc"))
    thirds = zip(*map(splits_of, (hep_th, hep_ph, gr_qc, hep_ph + gr_qc)), strict=True)
    for th, ph, gr, both in thirds:
        share = gr * hep_th / (hep_ph + gr_qc)
        if ph + gr != both and round(share) != int(share) and round(0.15 * th) != int(0.15 * th):
            break
    else:
        pytest.fail("No split in which every rule rounds otherwise than it might.")


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_is_the_published_one_row_by_row(both_readings, name, split):
    abstracts, _, datasets, expected = both_readings
    found = abstracts.gather(corpora.rows_of(datasets[name][split]), ["id", "abstract"])
    assert found["id"].to_pylist() == expected[name][split]["id"][:]
    assert found["abstract"].to_pylist() == expected[name][split]["abstract"][:]


# --- samples and too few ----------------------------------------------------------------------


def test_sample_takes_the_number_asked_for_without_repeating():
    sampled = corpora.sample(papers(SIZES), with_sample(cs=120))
    assert {field: len(frame) for field, frame in sampled.items()} == SIZES | {"cs": 120}
    assert len(set(sampled["cs"])) == 120
    assert set(sampled["cs"]) < set(papers(SIZES)["cs"])
    assert sampled["hep-th"].tolist() == papers(SIZES)["hep-th"].tolist(), "all: as it is"


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


def test_all_fields_that_have_too_few_are_said_at_once():
    message = refusal(corpora.sample, papers(SIZES | {"q-bio": 1, "cs": 2}), DEMO)
    assert [f"Too few {field} abstracts" in message for field in SIZES].count(True) == 2


@pytest.mark.parametrize("there", [0, 1, 2, 3])
def test_a_field_must_fill_three_splits(there):
    message = refusal(corpora.sample, papers(SIZES | {"q-bio": there}), DEMO)
    assert f"Too few q-bio abstracts for s10: 4 are needed, there are {there}" in message


def test_four_abstracts_fill_three_splits():
    sources = corpora.split_sources(corpora.sample(papers(SIZES | {"q-bio": 4}), DEMO), DEMO)
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


# --- descriptions -----------------------------------------------------------------------------


def test_description_of_a_dataset(small):
    _, datasets, parts = small
    assert corpora.described(RECIPES["s8"], datasets["s8"], parts["s8"]) == {
        "title": "hep-th + hep-ph",
        "hub": "hep-th_hep-ph_primary",
        "certainty": "inferred",
        "paper_rows": None,
        "rows_certainty": "inferred",
        "rows": {"train": 161, "validation": 34, "test": 35},
        "parts": parts["s8"],
    }


def test_only_the_order_of_s4_to_s10_is_inferred():
    assert [n for n in DATASETS if RECIPES[n].certainty == "released"] == ["s1", "s2", "s3"]
    assert {RECIPES[n].certainty for n in DATASETS} == {"released", "inferred"}
