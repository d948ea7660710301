"""What holds for all tests."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _a_cache_folder_of_their_own(tmp_path_factory):
    """Keep what tests save out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETAKE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
