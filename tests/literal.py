"""The published curation taken literally: whole frames, whole datasets, one rule after another.

Slow and hungry, and written from the released notebooks' rules alone: it shares nothing with the
package but the libraries that split and shuffle. The package must give the same rows.
"""

import json
import re
from pathlib import Path

import pandas as pd
from datasets import Dataset, DatasetDict, concatenate_datasets

SEED = 42
SPLITS = ("train", "test", "validation")


def frame_of(snapshot: Path, excluded_ids: list[str]) -> pd.DataFrame:
    with snapshot.open(encoding="utf-8") as file:
        frame = pd.DataFrame([json.loads(line) for line in file])
    return frame[~frame["id"].isin(excluded_ids)]


def curated(frame: pd.DataFrame, *wanted: str, sample: int | None = None) -> DatasetDict:
    """One of the datasets made from the metadata: `gr-qc`, `hep-ph` and `gr-qc`, `cs.`, ..."""
    first = frame["categories"].str.split().str[0]
    frame = frame[first.map(lambda name: any(part in name for part in wanted))]
    if wanted == ("cs.",):  # which is in `physics.` too
        frame = frame[frame["categories"].str.split().str[0].map(lambda name: name[:3] == "cs.")]
    in_comments = frame["comments"].str.contains("Withdrawn", case=False).fillna(False).astype(bool)
    in_abstract = frame["abstract"].str.contains("Withdrawn")
    in_abstract |= frame["abstract"].str.contains("withdrawn")
    frame = frame[~(in_comments | in_abstract)].reset_index(drop=True)
    frame["abstract"] = frame["abstract"].map(lambda text: re.sub(r"\n\s*", " ", text).strip())
    if sample:
        frame = frame.sample(n=sample, replace=False, random_state=SEED)
    frame = frame[["id", "categories", "abstract"]]
    whole = Dataset.from_pandas(frame, preserve_index=False)
    outer = whole.train_test_split(train_size=0.7, seed=SEED, shuffle=True)
    inner = outer["test"].train_test_split(test_size=0.5, seed=SEED, shuffle=True)
    return DatasetDict(
        {"train": outer["train"], "test": inner["test"], "validation": inner["train"]}
    )


def joined(*parts: DatasetDict) -> DatasetDict:
    whole = DatasetDict(
        {split: concatenate_datasets([part[split] for part in parts]) for split in SPLITS}
    )
    return whole.shuffle(seed=SEED).flatten_indices()


def first(rows: DatasetDict, number: dict[str, int]) -> DatasetDict:
    return DatasetDict({split: rows[split].select(range(number[split])) for split in SPLITS})


def sizes(rows: DatasetDict) -> dict[str, int]:
    return {split: rows[split].num_rows for split in SPLITS}


def percentages(hep_th: DatasetDict, pair: DatasetDict) -> tuple[DatasetDict, ...]:
    """The 70/15/15, 85/15 gr-qc and 85/15 hep-ph sets."""
    size = sizes(hep_th)
    small = {split: int(0.15 * size[split]) for split in SPLITS}
    most = first(hep_th, {split: size[split] - small[split] for split in SPLITS})
    less = first(hep_th, {split: size[split] - 2 * small[split] for split in SPLITS})
    hep_ph = first(pair.filter(lambda row: row["categories"][:6] == "hep-ph"), small)
    gr_qc = first(pair.filter(lambda row: row["categories"][:5] == "gr-qc"), small)
    return joined(less, gr_qc, hep_ph), joined(most, gr_qc), joined(most, hep_ph)


def small_pair(hep_th: DatasetDict, gr_qc: DatasetDict, hep_ph: DatasetDict) -> DatasetDict:
    """gr-qc and hep-ph in their own proportions, as large as hep-th."""
    total = {name: sum(sizes(rows).values()) for name, rows in
             (("hep-th", hep_th), ("gr-qc", gr_qc), ("hep-ph", hep_ph))}  # fmt: skip
    share = total["hep-th"] / (total["gr-qc"] + total["hep-ph"])
    some = {split: int(share * rows) for split, rows in sizes(gr_qc).items()}
    rest = {split: rows - some[split] for split, rows in sizes(hep_th).items()}
    return joined(first(gr_qc.shuffle(seed=SEED), some), first(hep_ph.shuffle(seed=SEED), rest))


def other_fields(hep_th, gr_qc, hep_ph, q_bio, cs) -> DatasetDict:
    """hep-th with q-bio and cs in the place of gr-qc and hep-ph."""
    needed = {s: sizes(gr_qc)[s] + sizes(hep_ph)[s] - sizes(q_bio)[s] for s in SPLITS}
    return joined(hep_th, q_bio, first(cs.shuffle(seed=SEED), needed))


def datasets(snapshot: Path, excluded_ids: list[str], cs_sample: int) -> dict[str, DatasetDict]:
    """The ten datasets s1 ... s10."""
    frame = frame_of(snapshot, excluded_ids)
    hep_th, hep_ph, gr_qc = (curated(frame, name) for name in ("hep-th", "hep-ph", "gr-qc"))
    pair = curated(frame, "hep-ph", "gr-qc")
    q_bio, cs = curated(frame, "q-bio"), curated(frame, "cs.", sample=cs_sample)
    s4, s5, s6 = percentages(hep_th, pair)
    return {
        "s1": hep_th,
        "s2": pair,
        "s3": joined(hep_th, pair),
        "s4": s4,
        "s5": s5,
        "s6": s6,
        "s7": joined(hep_th, gr_qc),
        "s8": joined(hep_th, hep_ph),
        "s9": small_pair(hep_th, gr_qc, hep_ph),
        "s10": other_fields(hep_th, gr_qc, hep_ph, q_bio, cs),
    }
