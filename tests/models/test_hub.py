"""Models of the hub: found where llama.cpp and huggingface_hub put them, fetched whole or not."""

import shutil
import threading
from pathlib import Path

import huggingface_hub
import pytest
from fake_hub import COMMIT, Fault, Repo, sha256
from hub_support import LARGE_BYTES, MMPROJ, MODEL, REPO, VARIABLES, cache, content, hub

from retake_edge.errors import ConfigError, ModelError
from retake_edge.files import file_sha256
from retake_edge.models import hub as hubs
from retake_edge.models import manifest, resolve
from retake_edge.models.hub import transfer
from retake_edge.models.hub.cache import cached_repos

__all__ = ["cache", "hub"]  # fixtures

REF = hubs.HubRef(REPO)


def files_below(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file() or path.is_symlink())


def partial_files(folder):
    return [name for name in files_below(folder) if "incomplete" in name]


# --- where files lie ---------------------------------------------------------------------------


@pytest.mark.parametrize("first", range(6))
def test_the_cache_folder_is_told_by_the_same_variables_as_in_llama_cpp(
    first, tmp_path, monkeypatch
):
    places = ["", "", "", "hub", "huggingface/hub"]
    for name in VARIABLES[:5]:
        monkeypatch.delenv(name, raising=False)
    for name in VARIABLES[first:5]:
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    expected = tmp_path / "home/.cache/huggingface/hub"
    if first < 5:
        expected = tmp_path / VARIABLES[first] / places[first]
    assert hubs.cache_dir() == expected


def test_what_was_pulled_is_found_by_huggingface_hub(hub, cache):
    pair, n_bytes = hubs.pull(REF)
    assert n_bytes == 1500
    for path in pair.files:
        found = huggingface_hub.try_to_load_from_cache(REPO, path.name, cache_dir=cache)
        assert found == str(path)
        assert path.read_bytes() == hub.repos[REPO].files[path.name]
        assert path.resolve().name == sha256(path.read_bytes())
    assert [path.name for path in pair.files] == [MODEL, MMPROJ]
    assert (cache / "models--test--pair-GGUF/refs/main").read_text() == COMMIT
    scanned = huggingface_hub.scan_cache_dir(cache)
    assert not scanned.warnings
    assert (scanned.size_on_disk, [repo.repo_id for repo in scanned.repos]) == (1500, [REPO])


def test_what_huggingface_hub_downloaded_is_found_and_not_fetched_again(hub, cache):
    for name in (MODEL, MMPROJ):
        huggingface_hub.hf_hub_download(REPO, name, cache_dir=cache, endpoint=hub.url)
    asked, served = len(hub.asked), len(hub.served)
    pair = hubs.obtain(REF)
    assert [path.name for path in pair.files] == [MODEL, MMPROJ]
    assert (len(hub.asked), len(hub.served)) == (asked, served)
    assert hubs.pull(REF) == (pair, 0)
    assert len(hub.served) == served


def test_a_pair_that_is_not_all_there_is_not_found(hub, cache):
    pair, _ = hubs.pull(REF)
    assert hubs.find_pair(REF) == pair
    assert hubs.find_pair(hubs.HubRef(REPO, "Q8_0")) is None
    pair.mmproj.unlink()
    assert hubs.find_pair(REF) is None
    assert hubs.find_pair(REF, with_mmproj=False) == hubs.GgufPair(pair.parts, None)
    shutil.rmtree(cache / "models--test--pair-GGUF/blobs")
    assert hubs.find_pair(REF, with_mmproj=False) is None


def test_a_pair_of_an_older_commit_is_still_found_after_another_quant_was_pulled(hub):
    old, _ = hubs.pull(REF)
    hub.repos[REPO].commit = "f" * 40
    del hub.repos[REPO].files[MODEL]
    new, _ = hubs.pull(hubs.HubRef(REPO, "Q8_0"))
    assert new.parts[0].parent.name == "f" * 40
    assert hubs.find_pair(hubs.HubRef(REPO, "Q4_K_M")) == old
    assert hubs.find_pair(REF) == new
    assert hub.n_bytes_of(MMPROJ) == 1


def test_on_a_disk_without_links_files_lie_in_the_snapshot(hub, cache, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError("no links here")

    monkeypatch.setattr("pathlib.Path.symlink_to", refuse)
    pair, _ = hubs.pull(REF)
    assert not pair.parts[0].is_symlink()
    assert hubs.obtain(REF, offline=True) == pair
    assert hubs.pull(REF) == (pair, 0)
    pair.parts[0].write_bytes(b"x" * 1000)
    assert hubs.pull(REF) == (pair, 1000)


def test_all_parts_of_a_split_model_are_pulled(hub):
    parts = {f"Q8_0/m-Q8_0-0000{i}-of-00002.gguf": content(100, i) for i in (1, 2)}
    hub.repos["test/split"] = Repo({**parts, "mmproj-F16.gguf": content(50)})
    pair, _ = hubs.pull(hubs.HubRef("test/split", "Q8_0"))
    assert [path.read_bytes() for path in pair.parts] == list(parts.values())
    pair.parts[1].unlink()
    assert hubs.find_pair(hubs.HubRef("test/split")) is None
    del hub.repos["test/split"].files["Q8_0/m-Q8_0-00002-of-00002.gguf"]
    with pytest.raises(hubs.HubError, match=r"lacks Q8_0/m-Q8_0-00002-of-00002.gguf"):
        hubs.pull(hubs.HubRef("test/split"))


# --- network and none --------------------------------------------------------------------------


def test_files_that_are_there_need_no_network(hub):
    pair, _ = hubs.pull(REF)
    asked, served = len(hub.asked), len(hub.served)
    assert hubs.obtain(REF) == pair
    assert hubs.obtain(REF, offline=True) == pair
    assert (len(hub.asked), len(hub.served)) == (asked, served)


def test_offline_nothing_is_asked_for(hub, monkeypatch):
    with pytest.raises(hubs.HubError, match="retake-edge pull test/pair-GGUF"):
        hubs.obtain(REF, offline=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(hubs.HubError, match="retake-edge pull test/pair-GGUF"):
        hubs.obtain(REF)
    with pytest.raises(hubs.HubError, match="HF_HUB_OFFLINE"):
        hubs.pull(REF)
    assert not hub.asked


def test_a_missing_projector_alone_is_fetched(hub):
    pair, _ = hubs.pull(REF)
    pair.mmproj.resolve().unlink()
    assert hubs.obtain(REF) == pair
    assert (hub.n_bytes_of(MODEL), hub.n_bytes_of(MMPROJ)) == (1, 2)


def test_the_token_goes_to_the_hub_and_to_nobody_else(hub, monkeypatch):
    hub.token, hub.repos[REPO].hidden = "hf_secret", True
    with pytest.raises(hubs.HubError, match="needs HF_TOKEN to be set"):
        hubs.pull(REF)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.delenv("HF_HUB_DISABLE_IMPLICIT_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    hubs.pull(REF)
    assert hub.served
    assert not hub.leaked
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(hubs.HubError, match="check HF_TOKEN"):
        hubs.pull(REF)


# --- hashes ------------------------------------------------------------------------------------


def damage(path):
    """Change one byte of what a link leads to."""
    blob = path.resolve()
    data = bytearray(blob.read_bytes())
    data[7] ^= 1
    blob.write_bytes(data)


def test_a_damaged_file_in_the_cache_is_fetched_again_or_refused_offline(hub):
    pair, _ = hubs.pull(REF)
    good = pair.parts[0].read_bytes()
    damage(pair.parts[0])
    with pytest.raises(hubs.HubError, match=r"is damaged .*retake-edge pull test/pair-GGUF"):
        hubs.obtain(REF, offline=True)
    with pytest.warns(hubs.HubWarning, match="fetched again"):
        assert hubs.obtain(REF) == pair
    assert pair.parts[0].read_bytes() == good
    assert hub.n_bytes_of(MMPROJ) == 1
    damage(pair.mmproj)
    assert hubs.pull(REF) == (pair, 500)


def test_every_file_of_a_pair_is_hashed_when_it_is_used(hub):
    hubs.pull(REF)
    hashed = []

    def counted(path):
        hashed.append(path.name)
        return file_sha256(path)

    hubs.obtain(REF, sha256=counted)
    assert hashed == [MODEL, MMPROJ]


def test_wrong_bytes_are_refused_and_leave_nothing(hub, cache):
    hub.faults[MODEL] = [Fault(flip=True)]
    with pytest.raises(hubs.HubError, match="its SHA-256 differs"):
        hubs.pull(REF)
    assert not [name for name in files_below(cache) if name.endswith((".gguf", ".incomplete"))]
    assert sha256(hub.repos[REPO].files[MODEL]) not in files_below(cache)
    assert hubs.pull(REF)[1] == 1500


def test_what_an_earlier_attempt_left_wrong_is_thrown_away(hub, cache):
    blobs = cache / "models--test--pair-GGUF/blobs"
    blobs.mkdir(parents=True)
    part = blobs / f"{sha256(hub.repos[REPO].files[MODEL])}.incomplete"
    for left in (bytes(300), bytes(1000), bytes(5000)):
        part.write_bytes(left)
        pair, _ = hubs.pull(REF)
        assert pair.parts[0].read_bytes() == hub.repos[REPO].files[MODEL]
        assert not partial_files(cache)
        pair.parts[0].resolve().unlink()


def test_a_file_of_which_the_hub_has_no_hash_is_refused(hub):
    hub.repos[REPO].lfs = False
    with pytest.raises(hubs.HubError, match=r"no SHA-256 of pair-Q4_K_M.gguf"):
        hubs.pull(REF)


# --- broken transfers --------------------------------------------------------------------------


@pytest.fixture
def large(hub):
    """The model of three blocks."""
    hub.repos[REPO].files[MODEL] = content(LARGE_BYTES)
    return hub


def test_a_cut_connection_is_taken_up_again_where_it_broke(large, cache):
    large.faults[MODEL] = [Fault(cut=LARGE_BYTES - 100)]
    pair, n_bytes = hubs.pull(REF)
    assert n_bytes == LARGE_BYTES + 500
    assert file_sha256(pair.parts[0]) == sha256(large.repos[REPO].files[MODEL])
    ranges = [wanted for path, wanted in large.served if path == MODEL]
    assert ranges == [None, f"bytes={20 << 20}-"]
    assert not partial_files(cache)


def test_a_server_without_ranges_starts_over(large):
    large.faults[MODEL] = [Fault(cut=LARGE_BYTES - 100), Fault(no_range=True)]
    seen = []
    pair, _ = hubs.pull(REF, progress=lambda *told: seen.append(told))
    assert file_sha256(pair.parts[0]) == sha256(large.repos[REPO].files[MODEL])
    assert (f"pull {MODEL} (MiB)", 24, 24) in seen


def test_a_busy_hub_is_asked_again(hub, monkeypatch):
    monkeypatch.setattr(transfer, "_WAITS_S", (0.0, 0.0, 0.0))
    hub.api_faults += [500, 503]
    hub.faults[MODEL] = [Fault(status=500), Fault(status=502)]
    assert hubs.pull(REF)[1] == 1500
    hub.api_faults += [503] * 4
    with pytest.raises(hubs.HubError, match="answers 503 for test/pair-GGUF; try again later"):
        hubs.pull(REF)


def test_a_server_that_is_slow_to_start_is_asked_again(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.faults[MODEL] = [Fault(hold=threading.Event())]
    assert hubs.pull(REF)[1] == 1500
    assert hub.n_bytes_of(MODEL) == 2


def test_too_small_a_disk_is_seen_before_anything_is_fetched(hub, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=100)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(hubs.HubError, match=r"needs 1 MB more, but the disk of .* make room"):
        hubs.pull(REF)
    assert not hub.served


def test_a_cache_folder_that_cannot_be_written_is_told(hub, cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(hubs.HubError, match=rf"cannot be kept at {cache}.* set HF_HUB_CACHE"):
        hubs.pull(REF)


# --- what the hub says no to -------------------------------------------------------------------


def test_a_missing_repository_and_a_gated_one_are_told_apart(hub):
    with pytest.raises(hubs.HubError, match="There is no repository test/none at http"):
        hubs.pull(hubs.HubRef("test/none"))
    hub.repos[REPO].gated = True
    with pytest.raises(hubs.HubError, match=f"is gated; accept its terms at {hub.url}/{REPO}"):
        hubs.pull(REF)


def test_a_missing_quant_is_told_with_those_there_are(hub):
    with pytest.raises(hubs.HubError, match=r"no Q5_K_M model in .*; there is Q4_K_M, Q8_0"):
        hubs.pull(hubs.HubRef(REPO, "Q5_K_M"))
    hub.repos["test/text"] = Repo({"README.md": b""})
    with pytest.raises(hubs.HubError, match="no GGUF model in test/text; there is none"):
        hubs.pull(hubs.HubRef("test/text"))


def test_a_repository_without_a_projector_is_told_with_the_quants(hub):
    del hub.repos[REPO].files[MMPROJ]
    with pytest.raises(hubs.HubError, match=r"no mmproj.*quants: Q4_K_M, Q8_0.*--mmproj"):
        hubs.pull(REF)
    pair, _ = hubs.pull(REF, with_mmproj=False)
    assert pair.files == pair.parts


def test_a_hub_that_cannot_be_reached_or_is_none_is_told(hub, monkeypatch):
    hub.api_faults.append(200)
    with pytest.raises(hubs.HubError, match=f"{hub.url} does not answer as a hub does"):
        hubs.pull(REF)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/")
    with pytest.raises(hubs.HubError, match=r"127\.0\.0\.1:9 cannot be reached .*HF_ENDPOINT"):
        hubs.pull(REF)


def test_paths_that_lead_out_of_the_snapshot_are_left_alone(hub, cache, tmp_path):
    evil = content(64)
    hub.repos[REPO].files = {"../../../../evil-Q4_K_M.gguf": evil, **hub.repos[REPO].files}
    pair, _ = hubs.pull(REF)
    assert pair.parts[0].name == MODEL
    assert "evil-Q4_K_M.gguf" not in files_below(tmp_path)


# --- by name -----------------------------------------------------------------------------------


@pytest.fixture
def named(hub, tmp_path, monkeypatch):
    """A manifest of the pair."""
    text = f'description = "A pair."\n\n[hub]\nrepo = "{REPO}"\nquant = "Q4_K_M"\n'
    (tmp_path / "pair.toml").write_text(text)
    monkeypatch.setenv(manifest.MODELS_DIR_VARIABLE, str(tmp_path))
    return hub


def test_a_named_model_is_found_once_it_was_pulled_and_never_before(named):
    with pytest.raises(ModelError, match="pair is not downloaded; run `retake-edge pull pair`"):
        resolve.resolve_model("pair")
    assert not named.asked
    pair, _ = hubs.pull(manifest.hub_ref("pair"))
    asked = len(named.asked)
    assert resolve.resolve_model("pair") == manifest.ModelFiles(*pair.files)
    assert len(named.asked) == asked
    damage(pair.mmproj)
    with pytest.raises(ModelError, match=r"is damaged .* run `retake-edge pull pair`"):
        resolve.resolve_model("pair")
    with pytest.raises(ConfigError, match="--mmproj"):
        resolve.resolve_model("pair", pair.mmproj)


def test_a_damaged_manifest_of_the_hub_is_refused(named, tmp_path):
    (tmp_path / "pair.toml").write_text('[hub]\nrepo = "a/b"\n')
    with pytest.raises(ModelError, match="damaged"):
        resolve.resolve_model("pair")


def test_every_manifest_of_the_hub_names_a_repository_and_a_quant():
    names = [name for name in manifest.model_names() if name not in manifest.bundled_names()]
    assert "tiny" in manifest.bundled_names()
    assert names
    for name in names:
        ref = manifest.hub_ref(name)
        assert hubs.parse_ref(str(ref)) == ref
        assert manifest.read_manifest(name)["description"]


def test_cached_repositories_are_listed_by_name(hub):
    assert cached_repos() == []
    hubs.pull(REF)
    assert cached_repos() == [REPO]


def test_the_docs_list_every_model_with_a_name():
    docs = (Path(__file__).parents[2] / "docs/pull.md").read_text(encoding="utf-8")
    table = docs.partition("<!-- named -->")[2].partition("<!-- /named -->")[0]
    listed = [
        tuple(cell.strip() for cell in row.split("|")[1:4]) for row in table.split("\n")[3:-1]
    ]
    refs = {name: manifest.hub_ref(name) for name in manifest.model_names()}
    assert listed == [(f"`{name}`", ref.repo, ref.quant) for name, ref in refs.items() if ref]
