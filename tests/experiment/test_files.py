"""Files that are whole or not there."""

import os
from pathlib import Path

import pytest

from feyntune.experiment.files import fingerprint, free_name, only_file, remove, writing
from feyntune.experiment.load import load


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path


def put(path: Path, content: str = "abc") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_a_file_appears_when_it_is_whole(root):
    target = root / "new" / "folder" / "a.txt"
    with writing(target) as partial:
        partial.write_text("half")
        assert not target.exists()
        assert partial.parent == target.parent, "a rename must not cross file systems"
        partial.write_text("whole")
    assert target.read_text() == "whole"
    assert os.listdir(target.parent) == ["a.txt"]


def test_a_block_that_raises_leaves_nothing_under_the_name(root):
    target = root / "a.txt"
    with pytest.raises(ZeroDivisionError), writing(target) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert not target.exists()
    assert [path for path in root.iterdir() if not path.name.startswith(".partial-")] == []


def test_a_block_that_raises_leaves_the_old_file_and_the_old_folder(root):
    file, folder = put(root / "a.txt", "old"), put(root / "base" / "config.json", "old").parent
    with pytest.raises(ZeroDivisionError), writing(file) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), writing(folder) as partial:
        put(partial / "config.json", "half")
        raise ZeroDivisionError
    assert file.read_text() == "old"
    assert (folder / "config.json").read_text() == "old"


def test_a_killed_runs_leftovers_do_not_get_into_the_next(root):
    put(root / ".partial-base" / "half.json")
    put(root / ".partial-a.txt")
    with writing(root / "base") as partial:
        put(partial / "config.json")
    with writing(root / "a.txt") as partial:
        assert not partial.exists()
        partial.write_text("whole")
    assert sorted(os.listdir(root)) == ["a.txt", "base"]
    assert os.listdir(root / "base") == ["config.json"]


def test_a_folder_is_replaced_and_not_merged(root):
    put(root / "base" / "old.json")
    with writing(root / "base") as partial:
        put(partial / "new.json")
    assert os.listdir(root / "base") == ["new.json"]
    assert os.listdir(root) == ["base"]


def test_a_file_is_replaced(root):
    put(root / "a.txt", "old")
    with writing(root / "a.txt") as partial:
        partial.write_text("new")
    assert (root / "a.txt").read_text() == "new"


def test_remove_takes_files_and_folders_but_not_what_a_link_points_to(root):
    put(root / "folder" / "a")
    put(root / "kept" / "a")
    (root / "link").symlink_to(root / "kept")
    for name in ("folder", "link", "none"):
        remove(root / name)
    assert os.listdir(root) == ["kept"]
    assert os.listdir(root / "kept") == ["a"]


def test_a_fingerprint_is_of_the_content_and_not_of_the_order():
    one = fingerprint({"a": 1, "b": {"c": [1, 2], "d": None}})
    assert one == fingerprint({"b": {"d": None, "c": [1, 2]}, "a": 1})
    assert one != fingerprint({"a": 1, "b": {"c": [2, 1], "d": None}})
    # `printf '{"a":1}' | sha256sum`
    known = "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    assert fingerprint({"a": 1}) == known


def test_a_section_has_the_fingerprint_of_its_settings():
    figures = load("smoke").figures
    assert fingerprint(figures) == fingerprint(figures.model_dump())


def test_a_free_name_overwrites_nothing(root):
    assert free_name(root / "a") == root / "a"
    put(root / "a")
    put(root / "a-2")
    assert free_name(root / "a") == root / "a-3"


def test_the_only_file_of_a_folder(root):
    assert only_file(root / "none") is None
    (root / "folder").mkdir()
    assert only_file(root) is None
    one = put(root / "one")
    assert only_file(root) == one
    put(root / "two")
    assert only_file(root) is None
