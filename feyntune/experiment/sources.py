"""What an experiment takes from outside: repositories, versions, files, each pinned."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from feyntune.experiment import recipes
from feyntune.experiment.sections import Name, Positive, Section

Files = Annotated[list[Name], Field(min_length=1)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
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
    sha256: Sha256
    bytes: Positive


class WheelFile(Section):
    """A file inside a wheel of the Python package index, of which nothing is imported or installed.

    ``id`` is the name that ``base.model`` gives it; ``sha256`` and ``bytes`` are the wheel's.
    """

    origin: Literal["wheel"]
    id: Name
    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")]
    version: Annotated[str, Field(pattern=r"^[0-9][\w.+!]*$")]
    sha256: Sha256
    bytes: Positive
    file: Name


class ListedAbstracts(Section):
    """Abstracts of arXiv by their ids, from its API or from a snapshot that holds them.

    ``id`` is the name that ``data.snapshot`` gives them, and of the file beside the experiment that
    lists the ids, one on a line.
    """

    origin: Literal["arxiv"]
    id: Annotated[str, Field(pattern=r"^[\w.+-]+$")]


Source = Annotated[
    HubRepository | KaggleDataset | WebFile | WheelFile | ListedAbstracts,
    Field(discriminator="origin"),
]


class Adapters(Section):
    """Files of each of the authors' twenty released adapters, and more of some, where there."""

    revision: Name
    files: Files
    more: dict[ReleasedVariant, Files]


class ReleasedDatasets(Section):
    """The ten released datasets, whose row ids ``feyntune verify`` compares with ours."""

    revision: Name
    files: Files
