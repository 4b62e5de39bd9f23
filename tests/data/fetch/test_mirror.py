"""Sources from a mirror folder, without the network."""

import hashlib
import json
from pathlib import Path

import huggingface_hub.constants as hf
import mirror
import pandas as pd
import pytest
from fetching import (
    DATASET,
    KAGGLE,
    MODEL,
    NEW,
    OLD,
    PLACES,
    as_mirror,
    dataset,
    everything,
    fetch,
    model,
    refused,
    written,
)
from safetensors.numpy import load_file

from feyntune.data.fetch import download
from feyntune.errors import UserError


def test_a_mirror_gives_everything_without_a_server(published, built, fake):
    fetch(published, mirror=built.folder)
    assert fake.log == []
    assert download.missing(published, published.outside) == download.differences(published) == []
    scores = published.paths.fetched("perplexities") / mirror.PARQUET
    assert scores.is_symlink()
    assert pd.read_parquet(scores).filter(like="perplexity_").shape == (5, 21)
    state = json.loads((published.paths.fetched("s1-LoRA-QKV") / mirror.STATE).read_text())
    assert state["log_history"][0]["step"] == 0
    rated = pd.read_csv(
        published.paths.fetched("ratings") / "llm_human_evaluation_final.csv", dtype={"paper": str}
    )
    assert len(rated) == 900
    commit = mirror.commit_of("LLMsForHepth/hep-th_perplexities")
    assert written(published)["perplexities"]["commit"] == commit
    weights = built.folder / "LLMsForHepth" / "s1-L-3.1-8B-base" / "adapter_model.safetensors"
    assert len(load_file(weights)) == 2


def test_the_lock_of_the_hub_holds_for_a_mirror(fake, loaded, tmp_path):
    made = loaded(**everything(fake))
    fetch(made)
    folder = as_mirror(fake, tmp_path / "mirror")
    for name in made.outside:
        made.paths.fetched(name).rename(tmp_path / name)
    before = written(made)
    fetch(made, mirror=folder)
    assert written(made) == before  # with its commit, which this mirror does not tell
    assert download.differences(made) == []
    for name in made.outside:
        assert all(p.is_symlink() for p in made.paths.fetched(name).rglob("*") if p.is_file())


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("locked", [True, False])
def test_a_file_that_is_missing_in_a_mirror_is_named(fake, loaded, tmp_path, name, locked):
    folder = as_mirror(fake, tmp_path / "mirror")
    made = loaded(**{name: everything(fake)[name]})
    if locked:
        fetch(made)
        made.paths.fetched(name).rename(tmp_path / "away")
    (folder / PLACES[name]).unlink()
    message = refused(made, mirror=folder)
    pattern = "'*.safetensors'" if name == "base" else "no file"
    by_pattern = pattern in message and not locked
    assert by_pattern or f"{folder / PLACES[name]} is missing in the mirror" in message
    assert not made.paths.fetched(name).exists()


@pytest.mark.parametrize("name", PLACES)
def test_a_file_that_was_replaced_in_a_mirror_is_named(fake, loaded, tmp_path, name):
    folder = as_mirror(fake, tmp_path / "mirror")
    made = loaded(**{name: everything(fake)[name]})
    if name != "ratings":  # which the experiment itself pins
        fetch(made, mirror=folder)
        made.paths.fetched(name).rename(tmp_path / "away")
    content = (folder / PLACES[name]).read_bytes()
    (folder / PLACES[name]).write_bytes(content[:-1] + b"?")
    message = refused(made, mirror=folder)
    assert Path(PLACES[name]).name in message.split(" has SHA-256 ")[0]
    assert f"put the right file at {folder / PLACES[name]}" in message
    assert not made.paths.fetched(name).exists()


def test_a_repository_that_is_not_in_a_mirror(fake, loaded, tmp_path):
    folder = tmp_path / "mirror"
    with pytest.raises(UserError, match=r"The mirror .* is no folder"):
        fetch(loaded(base=model("config.json")), mirror=folder)
    folder.mkdir()
    for name, where in {
        "base": f"{folder}/{MODEL} and {folder}/models--owner--model",
        "scores": f"{folder}/datasets/{DATASET} and {folder}/datasets--owner--scores",
        "snapshot": f"{folder}/kaggle/datasets/{KAGGLE}/versions/193",
        "ratings": f"{folder}/web/127.0.0.1/web/ratings.csv",
    }.items():
        assert where in refused(loaded(**{name: everything(fake)[name]}), mirror=folder)
    assert fake.log == []


def test_a_mirror_without_commits_says_none(fake, loaded, tmp_path):
    made = loaded(base=model("config.json"))
    lines = fetch(made, mirror=as_mirror(fake, tmp_path / "mirror"))
    assert written(made)["base"]["commit"] is None
    assert "an unknown commit" in lines[0]
    made.paths.fetched("base").rename(tmp_path / "away")
    fetch(made)  # from the Hub: the hashes decide
    assert download.differences(made) == []


def note(folder, file, commit):
    place = folder / MODEL / ".cache" / "huggingface" / "download" / f"{file}.metadata"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"{commit}\netag\n1.0\n")


def test_commits_of_a_mirror(fake, loaded, tmp_path):
    folder = as_mirror(fake, tmp_path / "mirror")
    made = loaded(base=model("config.json", "README.md"))
    note(folder, "config.json", NEW)
    note(folder, "README.md", OLD)
    note(folder, "model.safetensors", "c" * 40)  # not asked for
    assert "are of different commits (aaaaaaa, bbbbbbb)" in refused(made, mirror=folder)
    note(folder, "README.md", NEW)
    other = loaded(base=model("config.json", revision=OLD))
    assert "is at commit bbbbbbb, the experiment asks for aaaaaaa" in refused(other, mirror=folder)
    fetch(made, mirror=folder)
    assert written(made)["base"]["commit"] == NEW


def test_a_cache_of_huggingface_hub_is_a_mirror(fake, loaded, tmp_path):
    made = loaded(base=model("*.json"), scores=dataset("*"))
    fetch(made)
    before = written(made)
    cache = Path(hf.HF_HUB_CACHE).rename(tmp_path / "mirror")
    for name in made.outside:
        made.paths.fetched(name).rename(tmp_path / name)
    fake.log.clear()
    fetch(made, mirror=cache)  # by the commit of the lock
    for name in made.outside:
        made.paths.fetched(name).rename(tmp_path / f"{name}-again")
    made.paths.lockfile.unlink()
    (cache / "models--owner--model" / "refs").mkdir(exist_ok=True)
    (cache / "models--owner--model" / "refs" / "main").write_text(NEW)
    (cache / "datasets--owner--scores" / "refs").mkdir(exist_ok=True)
    (cache / "datasets--owner--scores" / "refs" / "main").write_text(NEW)
    fetch(made, mirror=cache)  # by what its branch was
    assert written(made) == before
    assert fake.log == []
    gone = loaded(base=model("*.json", revision=OLD))
    assert f"snapshots/{OLD}" in refused(gone, mirror=cache, update=True)


def test_a_clone_without_large_files_is_no_mirror(fake, loaded, tmp_path):
    folder = as_mirror(fake, tmp_path / "mirror")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (folder / MODEL / "model.safetensors").write_bytes(pointer)
    assert "git lfs pull" in refused(loaded(base=model("*.safetensors")), mirror=folder)


def test_update_takes_what_the_mirror_holds_now(fake, loaded, tmp_path):
    folder = as_mirror(fake, tmp_path / "mirror")
    made = loaded(base=model("config.json"))
    fetch(made, mirror=folder)
    (folder / MODEL / "config.json").write_bytes(b"[]\n")
    assert "config.json has SHA-256" in refused(made, mirror=folder)
    fetch(made, mirror=folder, update=True)
    assert written(made)["base"]["files"]["config.json"]["sha256"] == (
        hashlib.sha256(b"[]\n").hexdigest()
    )
