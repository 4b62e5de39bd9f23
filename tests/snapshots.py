"""Records of a snapshot, and what curation selects of them."""

from pathlib import Path

import pytest

from feyntune.data import selection
from feyntune.errors import UserError
from feyntune.experiment import load

FIELDS = load.load("demo").fields


def paper(identifier: str, categories: str = "hep-th", abstract: str = "We study.", **other):
    """A record with the fields that curation reads."""
    return {
        "id": identifier,
        "title": f"Title of {identifier}",
        "categories": categories,
        "comments": None,
        "abstract": abstract,
        "versions": [{"version": "v1", "created": "Mon, 2 Apr 2007 19:18:42 GMT"}],
        **other,
    }


def select(path: Path, excluded_ids=(), bad_lines_allowed=0.0):
    """The kept rows of every field, in their order, and the counts."""
    scratch = path.parent / "data" / ".partial-abstracts"
    abstracts, counts = selection.select(
        path,
        scratch,
        fields=FIELDS,
        excluded_ids=list(excluded_ids),
        bad_lines_allowed=bad_lines_allowed,
    )
    assert list(scratch.parent.iterdir()) == []
    fields = selection.rows_of_fields(abstracts, FIELDS)
    return {name: abstracts.gather(rows).to_pylist() for name, rows in fields.items()}, counts


def refusal(path: Path, **settings) -> str:
    with pytest.raises(UserError) as caught:
        select(path, **settings)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert not (path.parent / "data" / ".partial-abstracts").exists()
    return message


def assert_adds_up(rows: dict, counts: dict) -> None:
    """Every line is counted exactly once, and every kept one is there."""
    fields = counts["fields"]
    assert list(fields) == list(FIELDS)
    selected = sum(field["selected"] for field in fields.values())
    left_out = counts["bad_lines"] + len(counts["excluded_ids"]) + counts["other_categories"]
    assert counts["lines"] == left_out + selected
    for name, field in fields.items():
        dropped = field["withdrawn"] + field["empty"] + field["duplicate"]
        assert field["selected"] == dropped + field["kept"]
        assert field["kept"] == len(rows[name])
