"""Only the patched libraries are accepted; anything else is refused in one sentence.

A process loads its libraries once, so each case runs in a process of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from retake_edge import native


def load(folder: Path | None) -> subprocess.CompletedProcess[str]:
    code = (
        "from retake_edge import errors, native\n"
        "try:\n    native.load_libraries(); print('loaded')\n"
        "except errors.NativeError as error:\n    print(error)\n"
    )
    environment = dict(os.environ)
    if folder is not None:
        environment[native.LIBRARY_DIR_VARIABLE] = str(folder)
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )


def foreign_library(folder: Path, source: str) -> Path:
    """Build a shared object named libllama and libmtmd from C source."""
    (folder / "foreign.c").write_text(source)
    suffix = "dylib" if sys.platform == "darwin" else "so"
    for name in ("libllama", "libmtmd"):
        target = folder / f"{name}.{suffix}"
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-o", str(target), str(folder / "foreign.c")], check=True
        )
    return folder


def test_the_patched_libraries_load():
    assert load(None).stdout.strip() == "loaded"


def test_an_empty_folder_is_refused_with_the_way_to_build(tmp_path):
    said = load(tmp_path).stdout.strip()
    assert str(tmp_path) in said and "build" in said and "\n" not in said


def test_a_library_that_is_no_llama_cpp_is_refused(tmp_path):
    said = load(foreign_library(tmp_path, "int nothing(void) { return 0; }\n")).stdout.strip()
    assert str(tmp_path) in said and "rebuild" in said


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("int nothing(void) { return 0; }\n", "without PivotKV"),
        ("int retake_abi_version(void) { return 999; }\n", "version 999"),
    ],
)
def test_a_library_without_our_symbols_or_version_is_refused(tmp_path, source, reason):
    import ctypes

    folder = foreign_library(tmp_path, source)
    library = ctypes.CDLL(str(next(folder.glob("libllama.*"))))
    with pytest.raises(native.NativeError, match=reason):
        native._require_abi(library, folder)
