"""What an experiment takes from outside: repositories, versions, files, each pinned."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from feyntune.experiment import recipes
from feyntune.experiment.sections import Name, Positive, Section

Files = Annotated[list[Name], Field(min_length=1)]
ReleasedVariant = Literal[recipes.VARIANTS]


class HubRepository(Section):
    """Files of a repository on the Hugging Face Hub.

    ``revision`` is a branch, tag or commit; what it stood for when it was fetched is in the lock.
    ``files`` are patterns as of :func:`fnmatch.fnmatch`, each of which must match a file; those of
    ``optional`` need not.
    """

    origin: Literal["model", "dataset"]
    id: Name
    revision: Name
    files: Files
    optional: Annotated[list[Name], Field(default_factory=list)]


class KaggleDataset(Section):
    """Files of one version of a dataset on Kaggle."""

    origin: Literal["kaggle"]
    id: Name
    version: Positive
    files: Files


class WebFile(Section):
    """A single file at an address that pins its contents, with their SHA-256."""

    origin: Literal["web"]
    url: Annotated[str, Field(pattern=r"^https?://")]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: Positive


Source = Annotated[HubRepository | KaggleDataset | WebFile, Field(discriminator="origin")]


class Adapters(Section):
    """Files of each of the authors' twenty released adapters, and more of some, where there."""

    revision: Name
    files: Files
    more: dict[ReleasedVariant, Files]


class ReleasedDatasets(Section):
    """The ten released datasets, whose row ids ``feyntune verify`` compares with ours."""

    revision: Name
    files: Files
