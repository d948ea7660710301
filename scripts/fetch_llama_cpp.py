"""Fetch the pinned llama-cpp-python source archive with pip and check its sha256.

The pin is cpp_patches/UPSTREAM. pip is the only downloader, so proxies, mirrors and offline
folders work as the user has set them up. Standard library only: it runs before anything of ours
is installed.

    python scripts/fetch_llama_cpp.py DOWNLOADS      prints the path of the checked archive
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

PATCH_DIR = Path(__file__).resolve().parent.parent / "cpp_patches"


class SourceError(Exception):
    """The llama.cpp source cannot be obtained or patched; the message says why."""


@dataclass(frozen=True)
class Upstream:
    """The pin: which archive, its digest, and where llama.cpp lies inside it."""

    package: str
    version: str
    sdist: str
    sha256: str
    path: str
    commit: str


def read_upstream(path: Path = PATCH_DIR / "UPSTREAM") -> Upstream:
    """Read the pin: one `key value` a line, `#` starts a comment line.

    Raises:
        SourceError: a key is missing or unknown.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
    try:
        return Upstream(**pairs)
    except TypeError as error:
        raise SourceError(f"{path} is not a valid pin ({error}).") from error


def sha256_of(path: Path) -> str:
    """Return the file's sha256 as lower-case hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def fetch_sdist(downloads: Path, upstream: Upstream) -> Path:
    """Return the checked archive in `downloads`, which pip fills if it is not there yet.

    Raises:
        SourceError: pip failed, or the archive has another sha256 than the pin.
    """
    archive = downloads / upstream.sdist
    if archive.is_file() and sha256_of(archive) == upstream.sha256:
        return archive
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=downloads) as temporary:
        _pip_download(Path(temporary), upstream)
        fetched = Path(temporary) / upstream.sdist
        if not fetched.is_file():
            raise SourceError(f"pip downloaded no {upstream.sdist}; is an index configured?")
        found = sha256_of(fetched)
        if found != upstream.sha256:
            raise SourceError(
                f"{upstream.sdist} has sha256 {found}, but cpp_patches/UPSTREAM pins "
                f"{upstream.sha256}; do not use this archive."
            )
        os.replace(fetched, archive)
    return archive


def _pip_download(folder: Path, upstream: Upstream) -> None:
    # pip asks a source archive for its metadata even when it only downloads. Without build
    # isolation the scikit-build-core that is here already answers (no CMake run, one second).
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    command += ["--no-deps", "--no-build-isolation", "--no-binary", upstream.package]
    command += ["--dest", str(folder), f"{upstream.package}=={upstream.version}"]
    result = subprocess.run(command, stdout=sys.stderr, check=False)
    if result.returncode:
        raise SourceError(
            f"pip could not download {upstream.sdist}; check the network, put that file into "
            f"{folder.parent}, or set RETAKE_LLAMA_CPP_SOURCE to {upstream.path} in a source tree "
            f"of {upstream.package} {upstream.version}."
        )


def main() -> int:
    """Print the path of the checked archive."""
    try:
        print(fetch_sdist(Path(sys.argv[1]), read_upstream()))
    except SourceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
