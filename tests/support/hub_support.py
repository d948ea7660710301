"""A hub with two small files, and caches that no test shares with the user or another test."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub, Repo

REPO = "test/pair-GGUF"
MODEL, MMPROJ = "pair-Q4_K_M.gguf", "mmproj-pair-F16.gguf"
LARGE_BYTES = 24 << 20  # http_get hands on blocks of 10 MiB
VARIABLES = (
    "LLAMA_CACHE",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_HOME",
    "XDG_CACHE_HOME",
    "HF_TOKEN",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
)


def content(n_bytes: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(n_bytes)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and no token or hub of the user's."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    return tmp_path / "cache"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with one pair that is small, in three quants."""
    files = {
        ".gitattributes": b"text",
        MODEL: content(1000, 1),
        "pair-Q8_0.gguf": content(2000, 2),
        MMPROJ: content(500, 3),
    }
    with FakeHub({REPO: Repo(files)}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
