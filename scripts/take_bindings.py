"""Take llama-cpp-python's ctypes bindings as a part of our package, under a name of its own.

The archive that holds the pinned llama.cpp also holds the bindings made for it. Installing that
package would build its own llama.cpp, and put a second `llama_cpp` beside one that a user may
have; so its low-level files alone are taken, as `retake_edge._bindings`, with the few lines
rewritten that import each other or look for the libraries. Standard library only.

    python scripts/take_bindings.py OUT --downloads DOWNLOADS

A local llama.cpp (RETAKE_LLAMA_CPP_SOURCE) that lies in a tree of llama-cpp-python, as its
vendor/llama.cpp, brings the bindings of that tree; any other one gets those of the pinned archive.
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
import tarfile
from pathlib import Path

from apply_patches import SOURCE_VARIABLE
from fetch_llama_cpp import SourceError, Upstream, fetch_sdist, read_upstream

# Where each file of ours comes from.
FILES = {
    "_ctypes_extensions.py": "llama_cpp/_ctypes_extensions.py",
    "llama_cpp.py": "llama_cpp/llama_cpp.py",
    "llama_grammar.py": "llama_cpp/llama_grammar.py",
    "mtmd_cpp.py": "llama_cpp/mtmd_cpp.py",
    "LICENSE": "LICENSE.md",
}
_PACKAGE = "retake_edge._bindings"
_LIBRARY_DIR = (
    "import pathlib\n",
    "import pathlib\n\nfrom retake_edge.llama.library import library_dir\n",
)
_IMPORT = ("from llama_cpp._ctypes_extensions import", f"from {_PACKAGE}._ctypes_extensions import")
# What is rewritten, by file; each text must be there.
REWRITES = {
    "_ctypes_extensions.py": [("from typing_extensions import", "from typing import")],
    "llama_cpp.py": [
        _IMPORT,
        _LIBRARY_DIR,
        ('os.environ.get("LLAMA_CPP_LIB_PATH")', "library_dir()"),
    ],
    # A schema that names another one by its URL is refused: nothing here uses the network.
    "llama_grammar.py": [
        ("import requests", 'raise ValueError(f"it refers to {ref}, and nothing is downloaded")'),
    ],
    "mtmd_cpp.py": [
        _IMPORT,
        _LIBRARY_DIR,
        ('os.environ.get("MTMD_CPP_LIB")', "library_dir()"),
        ("import llama_cpp.llama_cpp as llama_cpp", f"from {_PACKAGE} import llama_cpp"),
    ],
}
_INIT = '''"""The ctypes bindings of {origin}; see LICENSE.

Written by scripts/take_bindings.py, which says what was changed; changes made here are lost.
"""

ORIGIN = {origin!r}
'''


def read_archive(archive: Path, upstream: Upstream) -> dict[str, str]:
    """Return the text of each of FILES, from the pinned archive.

    Raises:
        SourceError: the archive lacks one of them.
    """
    root = upstream.sdist.removesuffix(".tar.gz")
    wanted = {f"{root}/{source}": name for name, source in FILES.items()}
    found: dict[str, str] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name in wanted else None
            if file is not None:
                found[wanted[member.name]] = file.read().decode("utf-8")
            if len(found) == len(FILES):
                return found
    missing = sorted(FILES[name] for name in set(FILES) - set(found))
    raise SourceError(f"{archive} holds no {missing[0]}; is it a llama-cpp-python archive?")


def bindings_beside(llama_cpp: Path) -> Path | None:
    """Return the llama-cpp-python tree whose vendor/llama.cpp is `llama_cpp`, if there is one."""
    root = llama_cpp.parent.parent
    return root if all((root / source).is_file() for source in FILES.values()) else None


def rewrite(name: str, text: str) -> str:
    """Return a bindings file as a module of our package.

    Raises:
        SourceError: a line that must be rewritten is not there, or it imports another package.
    """
    for old, new in REWRITES.get(name, []):
        if old not in text:
            raise SourceError(
                f"The bindings' {name} has no {old!r}; adapt scripts/take_bindings.py."
            )
        text = text.replace(old, new)
    foreign = _imported_packages(text) - sys.stdlib_module_names - {"retake_edge"}
    if foreign:
        raise SourceError(f"The bindings' {name} imports {sorted(foreign)[0]}, which is not ours.")
    return text


def _imported_packages(text: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


def write_bindings(out: Path, texts: dict[str, str], origin: str) -> None:
    """Write the package into the folder `out`.

    Raises:
        SourceError: a file cannot be rewritten; then nothing is written.
    """
    package = {name: rewrite(name, text) for name, text in texts.items() if name.endswith(".py")}
    package |= {"LICENSE": texts["LICENSE"], "__init__.py": _INIT.format(origin=origin)}
    out.mkdir(parents=True, exist_ok=True)
    for name, text in package.items():
        (out / name).write_text(text, encoding="utf-8")


def take_bindings(out: Path, downloads: Path, source: Path | None, upstream: Upstream) -> None:
    """Write the bindings that go with a local llama.cpp tree (None: with the pinned archive).

    Raises:
        SourceError: they cannot be obtained or rewritten.
    """
    beside = bindings_beside(source) if source else None
    if beside:
        texts = {name: (beside / file).read_text("utf-8") for name, file in FILES.items()}
        write_bindings(out, texts, "the llama-cpp-python tree around the local llama.cpp")
    else:
        texts = read_archive(fetch_sdist(downloads, upstream), upstream)
        pin = f"{upstream.package} {upstream.version} (llama.cpp {upstream.commit})"
        write_bindings(out, texts, pin)


def main() -> int:
    """Take the bindings into the folder named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="the folder of the package that is written")
    parser.add_argument("--downloads", type=Path, required=True, help="where the archive is kept")
    arguments = parser.parse_args()
    override = os.environ.get(SOURCE_VARIABLE)
    source = Path(override).expanduser().resolve() if override else None
    try:
        take_bindings(arguments.out, arguments.downloads, source, read_upstream())
    except SourceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
