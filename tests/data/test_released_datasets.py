"""The released datasets of scores: read by id; what does not fit is left out and counted."""

import shutil

import mirror
import pandas as pd
import pytest

from feyntune.data.released_datasets import Release, abstracts, read
from feyntune.errors import UserError
from feyntune.experiment import load


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> dict[str, pd.DataFrame]:
    """The rows of every source in a mirror."""
    built = mirror.build(tmp_path_factory.mktemp("mirror"), abstracts=30)
    folder = built.folder / "datasets" / "LLMsForHepth"
    return {
        source: pd.read_parquet(folder / repository / mirror.PARQUET)
        for source, repository in mirror.SCORES.items()
    }


@pytest.fixture
def release(frames, tmp_path, monkeypatch):
    """The sources, some of them changed, as if they were fetched."""
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))

    def read(**changes) -> Release:
        settings = load.load("published")
        for source, frame in frames.items():
            folder = settings.paths.fetched(source)
            folder.mkdir(parents=True)
            changed = changes.get(source, lambda same: same)(frame)
            # In two files, in which a large dataset may lie.
            changed[:10].to_parquet(folder / "test-0.parquet")
            changed[10:].to_parquet(folder / "test-1.parquet")
        return Release(settings)

    return read


def without(*columns):
    return lambda frame: frame.drop(columns=list(columns))


def test_rows_are_those_of_all_files_by_id(release, frames):
    found = release()
    for source in ("perplexities", "semscores", "completions"):
        assert getattr(found, source).index.tolist() == frames[source]["id"].tolist()
    assert found.unexpected == {}
    test = abstracts(found.perplexities)
    assert list(test) == ["id", "title", "categories", "primary", "year", "abstract"]
    assert test["primary"].tolist() == [c.split()[0] for c in frames["perplexities"]["categories"]]


def test_columns_of_no_model_are_named(release):
    def add(frame):
        return frame.assign(**{"perplexity_s1-L-3.1-8B-qkv": 5.0, "note": "x"})

    found = release(perplexities=add)
    assert found.unexpected == {"perplexities": ["note", "perplexity_s1-L-3.1-8B-qkv"]}


UNUSABLE = {
    "has no column id": without("id"),
    "has no column abstract": without("abstract"),
    "has no rows": lambda frame: frame[:0],
    "has no row that can be used": lambda frame: frame.assign(versions="v1"),
    "has no abstract in common with perplexities": lambda frame: frame.assign(abstract="another"),
}


@pytest.mark.parametrize("said", UNUSABLE)
def test_a_source_that_cannot_be_used_is_missing_alone(release, said):
    found = release(completions=UNUSABLE[said])
    assert found.completions is None and said in found.missing.pop("completions")
    assert found.missing == {} and len(found.test) == len(found.semscores) == 30


def changed(column: str, row: int, value):
    def change(frame):
        return frame.assign(
            **{column: [value if n == row else v for n, v in enumerate(frame[column])]}
        )

    return change


LEFT_OUT = {
    "semscores: categories is no text": ("semscores", changed("categories", 4, None)),
    "perplexities: there is no date in versions": ("perplexities", changed("versions", 4, [])),
    "another text in completions": ("completions", changed("abstract", 4, "another")),
    "not in completions": ("completions", lambda frame: frame.drop(index=4)),
}


@pytest.mark.parametrize("why", LEFT_OUT)
def test_an_abstract_that_not_all_sources_have_is_left_out_and_counted(release, frames, why):
    source, change = LEFT_OUT[why]
    found = release(**{source: change})
    fourth = frames["perplexities"]["id"][4]
    assert found.left_out[why] == [fourth] and found.missing == {}
    kept = [each for each in frames["perplexities"]["id"] if each != fourth]
    for frame in (found.test, found.perplexities, found.semscores, found.completions):
        assert frame.index.tolist() == kept


def test_of_ids_that_are_there_twice_or_in_one_source_none_is_used(release, frames):
    ids = frames["perplexities"]["id"]
    found = release(
        perplexities=changed("id", 4, ids[5]), completions=changed("id", 7, "9901.99999")
    )
    assert found.left_out == {
        "perplexities: the abstract is there twice": [ids[5], ids[5]],
        "not in completions": [ids[7]],
        "in semscores, not in others": [ids[4]],
        "in completions, not in others": ["9901.99999"],
    }
    assert len(found.test) == 27


def test_sources_that_are_null_or_were_not_to_be_had_are_said(release, tmp_path):
    whole = release()
    assert whole.missing == {}
    settings = load.with_settings("published", {"fetch.semscores": None})
    (settings.paths.fetched("perplexities") / "test-0.parquet").write_bytes(b"half")
    shutil.rmtree(settings.paths.fetched("completions"))
    found = Release(settings)
    assert found.missing["semscores"] == "null in this experiment"
    assert found.missing["completions"] == "could not be had when they were fetched"
    assert "is not whole Parquet" in found.missing["perplexities"]
    assert found.test.empty and list(abstracts(found.test)) == list(abstracts(whole.test))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed("title", 4, " "), "title is no text: 1 rows, "),
        (lambda f: changed("id", 4, f["id"][5])(f), "the abstract is there twice: 2 rows, "),
        (lambda f: f.assign(versions="v1"), "there is no date in versions: 30 rows, "),
    ],
)
def test_a_test_set_to_measure_on_is_refused_as_a_whole(release, change, said):
    """What is measured here is not to be of fewer abstracts than the authors'."""
    release(semscores=change)
    with pytest.raises(UserError, match=said):
        read(load.load("published").paths, "semscores")
