"""Make the patched llama.cpp tree: a fresh copy of the pinned source plus cpp_patches/series.

The series is applied to a folder of its own and proved there; then the result is synchronised
into the build's tree file by file, so that a file that did not change keeps its time and is not
compiled again. Standard library only.

    python scripts/apply_patches.py --tree TREE --downloads DOWNLOADS [--pristine]

The source is the tree in the pinned archive, or the folder named by RETAKE_LLAMA_CPP_SOURCE, which
is copied and never changed.
"""

from __future__ import annotations

import argparse
import filecmp
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from fetch_llama_cpp import PATCH_DIR, SourceError, Upstream, fetch_sdist, read_upstream

SOURCE_VARIABLE = "RETAKE_LLAMA_CPP_SOURCE"
STAMP = ".retake-source"
# Not needed to build the libraries, and most of the archive's size.
LEFT_OUT = ("docs", "models", "benches", "media", "tests", "examples")
_HUNK = re.compile(r"^@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")


def read_series(patch_dir: Path) -> list[Path]:
    """Return the patches in the order of `series` (blank lines and `#` comments are skipped).

    Raises:
        SourceError: `series` names a file that is not there, or leaves a patch out.
    """
    series = patch_dir / "series"
    lines = series.read_text(encoding="utf-8").splitlines() if series.is_file() else []
    patches = [patch_dir / line.strip() for line in lines if line.strip() and line[0] != "#"]
    missing = [patch.name for patch in patches if not patch.is_file()]
    if missing:
        raise SourceError(f"cpp_patches/series names patches that do not exist: {missing}.")
    unlisted = sorted(set(patch_dir.glob("*.patch")) - set(patches))
    if unlisted:
        raise SourceError(f"cpp_patches/series does not list {[p.name for p in unlisted]}.")
    return patches


def extract_tree(archive: Path, upstream: Upstream, tree: Path) -> None:
    """Extract llama.cpp from the archive into the new folder `tree`."""
    prefix = f"{upstream.sdist.removesuffix('.tar.gz')}/{upstream.path}/"
    with tarfile.open(archive) as tar:
        members = []
        for member in tar:
            inside = member.name.removeprefix(prefix)
            # The archive carries the submodule's `.git` file, which points at nothing.
            if inside == member.name or inside.split("/")[0] in (".git", *LEFT_OUT):
                continue
            member.name = inside
            members.append(member)
        if hasattr(tarfile, "data_filter"):
            tar.extractall(tree, members, filter="data")
        else:  # before 3.10.12; the archive's digest has been checked
            tar.extractall(tree, members)


def copy_tree(source: Path, tree: Path) -> None:
    """Copy a local llama.cpp checkout into the new folder `tree`, without its git data.

    Raises:
        SourceError: `source` is not a llama.cpp tree.
    """
    if not (source / "src" / "llama-kv-cache.cpp").is_file():
        raise SourceError(f"{SOURCE_VARIABLE} is {source}, which holds no llama.cpp source tree.")
    left_out = {".git", *LEFT_OUT}
    shutil.copytree(
        source,
        tree,
        ignore=lambda folder, names: left_out & set(names) if Path(folder) == source else [],
    )


def apply_series(tree: Path, patches: list[Path]) -> None:
    """Apply the patches to `tree` in order, and prove after each that its lines are there.

    Raises:
        SourceError: git is missing, a patch does not apply, or it left no trace.
    """
    if not patches:
        return
    if shutil.which("git") is None:
        raise SourceError("git is not on the PATH; it is needed to apply cpp_patches/series.")
    # Inside another checkout `git apply` skips paths of that checkout and still exits 0. So git
    # must not look above the tree, nor follow a hook's or a script's GIT_DIR.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment["GIT_CEILING_DIRECTORIES"] = str(tree.resolve().parent)
    for patch in patches:
        command = ["git", "apply", "--whitespace=nowarn", str(patch.resolve())]
        result = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise SourceError(f"{patch.name} does not apply: {result.stderr.strip()}")
        prove_applied(tree, patch)


def prove_applied(tree: Path, patch: Path) -> None:
    """Check that every hunk's new text stands in its file, whatever `git apply` has said.

    Raises:
        SourceError: a hunk's text is not in the file.
    """
    hunks = read_hunks(patch)
    if not hunks:
        raise SourceError(f"{patch.name} holds no hunk.")
    for name, text in hunks:
        path = tree / name
        if not path.is_file() or text not in path.read_text(encoding="utf-8"):
            raise SourceError(f"{patch.name} left no trace in {name}; the tree is not patched.")


def read_hunks(patch: Path) -> list[tuple[str, str]]:
    """Return (file name in the tree, text after the hunk: context and added lines) a hunk."""
    hunks: list[tuple[str, str]] = []
    name, text, n_old, n_new = "", "", 0, 0
    for line in patch.read_text(encoding="utf-8").splitlines(keepends=True):
        if n_old > 0 or n_new > 0:
            n_old -= line[0] in "- \n"
            n_new -= line[0] in "+ \n"
            text += "" if line[0] in "-\\" else line[1:] or line
            if n_old <= 0 and n_new <= 0:
                hunks.append((name, text))
        elif line.startswith("+++ b/"):
            name = line[len("+++ b/") :].split("\t")[0].strip()
        elif match := _HUNK.match(line):
            n_old, n_new = (int(count) if count is not None else 1 for count in match.groups())
            text = ""
    return hunks


def synchronise(fresh: Path, tree: Path) -> int:
    """Make `tree` equal to `fresh`, touching only files that differ; return how many did."""
    n_changed = 0
    wanted = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
    for path in sorted(wanted):
        target = tree / path
        if target.is_file() and filecmp.cmp(fresh / path, target, shallow=False):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(fresh / path, target)  # not the archive's old time: it must be compiled
        shutil.copymode(fresh / path, target)
        n_changed += 1
    for path in [path for path in tree.rglob("*") if path.is_file()]:
        if path.relative_to(tree) not in wanted and path.name != STAMP:
            path.unlink()
            n_changed += 1
    return n_changed


def inputs_digest(upstream: Upstream, patches: list[Path]) -> str:
    """Return a digest of all that determines the tree made from the pinned archive."""
    digest = hashlib.sha256(upstream.sha256.encode())
    for path in [*patches, Path(__file__), Path(__file__).with_name("fetch_llama_cpp.py")]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def prepare_tree(tree: Path, downloads: Path, patches: list[Path], source: Path | Upstream) -> int:
    """Bring `tree` up to date with the source and the patches; return how many files changed.

    `source` is a local tree or the pin of an archive.

    Raises:
        SourceError: the source cannot be obtained, or the series does not apply.
    """
    # A local tree may be under work, so only the pinned archive is trusted to be unchanged.
    digest = "" if isinstance(source, Path) else inputs_digest(source, patches)
    stamp = tree / STAMP
    if digest and stamp.is_file() and stamp.read_text(encoding="utf-8") == digest:
        return 0
    stamp.unlink(missing_ok=True)
    tree.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=tree.parent, prefix="fresh-") as temporary:
        fresh = Path(temporary) / "llama.cpp"
        if isinstance(source, Path):
            copy_tree(source, fresh)
        else:
            extract_tree(fetch_sdist(downloads, source), source, fresh)
        apply_series(fresh, patches)
        n_changed = synchronise(fresh, tree)
    stamp.write_text(digest, encoding="utf-8")
    return n_changed


def main() -> int:
    """Prepare the tree named on the command line and say what was done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tree", type=Path, required=True, help="the folder to bring up to date")
    parser.add_argument("--downloads", type=Path, required=True, help="where the archive is kept")
    parser.add_argument("--pristine", action="store_true", help="leave the patches out")
    arguments = parser.parse_args()
    override = os.environ.get(SOURCE_VARIABLE)
    try:
        patches = [] if arguments.pristine else read_series(PATCH_DIR)
        source = Path(override).expanduser().resolve() if override else read_upstream()
        n_changed = prepare_tree(arguments.tree, arguments.downloads, patches, source)
    except SourceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"llama.cpp source: {len(patches)} patches, {n_changed} files changed", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
