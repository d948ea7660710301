"""Only the patched libraries are accepted; anything else is refused in one sentence.

A process loads its libraries once, so each case runs in a process of its own.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from retake_edge.errors import NativeError
from retake_edge.llama import library as native

pytestmark = pytest.mark.process

LOAD = (
    "from retake_edge import errors\nfrom retake_edge.llama import library\n"
    "try:\n    library.load_libraries(); print('loaded')\n"
    "except errors.NativeError as error:\n    print(error)\n"
)


def load(folder: Path | None) -> subprocess.CompletedProcess[str]:
    return python(LOAD, **({native.LIBRARY_DIR_VARIABLE: str(folder)} if folder else {}))


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def foreign_library(folder: Path, source: str, *names: str) -> Path:
    """Build a shared object from C source under each name (libllama and libmtmd)."""
    (folder / "foreign.c").write_text(source)
    suffix = "dylib" if sys.platform == "darwin" else "so"
    for name in names or ("libllama", "libmtmd"):
        target = folder / f"{name}.{suffix}"
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-o", str(target), str(folder / "foreign.c")], check=True
        )
    return folder


def test_the_patched_libraries_load():
    assert load(None).stdout.strip() == "loaded"


@pytest.fixture
def other_llama_cpp(tmp_path):
    """A folder with a package `llama_cpp` as a user may have it, with a libllama of its own."""
    (tmp_path / "llama_cpp" / "lib").mkdir(parents=True)
    library = foreign_library(tmp_path / "llama_cpp" / "lib", "int theirs(void) { return 42; }\n")
    (tmp_path / "llama_cpp" / "__init__.py").write_text(
        "import ctypes, os\n"
        f"folder = os.environ.get('LLAMA_CPP_LIB_PATH', {str(library)!r})\n"
        "lib = ctypes.CDLL(next(os.path.join(folder, name) for name in os.listdir(folder)\n"
        "                       if name.startswith('libllama.')))\n"
    )
    (tmp_path / "llama_cpp" / "llama_cpp.py").write_text("raise ImportError('not ours')\n")
    return tmp_path


def test_a_llama_cpp_package_of_the_user_is_not_imported(other_llama_cpp):
    code = LOAD + "import sys; print('llama_cpp' in sys.modules)"
    said = python(code, PYTHONPATH=str(other_llama_cpp)).stdout.split()
    assert said == ["loaded", "False"]


@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_a_llama_cpp_package_of_the_user_works_beside_ours(other_llama_cpp, first):
    theirs = "import llama_cpp; assert llama_cpp.lib.theirs() == 42\n"
    code = theirs + LOAD if first == "theirs" else LOAD + theirs
    code += "assert llama_cpp.lib.theirs() == 42\n"
    code += "assert library.load_libraries()._lib.retake_abi_version() == library.ABI_VERSION\n"
    code += "assert not hasattr(library.load_libraries()._lib, 'theirs')\n"
    assert python(code, PYTHONPATH=str(other_llama_cpp)).stdout.strip() == "loaded"


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS finds libraries by their own paths")
def test_another_ggml_on_the_library_path_is_not_taken(tmp_path):
    source = "int nothing(void) { return 0; }\n"
    foreign_library(tmp_path, source, "libggml", "libggml-base", "libggml-cpu")
    assert python(LOAD, LD_LIBRARY_PATH=str(tmp_path)).stdout.strip() == "loaded"


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS finds libraries by their own paths")
def test_a_ggml_of_the_same_name_loaded_before_is_refused(tmp_path):
    for library in native.library_dir().glob("libggml*"):
        shutil.copy(library, tmp_path)
    (theirs,) = tmp_path.glob("libggml.*")
    said = python(f"import ctypes; ctypes.CDLL({str(theirs)!r})\n" + LOAD).stdout.strip()
    assert str(theirs) in said and "process of its own" in said and "\n" not in said


def test_loading_leaves_the_environment_as_it_was():
    code = "import os; before = dict(os.environ)\n" + LOAD + "print(os.environ == before)"
    assert python(code).stdout.split() == ["loaded", "True"]


def test_a_package_without_bindings_is_refused_with_the_way_to_build():
    code = "import sys; sys.modules['retake_edge._bindings'] = None\n" + LOAD
    said = python(code).stdout.strip()
    assert "build" in said and "\n" not in said


def test_an_empty_folder_is_refused_with_the_way_to_build(tmp_path):
    said = load(tmp_path).stdout.strip()
    assert str(tmp_path) in said and "build" in said and "\n" not in said


def test_a_library_that_is_no_llama_cpp_is_refused(tmp_path):
    said = load(foreign_library(tmp_path, "int nothing(void) { return 0; }\n")).stdout.strip()
    assert str(tmp_path) in said and "rebuild" in said


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("int nothing(void) { return 0; }\n", "plain llama.cpp"),
        ("int retake_abi_version(void) { return 999; }\n", "version 999"),
    ],
)
def test_a_library_without_our_symbols_or_version_is_refused(tmp_path, source, reason):
    import ctypes

    folder = foreign_library(tmp_path, source)
    library = ctypes.CDLL(str(next(folder.glob("libllama.*"))))
    with pytest.raises(NativeError, match=reason):
        native._require_abi(library, folder)
