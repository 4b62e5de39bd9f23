"""CITATION.cff keeps the rules of its format, and agrees with README and pyproject.toml."""

import re
import tomllib

import documents
import pytest
import yaml

from feyntune.paths import REPOSITORY

AUTHORS = {
    "Richmond, Paul",
    "Agarwal, Prarit",
    "Chowdhury, Borun",
    "Niarchos, Vasilis",
    "Papageorgakis, Constantinos",
}


@pytest.fixture(scope="module")
def citation():
    return yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def bibtex():
    (block,) = documents.blocks("bibtex", pages=[documents.README])
    return dict(re.findall(r"^ *(\w+) = \{(.+)\},?$", block.text, re.MULTILINE))


def test_the_keys_that_the_format_requires(citation):
    assert {"authors", "cff-version", "message", "title"} <= set(citation)
    assert {"authors", "title", "type"} <= set(citation["preferred-citation"])
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] in {"software", "dataset"}


def test_every_author_is_whole(citation, bibtex):
    cited = citation["preferred-citation"]["authors"]
    assert {f"{a['family-names']}, {a['given-names']}" for a in cited} == AUTHORS
    assert set(bibtex["author"].split(" and ")) == AUTHORS


def test_it_is_the_paper_that_the_readme_cites(citation, bibtex):
    paper = citation["preferred-citation"]
    assert bibtex["title"] == paper["title"]
    assert f"arXiv:{bibtex['eprint']}" in [each["value"] for each in paper["identifiers"]]


def test_version_and_licence_are_the_packages(citation):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
