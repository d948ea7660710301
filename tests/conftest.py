"""What holds for all tests."""

import pytest


def pytest_addoption(parser):
    parser.addoption("--forbid-skips", action="store_true", help="A skipped test is a failure.")


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
