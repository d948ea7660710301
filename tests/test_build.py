"""The build's source step: pin, download check, patch series, proof, synchronisation."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
import show_percentage
from apply_patches import (
    LEFT_OUT,
    STAMP,
    apply_series,
    copy_tree,
    extract_tree,
    prepare_tree,
    prove_applied,
    read_hunks,
    read_series,
)
from fetch_llama_cpp import PATCH_DIR, SourceError, Upstream, fetch_sdist, read_upstream, sha256_of
from take_bindings import FILES, REWRITES, read_archive, rewrite, take_bindings

DOWNLOADS = PATCH_DIR.parent / "build" / "downloads"
HOOKED = Path("src/llama-kv-cache.cpp")
LINE = "// a line that only this test adds\n"


@pytest.fixture(scope="session")
def sdist() -> Path:
    return fetch_sdist(DOWNLOADS, read_upstream())


@pytest.fixture(scope="session")
def pristine(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("pristine") / "llama.cpp"
    extract_tree(sdist, read_upstream(), tree)
    return tree


@pytest.fixture
def small_tree(pristine: Path, tmp_path: Path) -> Path:
    """A tree of two of llama.cpp's files: enough for patches made here."""
    tree = tmp_path / "tree"
    copy_files(pristine, tree, [str(HOOKED), "include/llama.h"])
    return tree


@pytest.fixture
def small_pin(small_tree: Path, tmp_path: Path) -> Upstream:
    """The pin of an archive laid out like the real one, in tmp_path/index, with that small tree."""
    real = read_upstream()
    folder = tmp_path / real.sdist.removesuffix(".tar.gz")
    shutil.copytree(small_tree, folder / real.path)
    (folder / real.path / ".git").write_text("gitdir: nowhere\n", encoding="utf-8")
    (folder / "PKG-INFO").write_text(
        f"Metadata-Version: 2.2\nName: llama_cpp_python\nVersion: {real.version}\n",
        encoding="utf-8",
    )
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["scikit-build-core"]\n'
        'build-backend = "scikit_build_core.build"\n'
        f'[project]\nname = "llama_cpp_python"\nversion = "{real.version}"\n'
        "[tool.scikit-build]\nwheel.cmake = false\n",
        encoding="utf-8",
    )
    archive = tmp_path / "index" / real.sdist
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    return dataclasses.replace(real, sha256=sha256_of(archive))


def copy_files(source: Path, target: Path, names: Iterable[str]) -> None:
    for name in names:
        if (source / name).is_file():  # not one that a patch adds
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)


def write_patch(path: Path, tree: Path, name: Path, line: str = LINE) -> Path:
    """Write a patch that puts `line` before the first line of `name`."""
    first = (tree / name).read_text(encoding="utf-8").splitlines(keepends=True)[0]
    path.write_text(
        f"Why: a test.\n---\n--- a/{name}\n+++ b/{name}\n@@ -1 +1,2 @@\n+{line} {first}--\n2.0\n",
        encoding="utf-8",
    )
    return path


def modification_times(tree: Path) -> dict[Path, int]:
    files = [path for path in tree.rglob("*") if path.is_file() and path.name != STAMP]
    return {path: path.stat().st_mtime_ns for path in files}


def test_the_series_applies_to_a_fresh_tree_and_every_hunk_is_found_in_it(
    pristine: Path, tmp_path: Path
) -> None:
    patches = read_series(PATCH_DIR)
    changed = {name for patch in patches for name, _ in read_hunks(patch)}
    assert "src/CMakeLists.txt" in changed, "without it our sources are not in libllama"
    copy_files(pristine, tmp_path / "fresh", changed)
    apply_series(tmp_path / "fresh", patches)  # proves each patch right after it
    for name in changed:
        before = pristine / name
        after = (tmp_path / "fresh" / name).read_bytes()
        assert not before.is_file() or before.read_bytes() != after


def test_every_patch_of_the_series_is_refused_as_proof_by_an_unpatched_tree(
    pristine: Path,
) -> None:
    for patch in read_series(PATCH_DIR):
        with pytest.raises(SourceError, match="left no trace"):
            prove_applied(pristine, patch)


def test_the_extracted_tree_has_no_stray_git_file_and_is_complete(pristine: Path) -> None:
    assert not (pristine / ".git").exists()
    assert not any((pristine / name).exists() for name in LEFT_OUT)
    for name in ("CMakeLists.txt", "ggml/CMakeLists.txt", "tools/mtmd/mtmd.cpp", str(HOOKED)):
        assert (pristine / name).is_file()


@pytest.mark.process
def test_patches_apply_inside_another_checkout_and_under_its_git_variables(
    small_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There plain `git apply` exits 0 and changes nothing.
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    patch = write_patch(tmp_path / "kv-cache-add-line.patch", small_tree, HOOKED)
    apply_series(small_tree, [patch])
    assert (small_tree / HOOKED).read_text(encoding="utf-8").startswith(LINE)


def test_a_patch_that_does_not_apply_is_refused_by_name(small_tree: Path, tmp_path: Path) -> None:
    patch = write_patch(tmp_path / "kv-cache-add-line.patch", small_tree, HOOKED)
    (small_tree / HOOKED).write_text("something else\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"kv-cache-add-line\.patch does not apply"):
        apply_series(small_tree, [patch])


def test_two_patches_may_touch_the_same_lines(small_tree: Path, tmp_path: Path) -> None:
    first = write_patch(tmp_path / "first.patch", small_tree, HOOKED)
    apply_series(small_tree, [first])
    second = write_patch(tmp_path / "second.patch", small_tree, HOOKED, "// another line\n")
    apply_series(small_tree, [second])
    assert (small_tree / HOOKED).read_text(encoding="utf-8").startswith("// another line\n" + LINE)


def test_a_series_that_names_a_missing_patch_or_leaves_one_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "series").write_text("# order matters\n\nmissing.patch\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"missing\.patch"):
        read_series(tmp_path)
    (tmp_path / "series").write_text("# none yet\n", encoding="utf-8")
    assert read_series(tmp_path) == []
    (tmp_path / "left-out.patch").write_text("", encoding="utf-8")
    with pytest.raises(SourceError, match=r"left-out\.patch"):
        read_series(tmp_path)


def test_preparing_again_touches_nothing_and_a_changed_patch_only_its_file(
    small_tree: Path, tmp_path: Path
) -> None:
    source, tree = small_tree, tmp_path / "build" / "llama.cpp"
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    patch = write_patch(tmp_path / "kv-cache-add-line.patch", source, HOOKED)
    assert prepare_tree(tree, DOWNLOADS, [patch], source) == 2
    times = modification_times(tree)

    assert prepare_tree(tree, DOWNLOADS, [patch], source) == 0
    assert modification_times(tree) == times

    write_patch(patch, source, HOOKED, "// changed\n")
    assert prepare_tree(tree, DOWNLOADS, [patch], source) == 1
    assert (tree / HOOKED).read_text(encoding="utf-8").startswith("// changed\n")
    header = tree / "include" / "llama.h"
    assert header.stat().st_mtime_ns == times[header]

    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before


def test_a_file_that_the_new_series_no_longer_adds_is_removed(
    small_tree: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "build" / "llama.cpp"
    adding = tmp_path / "add-file.patch"
    adding.write_text(
        "--- /dev/null\n+++ b/src/new.cpp\n@@ -0,0 +1 @@\n+int added;\n", encoding="utf-8"
    )
    prepare_tree(tree, DOWNLOADS, [adding], small_tree)
    assert (tree / "src" / "new.cpp").read_text(encoding="utf-8") == "int added;\n"
    assert prepare_tree(tree, DOWNLOADS, [], small_tree) == 1
    assert not (tree / "src" / "new.cpp").exists()


def test_the_pinned_tree_is_made_once_and_kept_while_its_inputs_stay(
    small_pin: Upstream, tmp_path: Path
) -> None:
    tree, downloads = tmp_path / "llama.cpp", tmp_path / "index"
    assert prepare_tree(tree, downloads, [], small_pin) == 2  # without the stray .git
    header = tree / "include" / "llama.h"
    header.unlink()  # seen only if the tree is made again
    assert prepare_tree(tree, downloads, [], small_pin) == 0
    patch = write_patch(tmp_path / "kv-cache-add-line.patch", tree, HOOKED)
    assert prepare_tree(tree, downloads, [patch], small_pin) == 2
    assert header.is_file()


def test_a_folder_that_is_no_llama_cpp_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no llama\.cpp source tree"):
        copy_tree(tmp_path, tmp_path / "copy")


def offline_pip(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let pip see `folder` and nothing else."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def test_an_archive_with_another_digest_is_refused_and_not_kept(
    small_pin: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline_pip(monkeypatch, tmp_path / "index")
    other_pin = dataclasses.replace(small_pin, sha256="0" * 64)
    with pytest.raises(SourceError, match=small_pin.sha256):
        fetch_sdist(tmp_path / "downloads", other_pin)
    assert list((tmp_path / "downloads").iterdir()) == []


def test_a_damaged_archive_is_fetched_again(
    small_pin: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline_pip(monkeypatch, tmp_path / "index")
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / small_pin.sdist).write_bytes(b"half a download")
    assert sha256_of(fetch_sdist(tmp_path / "downloads", small_pin)) == small_pin.sha256


def test_a_failed_download_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline_pip(monkeypatch, tmp_path)
    with pytest.raises(SourceError, match="RETAKE_LLAMA_CPP_SOURCE"):
        fetch_sdist(tmp_path, read_upstream())


# --- the bindings -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def bindings(sdist: Path) -> dict[str, str]:
    return read_archive(sdist, read_upstream())


def test_the_bindings_are_taken_from_the_pinned_archive_with_their_licence(
    sdist: Path, tmp_path: Path
) -> None:
    take_bindings(tmp_path / "out", sdist.parent, None, read_upstream())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*FILES, "__init__.py"}
    for name in FILES:
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert "import llama_cpp" not in text.replace("_bindings import llama_cpp", "")
        assert "from llama_cpp" not in text and "LLAMA_CPP_LIB_PATH" not in text
    assert "Copyright" in (tmp_path / "out" / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", REWRITES)
def test_a_line_that_upstream_has_changed_is_named(bindings: dict[str, str], name: str) -> None:
    for old, _ in REWRITES[name]:
        with pytest.raises(SourceError, match=re.escape(repr(old))):
            rewrite(name, bindings[name].replace(old, "# gone"))


def test_bindings_that_need_another_package_are_refused(bindings: dict[str, str]) -> None:
    with pytest.raises(SourceError, match="diskcache"):
        rewrite("mtmd_cpp.py", bindings["mtmd_cpp.py"] + "\nimport diskcache.core\n")


def test_a_local_llama_cpp_brings_the_bindings_around_it_and_else_the_pinned_ones(
    sdist: Path, bindings: dict[str, str], tmp_path: Path
) -> None:
    bare = tmp_path / "elsewhere" / "llama.cpp"
    around = tmp_path / "python" / "vendor" / "llama.cpp"
    for name, source in FILES.items():
        (tmp_path / "python" / source).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "python" / source).write_text(bindings[name] + "\n# a local change\n", "utf-8")
    nowhere = tmp_path / "no downloads"  # the second one needs none
    for tree, downloads, is_local in ((bare, sdist.parent, False), (around, nowhere, True)):
        take_bindings(tmp_path / "out", downloads, tree, read_upstream())
        text = (tmp_path / "out" / "llama_cpp.py").read_text(encoding="utf-8")
        assert text.endswith("# a local change\n") == is_local
    assert not nowhere.exists()


def test_an_archive_without_bindings_is_refused(small_pin: Upstream, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no LICENSE\.md"):
        take_bindings(tmp_path / "out", tmp_path / "index", None, small_pin)
    assert not (tmp_path / "out").exists()


def test_installing_brings_no_other_llama_cpp_along() -> None:
    project = (PATCH_DIR.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert "llama" not in project.partition("dependencies = [")[2].partition("]")[0]


def test_a_build_shows_its_percentage_and_its_output_only_if_it_fails(
    capfd: pytest.CaptureFixture[str],
) -> None:
    steps = 'for i in 1 2 3 4; do echo "[$i/4] compiling"; done; exit {}'
    assert show_percentage.main(["sh", "-c", steps.format(0)]) == 0
    assert capfd.readouterr().out.split("\n")[:2] == ["building 25 %", "building 50 %"]
    assert show_percentage.main(["sh", "-c", steps.format(3)]) == 3
    assert "[4/4] compiling" in capfd.readouterr().err
    assert show_percentage.percent_of("[ 37%] Building CXX object") == 37
    assert show_percentage.percent_of("Collecting numpy") is None
