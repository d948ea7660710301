"""What holds for all tests."""

import os
import sys
from pathlib import Path

import pytest

TESTS = f"{Path(__file__).parent}{os.sep}"
REPOSITORY = f"{Path(__file__).parents[1]}{os.sep}"
STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"}
started = []
"""The processes that the test at hand started; what the package starts by itself is not counted."""


def pytest_addoption(parser):
    parser.addoption("--forbid-skips", action="store_true", help="A skipped test is a failure.")


def pytest_configure():
    sys.addaudithook(_note_start)


def _note_start(event, _):
    if event in STARTS and _caller_of_ours().startswith(TESTS):
        started.append(event)


def _caller_of_ours():
    """The innermost file of this repository that is being executed, '' if there is none."""
    frame = sys._getframe()
    while frame := frame.f_back:
        file = frame.f_code.co_filename
        if file.startswith(REPOSITORY) and "site-packages" not in file and file != __file__:
            return file
    return ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    """Hold every test that starts a process to its marker."""
    yield
    is_marked = item.get_closest_marker("process") is not None
    begun = bool(started)
    started.clear()
    assert is_marked or not begun, "It starts a process: mark it with pytest.mark.process."


def pytest_sessionfinish(session):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--forbid-skips") and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session", autouse=True)
def _folders_of_their_own(tmp_path_factory):
    """Keep what tests save out of the user's folders, and the user's models out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETAKE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("RETAKE_CONFIG", str(tmp_path_factory.mktemp("config") / "config.toml"))
        patch.delenv("RETAKE_MODEL", raising=False)
        patch.delenv("LLAMA_CACHE", raising=False)
        patch.setenv("HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub")))
        yield
