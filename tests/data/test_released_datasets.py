"""The released datasets of scores: read by id, and refused where they do not fit together."""

import mirror
import pandas as pd
import pytest

from feyntune.data.released_datasets import Release, abstracts
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


@pytest.mark.parametrize(
    ("source", "change", "said"),
    [
        ("perplexities", without("id"), "perplexities has no column id"),
        ("completions", without("abstract"), "completions has no column abstract"),
        ("semscores", lambda frame: frame[:-2], "30 abstracts, semscores has 28"),
        ("semscores", lambda frame: frame[:0], "semscores has no rows"),
        (
            "completions",
            lambda frame: frame.replace({"id": {frame["id"][4]: "9901.99999"}}),
            "9901.99999 first",
        ),
        (
            "completions",
            lambda frame: frame.assign(abstract="another text"),
            "another text of 30 abstracts",
        ),
        (
            "semscores",
            lambda frame: frame.replace({"categories": {frame["categories"][0]: None}}),
            "categories is no text",
        ),
        ("perplexities", lambda frame: frame.assign(versions="v1"), "no date in versions"),
        (
            "perplexities",
            lambda frame: frame.replace({"id": {frame["id"][4]: frame["id"][5]}}),
            "holds 1 abstracts twice",
        ),
    ],
)
def test_sources_that_do_not_fit_together_are_refused(release, source, change, said):
    with pytest.raises(UserError, match=said) as caught:
        abstracts(release(**{source: change}).perplexities)
    assert "\n" not in str(caught.value)
