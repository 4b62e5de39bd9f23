"""The lock, the patterns of files, and what model cards say of our recipes."""

import hashlib
from itertools import cycle

import pytest
from fake_hub import Repository
from fetching import (
    CARDS,
    FILES,
    MODEL,
    NEW,
    PLACES,
    as_mirror,
    everything,
    fetch,
    kaggle,
    model,
    refused,
    seen,
    written,
)

from feyntune.data.fetch import download, pins
from feyntune.errors import Unreachable
from feyntune.experiment import load as experiment
from feyntune.paths import EXPERIMENTS, REPOSITORY


def test_the_lock_holds_commits_sizes_and_hashes_and_no_place(fake, loaded, tmp_path):
    made = loaded(**everything(fake))
    fetch(made)
    entries = written(made)
    assert list(entries) == list(made.outside)
    assert entries["base"]["commit"] == NEW
    assert entries["snapshot"]["source"]["version"] == 193
    for name in made.outside:
        assert entries[name]["files"] == {
            file: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for file, content in sorted(seen(made, name).items())
        }
    text = made.paths.lockfile.read_text()
    assert text.startswith("# What experiments/demo.yaml needs")
    assert str(tmp_path) not in text


def test_what_a_users_file_replaces_stays_in_the_lock(fake, loaded):
    both = {"base": model("config.json"), "snapshot": kaggle("*.json")}
    fetch(loaded(**both))
    own = experiment.with_settings(
        "demo", {"fetch": both, "base.model": MODEL, "data.snapshot": "my.json"}
    )
    assert list(own.outside) == ["base"]
    fetch(own, update=True)
    pins.write(own, pins.read(own))
    assert list(written(own)) == ["base", "snapshot"]
    assert download.differences(own) == []


def test_a_committed_lock_holds_where_the_output_is_elsewhere(fake, loaded, monkeypatch, tmp_path):
    made = loaded(base=model("config.json"))
    fetch(made)
    monkeypatch.setattr(pins, "EXPERIMENTS", made.paths.lockfile.parent)
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path / "other"))
    fake.repositories["model", MODEL].commits["c" * 40] = {"config.json": b"new"}
    fetch(made)
    assert seen(made, "base") == {"config.json": FILES["config.json"]}
    assert not made.paths.lockfile.exists()  # nothing to say that the committed one does not
    assert list(pins.read(made)) == ["base"]


def test_the_committed_lock_is_none_of_the_tests():
    assert pins.EXPERIMENTS == EXPERIMENTS == REPOSITORY / "experiments"


@pytest.mark.parametrize("text", ["sources: [", "sources: {base: {commit: 1}}", "- x", "\x00"])
def test_a_lock_that_cannot_be_read_is_named(fake, loaded, text):
    made = loaded(base=model("config.json"))
    made.paths.lockfile.parent.mkdir(parents=True)
    made.paths.lockfile.write_text(text)
    assert str(made.paths.lockfile) in refused(made)


def test_sources_that_are_gone_leave_the_lock(fake, loaded):
    fetch(loaded(**everything(fake)))
    made = loaded(base=model("config.json"))
    fetch(made, update=True)
    assert list(written(made)) == ["base"]


def test_what_was_brought_is_kept_source_by_source_and_the_lock_lacks_none(fake, loaded, tmp_path):
    folder = as_mirror(fake, tmp_path / "mirror")
    made = loaded(**everything(fake))
    (folder / PLACES["snapshot"]).rename(tmp_path / "away")
    refused(made, mirror=folder)
    assert list(pins.read(made)) == ["base", "scores"]
    assert not made.paths.lockfile.exists()
    assert download.missing(made, made.outside) == ["snapshot", "ratings"]
    (tmp_path / "away").rename(folder / PLACES["snapshot"])
    fetch(made, mirror=folder)
    assert list(written(made)) == list(made.outside)
    assert not made.paths.unfinished_lock.exists()


def test_partly_brings_what_there_is_and_says_what_is_not(fake, loaded, tmp_path):
    folder = as_mirror(fake, tmp_path / "mirror")
    made, said = loaded(**everything(fake)), []
    (folder / PLACES["snapshot"]).unlink()
    download.fetch(made, made.outside, mirror=folder, partly=True, report=said.append)
    assert download.missing(made, made.outside) == ["snapshot"]
    assert said[-1].startswith("Not to be had: snapshot. Why the first was not: snapshot: ")


def test_after_no_connection_the_same_server_is_not_asked_again(loaded, fake, monkeypatch):
    made, asked = loaded(**everything(fake)), []

    def unreachable(experiment, name, *_):
        asked.append(name)
        raise Unreachable(f"{name}: no connection")

    monkeypatch.setattr(download, "_fetch", unreachable)
    with pytest.raises(Unreachable, match="base: no connection"):
        download.fetch(made, made.outside, partly=True, report=str)
    assert asked == ["base", "snapshot", "ratings"], "scores are on the Hub, as base is"


def test_the_released_datasets_share_the_lock(fake, tmp_path):
    wanted = {"revision": "main", "files": ["data/*.parquet"]}
    changes = {"fetch": {"base": model("config.json")}, "base.model": MODEL}
    made = experiment.with_settings("demo", changes)
    both = experiment.with_settings("demo", changes | {"released_datasets": wanted})
    for source in both.compared.values():
        files = {"data/train-0.parquet": source.id.encode()}
        fake.repositories["dataset", source.id] = Repository({NEW: files})
    fetch(made)
    download.fetch(both, both.compared, report=str)
    assert list(written(both)) == ["base", *both.compared]
    assert download.missing(both, both.compared) == download.differences(both) == []
    both.paths.fetched("s3").rename(tmp_path / "away")
    assert download.missing(both, both.compared) == ["s3"]
    assert download.differences(both) == []  # they need not be here


def test_a_pattern_without_a_file_is_named_with_what_there_is(fake, loaded):
    message = refused(loaded(base=model("*.json", "*.gguf")))
    assert "'*.gguf'" in message
    assert "README.md, config.json, model.safetensors" in message
    assert ".gitattributes" not in message


def test_an_optional_pattern_may_match_nothing(fake, loaded):
    made = loaded(base=model("config.json", optional=["*.gguf", "original/*"]))
    fetch(made)
    assert list(seen(made, "base")) == ["config.json", "original/params.json"]


@pytest.mark.parametrize(
    "source", [model("*"), model("*.bin"), model("config.json", optional=["*.bin"])]
)
def test_pickles_are_refused(fake, loaded, source):
    message = refused(loaded(base=source))
    assert "pytorch_model.bin is a pickle" in message
    assert not fake.downloads()


def test_pickles_are_refused_also_where_the_lock_names_them(fake, loaded):
    made = loaded(base=model("config.json"))
    fetch(made)
    text = made.paths.lockfile.read_text().replace("config.json:", "pytorch_model.bin:")
    made.paths.lockfile.write_text(text)
    assert "pytorch_model.bin is a pickle" in refused(made)


def test_hidden_files_come_only_by_name(fake, loaded):
    fake.repositories["model", MODEL].commits[NEW] = {".gitattributes": b"x", "a.json": b"y"}
    everything = loaded(base=model("*"))
    fetch(everything)
    assert list(seen(everything, "base")) == ["a.json"]
    named = loaded(base=model(".git*"))
    fetch(named, update=True)
    assert list(seen(named, "base")) == [".gitattributes"]


def test_cards_confirm_or_contradict_our_recipes(published, built):
    lines = {line.split(":")[0]: line for line in fetch(published, mirror=built.folder)}
    cards = pins.cards(published)
    assert {variant: cards[variant]["verdict"] for variant in CARDS} == {
        variant: verdict for variant, (_, verdict) in CARDS.items()
    }
    assert cards["s2-LoRA-all"]["datasets"] == ["LLMsForHepth/hep-ph_gr-qc_primary"]
    assert cards["s10-LoRA-QKV"]["verdict"] == "confirmed"
    assert len(cards) == 20
    assert written(published)["s4-LoRA-all"]["card"]["verdict"] == "contradicted"
    assert "which confirms our recipe" in lines["s1-LoRA-all"]
    assert "hep-th_85_gr-qc_15, which CONTRADICTS our recipe" in lines["s4-LoRA-all"]
    assert "its card names no dataset, which says nothing" in lines["s9-LoRA-all"]


def test_without_a_lock_no_card_says_anything(published):
    assert pins.cards(published) == {}


def test_a_card_that_cannot_be_read_says_nothing(fake):
    texts = cycle(["no front matter", "---\na: [\n---\n", "---\n- a\n---\n", "\xff"])
    made = experiment.with_settings(
        "demo", {"adapters": {"revision": "main", "files": ["README.md"], "more": {}}}
    )
    assert len(made.outside) > 4
    for source, text in zip(made.outside.values(), texts, strict=False):
        files = {"README.md": text.encode("latin-1")}
        fake.repositories["model", source.id] = Repository({NEW: files})
    fetch(made)
    assert {card["verdict"] for card in pins.cards(made).values()} == {"not said"}
