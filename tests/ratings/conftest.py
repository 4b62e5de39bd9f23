"""Ratings as a file."""

import csv

import pytest


@pytest.fixture
def saved(tmp_path):
    def save(some: list[dict], encoding: str = "utf-8", delimiter: str = ","):
        path = tmp_path / "ratings.csv"
        with path.open("w", encoding=encoding, newline="") as file:
            writer = csv.DictWriter(file, some[0], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(some)
        return path

    return save
