"""Abstracts listed by id: from a snapshot, compared with the lock, named where they changed."""

import json

import fake_arxiv
import pytest
import yaml

from feyntune.analysis.report import claims, verify
from feyntune.cli import main
from feyntune.data.fetch import download, listed, revisions
from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.experiment.sources import ListedAbstracts

IDS = [f"2501.{number:05}" for number in range(60)]
LISTED = {"origin": "arxiv", "id": "few.ids.txt"}


def record(identifier, abstract):
    return {
        **{"id": identifier, "title": "A title", "comments": None, "categories": "hep-th"},
        **{"abstract": abstract, "versions": [{"created": "Wed, 1 Jan 2025 00:00:00 GMT"}]},
    }


@pytest.fixture
def few(tmp_path, monkeypatch):
    """An experiment that lists abstracts by id, and a snapshot that holds them and others."""
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path / "output"))
    folder = tmp_path / "output" / "experiments"
    folder.mkdir(parents=True)
    lines = "".join(f"{each}  # hep-th\n" for each in IDS)
    (folder / "few.ids.txt").write_text(f"# A list\n\n{lines}")
    settings = {"extends": "demo", "data": {"snapshot": "few.ids.txt"}, "fetch": {"few": LISTED}}
    (folder / "few.yaml").write_text(yaml.safe_dump(settings))
    return load.load("few")


@pytest.fixture
def hold(tmp_path):
    """Write a snapshot that holds the listed abstracts, with changes."""

    def write(changes=None):
        texts = {each: f" We study\n  {each}. " for each in reversed(IDS)} | (changes or {})
        texts["2501.77777"] = "Another."
        place = tmp_path / "mirror" / "arxiv" / "snapshot.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        kept = {each: text for each, text in texts.items() if text is not None}
        place.write_text("".join(json.dumps(record(*each)) + "\n" for each in kept.items()))
        return place

    return write


def fetch(experiment, **options):
    lines = []
    download.fetch(experiment, experiment.outside, report=lines.append, **options)
    return lines


def refused(experiment, **options):
    with pytest.raises(UserError) as error:
        fetch(experiment, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def again(experiment, snapshot):
    """Fetch once more what was fetched."""
    (experiment.snapshot).unlink()
    return fetch(experiment, snapshot=snapshot)


def test_a_list_becomes_a_snapshot_in_its_order(few, hold):
    assert download.missing(few, few.outside) == ["few"]
    assert fetch(few, snapshot=hold()) == ["few: few.ids.txt, 60 abstracts"]
    lines = few.snapshot.read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == IDS
    assert download.missing(few, few.outside) == []
    locked = yaml.safe_load(few.paths.lockfile.read_text())["sources"]["few"]
    assert list(locked["abstracts"]) == IDS
    assert locked["abstracts"][IDS[0]] == revisions.hash_of(f"We study {IDS[0]}.")
    assert locked["files"] == {}


def test_a_mirror_holds_snapshots(few, hold, tmp_path):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    assert f"no snapshot in the mirror, in {mirror}/arxiv" in refused(few, mirror=mirror)
    hold()
    fetch(few, mirror=mirror)
    assert str(revisions.changes(few)) == "60 abstracts, each as in the lock"


def test_from_arxiv_itself_the_hashes_are_the_same(few, hold, monkeypatch):
    import arxiv

    fetch(few, snapshot=hold())
    few.snapshot.unlink()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with fake_arxiv.serving({each: f"We study {each}.\n" for each in IDS}) as server:
        monkeypatch.setattr(arxiv.Client, "query_url_format", server.url + "/?{}")
        assert fetch(few) == ["few: few.ids.txt, 60 abstracts"]
    assert str(revisions.changes(few)) == "60 abstracts, each as in the lock"
    assert [p.name for p in few.snapshot.parents[1].iterdir()] == ["few"]


def test_blanks_and_composed_accents_change_no_hash():
    assert revisions.hash_of("a  Schro\u0308dinger\n b ") == revisions.hash_of("a Schrödinger b")
    assert revisions.hash_of("a b") != revisions.hash_of("a c")


def test_what_changed_or_is_gone_is_named_and_counted(few, hold):
    fetch(few, snapshot=hold())
    said = again(few, hold({IDS[5]: "Revised."}))
    assert said[0] == f"few: 60 abstracts, 1 changed since ({IDS[5]})"
    assert "Revised." in few.snapshot.read_text()
    assert not revisions.changes(few).too_many
    (found,) = verify._fetched(few)
    assert (found.state, found.text) == (verify.OK, f"fetched {said[0]}")
    said = again(few, hold({IDS[5]: "Revised.", IDS[8]: None}))
    assert said[0] == f"few: 60 abstracts, 1 changed since ({IDS[5]}) and 1 gone ({IDS[8]})"
    assert len(few.snapshot.read_text().splitlines()) == 59
    assert revisions.changes(few).too_many  # 2 of 60
    (found,) = verify._fetched(few)
    assert found.state == verify.WRONG


def test_reference_values_are_not_judged_where_too_many_changed(few, hold, monkeypatch):
    expected = {
        "snapshot": None,
        "claims": [
            {
                **{"claim": certainty, "source": "here", "certainty": certainty},
                **{"file": "data/curation.json", "key": "lines", "expected": 60},
            }
            for certainty in ("stated", "reference")
        ],
    }
    place = few.paths.lockfile.with_name("few.expected.yaml")
    place.write_text(yaml.safe_dump(expected))
    monkeypatch.setattr("feyntune.paths.expectations", lambda name: place)
    fetch(few, snapshot=hold())
    why = [verdict.why for verdict in claims.judge(few)]
    assert why == ["data/curation.json is not there"] * 2
    again(few, hold({each: "Revised." for each in IDS[:2]}))
    first, second = claims.judge(few)
    assert first.why == "data/curation.json is not there"
    assert second.why == (
        "too many abstracts are not those of our run: 60 abstracts, 2 changed since "
        f"({IDS[0]}, {IDS[1]})"
    )


def test_a_new_list_must_be_there_as_a_whole(few, hold):
    message = refused(few, snapshot=hold({IDS[3]: None, IDS[4]: "  "}))
    assert (
        message == f"few: there is no abstract {IDS[3]} (and 1 more): remove it from few.ids.txt."
    )
    assert not few.paths.lockfile.exists()
    assert download.missing(few, few.outside) == ["few"]


def test_a_snapshot_that_holds_none(few, hold):
    place = hold(dict.fromkeys(IDS))
    assert f"{place} holds none of the 60 listed abstracts" in refused(few, snapshot=place)
    assert not few.snapshot.exists()


def test_a_snapshot_that_was_cut_short(few, hold):
    place = hold()
    place.write_bytes(place.read_bytes()[:-300])
    assert "the file ends in the middle of it" in refused(few, snapshot=place)
    assert not few.snapshot.exists()


def test_a_list_that_is_not_the_locks(few, hold):
    fetch(few, snapshot=hold())
    load.beside("few.ids.txt").write_text("\n".join(IDS[:-1]))
    assert download.missing(few, few.outside) == ["few"]
    assert "lists other ids than the lock" in refused(few, snapshot=hold())
    fetch(few, snapshot=hold(), update=True)
    assert len(few.snapshot.read_text().splitlines()) == 59


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2501.00001\n2501.1\n", "line 2: '2501.1' is no arXiv id"),
        ("2501.00001\n2501.00001\n", "lists 2501.00001 twice"),
        ("# nothing\n", "lists no id"),
    ],
)
def test_a_list_with_a_mistake(few, text, words):
    load.beside("few.ids.txt").write_text(text)
    assert words in refused(few)


def test_a_list_that_is_missing(few):
    with pytest.raises(UserError, match=r"other\.ids\.txt does not exist"):
        listed.read_ids(ListedAbstracts(origin="arxiv", id="other.ids.txt"))


def test_a_damaged_file(few, hold):
    fetch(few, snapshot=hold())
    few.snapshot.write_bytes(few.snapshot.read_bytes()[:-20])
    with pytest.raises(UserError, match="is damaged"):
        revisions.changes(few)


def test_a_snapshot_for_an_experiment_that_lists_none(few, hold, capsys):
    with pytest.raises(SystemExit):
        main(["fetch", "--experiment", "published", "--snapshot", str(hold())])
    assert "lists no abstracts by id" in capsys.readouterr().err


def test_a_snapshot_makes_no_other_experiment_of_it(few, hold, capsys):
    with pytest.raises(SystemExit):
        main(["reproduce", "--experiment", "few", "--snapshot", str(hold()), "--dry-run"])
    assert "Would fetch few." in capsys.readouterr().out
    assert not [name for name in load.names() if name.startswith("few-")]


def test_small_lists_what_it_pins():
    """The committed experiment, its list of ids and its lock fit together."""
    small = load.load("small")
    locked = yaml.safe_load(load.beside("small.lock.yaml").read_text())["sources"]
    assert set(locked) == set(small.outside)
    ids = list(locked["abstracts"]["abstracts"])
    assert ids == listed.read_ids(small.fetch["abstracts"])
    years = {identifier[:2] for identifier in ids}
    assert years == {"25", "26"}
    assert small.stand_in is None
    for name, source in small.outside.items():
        assert locked[name]["source"] == source.model_dump()
