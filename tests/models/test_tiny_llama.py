"""What the stand-in base model has read, and that fine-tuning teaches it something."""

import json
import re
import shutil

import pandas as pd
import pytest
import tiny
import torch

from feyntune.data import snapshot
from feyntune.errors import UserError
from feyntune.evaluation import perplexity
from feyntune.experiment.recipes import DATASETS
from feyntune.models import adapters, tiny_llama
from feyntune.models import base as modeling
from feyntune.paths import SPLITS

HEP_TH = [f"hep {i}" for i in range(50)]
GENERAL = [f"general {i}" for i in range(500)]


@pytest.fixture
def settings(stand_in):
    return stand_in.experiment.base.stand_in


def squeezed(text: str) -> str:
    return re.sub(r"\W+", "", text).lower()


def dataset_rows(stand_in) -> pd.DataFrame:
    paths = stand_in.experiment.paths
    return pd.concat(
        pd.read_parquet(paths.split(dataset, split)) for dataset in DATASETS for split in SPLITS
    )


@pytest.fixture
def own(stand_in, tmp_path, monkeypatch):
    """A copy of the stand-in's files that a test may change."""
    folder = shutil.copytree(stand_in.output, tmp_path / "copy")
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(folder))
    return stand_in.experiment


# --- the mixture ------------------------------------------------------------------------------


@pytest.mark.parametrize(("abstracts", "share", "few"), [(300, 0.1, 30), (400, 0.002, 1)])
def test_mixture_has_its_share_of_hep_th(settings, abstracts, share, few):
    settings = settings.model_copy(update={"abstracts": abstracts, "hep_th_share": share})
    texts = tiny_llama.mixture(HEP_TH, GENERAL, settings)
    assert len(texts) == len(set(texts)) == abstracts
    assert len(set(texts) & set(HEP_TH)) == few
    assert len(set(texts) & set(GENERAL)) == abstracts - few
    assert texts == tiny_llama.mixture(HEP_TH, GENERAL, settings)
    assert texts != sorted(texts, key=(HEP_TH + GENERAL).index)  # shuffled
    other = settings.model_copy(update={"seed": settings.seed + 1})
    assert set(texts) != set(tiny_llama.mixture(HEP_TH, GENERAL, other))


def test_mixture_takes_what_there_is(settings):
    settings = settings.model_copy(update={"abstracts": 10_000, "hep_th_share": 0.1})
    assert sorted(tiny_llama.mixture(HEP_TH, GENERAL, settings)) == sorted(HEP_TH + GENERAL)


def test_too_few_abstracts_are_refused(settings):
    assert len(tiny_llama.mixture([], GENERAL[:200], settings)) == 200
    with pytest.raises(UserError, match=r"at least 200 .* the snapshot has 199"):
        tiny_llama.mixture(HEP_TH, GENERAL[:199], settings)


def unused(experiment, abstracts=10_000, **base):
    """What may be read: by default all of it, so that nothing is missing by chance."""
    stand_in = experiment.base.stand_in.model_copy(update={"abstracts": abstracts})
    base = experiment.base.model_copy(update={"stand_in": stand_in, **base})
    return tiny_llama._unused_abstracts(experiment.model_copy(update={"base": base}))


def test_of_a_large_snapshot_a_sample_is_read(stand_in):
    """Not its beginning, and never more than asked for, so that millions fit in memory."""
    everything, some = unused(stand_in.experiment)[1], unused(stand_in.experiment, 200)[1]
    assert len(some) == 200 and set(some) <= set(everything)
    halves = len(set(some) & set(everything[: len(everything) // 2]))
    assert 70 < halves < 130
    assert some == unused(stand_in.experiment, 200)[1]


def test_no_text_of_any_dataset_is_read(stand_in):
    hep_th, general = unused(stand_in.experiment)
    read = {squeezed(text) for text in [*hep_th, *general]}
    used = {squeezed(text) for text in dataset_rows(stand_in)["abstract"]}
    assert len(hep_th) > 3 and len(general) > 1000 and len(used) > 200
    assert not read & used
    assert not any("withdrawn" in text for text in [*hep_th, *general])


def test_what_is_not_sampled_is_read_whole(stand_in):
    """Every other abstract of the snapshot is there, as curation would clean it."""
    experiment = stand_in.experiment
    sampled = set(pd.read_parquet(experiment.paths.sampled)["id"])
    assert sampled >= set(dataset_rows(stand_in)["id"])
    used = sampled | set(experiment.data.excluded_ids)
    left = {"hep-th": [], "general": []}
    for line in experiment.snapshot.read_bytes().splitlines():
        record = json.loads(line)
        notice = f"{record['comments'] or ''} {record['abstract']}".lower()
        known = int(record["versions"][0]["created"].split()[3]) <= 2023
        if known and record["id"] not in used and "withdrawn" not in notice:
            field = "hep-th" if record["categories"].split()[0] == "hep-th" else "general"
            left[field].append(" ".join(record["abstract"].split()))
    found = unused(experiment)
    assert [[" ".join(text.split()) for text in texts] for texts in found] == list(left.values())


def test_its_knowledge_ends_with_the_year_of_the_settings(stand_in):
    """First versions count: the snapshot goes on to 2024, what is read does not."""
    lines = [json.loads(x) for x in stand_in.experiment.snapshot.read_bytes().splitlines()]
    years = {
        snapshot.clean(record["abstract"]): int(record["versions"][0]["created"].split()[3])
        for record in lines
    }
    assert stand_in.experiment.base.knowledge_until == 2023
    assert sum(year == 2024 for year in years.values()) > 50
    for until in (2023, 2010):
        hep_th, general = unused(stand_in.experiment, knowledge_until=until)
        assert max(years[text] for text in [*hep_th, *general]) == until
    everything = unused(stand_in.experiment, knowledge_until=2024)
    assert sum(years[text] == 2024 for text in everything[1]) > 50


def test_a_sampled_paper_is_kept_out(own):
    """By its id, whether or not a dataset has it."""
    planted = unused(own)[1][0]
    lines = [json.loads(line) for line in own.snapshot.read_bytes().splitlines()]
    record = next(r for r in lines if snapshot.clean(r["abstract"]) == planted)
    sampled = pd.read_parquet(own.paths.sampled)
    assert record["id"] not in set(sampled["id"])
    sampled.loc[0, "id"] = record["id"]
    sampled.to_parquet(own.paths.sampled)
    assert planted not in unused(own)[1]


def test_a_copy_under_another_id_is_kept_out(own):
    """A paper submitted twice: in the test set once, in the rest of the snapshot once more."""
    text = pd.read_parquet(own.paths.split("s1", "test"))["abstract"][0]
    lines = own.snapshot.read_bytes().splitlines()
    record = json.loads(lines[-1])
    copy = record | {"id": "9999.99999", "abstract": f"  {text.upper()}\n", "comments": None}
    own.snapshot.write_bytes(b"\n".join([*lines, json.dumps(copy).encode()]) + b"\n")
    hep_th, general = unused(own)
    assert squeezed(text) not in {squeezed(t) for t in [*hep_th, *general]}


# --- the model --------------------------------------------------------------------------------


def test_training_repeats_itself(stand_in, settings):
    tokenizer = stand_in.tokenizer
    texts = stand_in.rows("train")["abstract"][:12]
    sequences = modeling.encode(tokenizer, texts, eos=True)
    states = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        trained, tokens = tiny_llama.train_model(sequences, tokenizer, settings)
        states.append(trained.state_dict())
        assert tokens == settings.epochs * sum(map(len, sequences))
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def test_it_has_learned_something_but_not_hep_th(stand_in):
    """Far below the uniform model, and fine-tuning visibly helps on most held-out abstracts."""
    held_out = pd.concat([stand_in.rows(split).to_pandas() for split in ("validation", "test")])
    base, tuned = (
        perplexity.score(
            adapters.load_model(stand_in.experiment, name, dtype="float32"),
            stand_in.tokenizer,
            held_out["id"],
            held_out["abstract"],
            tokens_per_batch=2048,
        )["perplexity"]
        for name in ("base", tiny.VARIANT)
    )
    assert base.mean() < len(stand_in.tokenizer) / 4
    assert tuned.mean() < 0.95 * base.mean()
    assert (tuned < base).mean() > 0.8
