"""Which model answers where none is named, and what is said where none can."""

import json

import pytest
from fake_hub import Repo
from hub_support import cache, hub
from session_support import MODEL, QUESTION, VIDEO, run

import retake_edge
from retake_edge.bench.scenes.render import write_video
from retake_edge.bench.scenes.scene import make_scene
from retake_edge.catalog import catalog, choice, needs, table
from retake_edge.catalog.catalog import ModelEntry
from retake_edge.catalog.choice import BEST, SCENE, NoModelError, choose_model
from retake_edge.catalog.needs import Needs
from retake_edge.catalog.user_config import default_model
from retake_edge.config import RetakeConfig
from retake_edge.errors import ConfigError, ModelError
from retake_edge.models.manifest import ModelManifest, models_dir
from retake_edge.plan.seconds import Work
from retake_edge.session.store.folder import SessionStore
from retake_edge.video.read import probe_video

__all__ = ["cache", "hub"]  # fixtures

TINY = models_dir() / "tiny"
PAIR = {
    "tiny-Q8_0.gguf": (TINY / "tiny-lm-q8_0.gguf").read_bytes(),
    "mmproj-tiny-F16.gguf": (TINY / "tiny-mmproj-f16.gguf").read_bytes(),
}
PLAIN = ["--max-frames", "8", "-t", "1", "-n", "4"]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A rendered video under a name that tells nothing."""
    return write_video(make_scene(0, 4.0), tmp_path_factory.mktemp("v") / "talk.mp4", 4.0, 112)


@pytest.fixture
def two_pulled(hub):
    """A hub's models in the cache: one of a named repository, one of another."""
    hub.repos["test/other-GGUF"] = Repo(dict(PAIR))
    hub.repos["Qwen/Qwen3-VL-2B-Instruct-GGUF"] = Repo(
        {name.replace("Q8_0", "Q4_K_M"): data for name, data in PAIR.items()}
    )
    for name in ("test/other-GGUF", "qwen3-vl-2b"):
        code, _, err = run("pull", name)
        assert code == 0, err
    return hub


# -- the mark ----------------------------------------------------------------------------------


def test_a_rendered_video_is_known_by_its_metadata_wherever_it_lies(scene):
    assert probe_video(scene).is_scene
    assert probe_video(TINY / "demo.mp4").is_scene
    assert not probe_video(VIDEO).is_scene


@pytest.mark.process
@pytest.mark.ffmpeg
@pytest.mark.parametrize("suffix", ["mkv", "mov", "avi"])
def test_the_mark_survives_another_container(scene, tmp_path, suffix):
    import subprocess

    copy = tmp_path / f"copy.{suffix}"
    subprocess.run(["ffmpeg", "-v", "error", "-i", scene, "-c", "copy", copy], check=True)
    assert probe_video(copy).is_scene


# -- the choice --------------------------------------------------------------------------------


@pytest.mark.process
def test_the_bundled_model_answers_for_a_rendered_video_and_for_no_other(scene, tmp_path):
    where = ["--cache-dir", str(tmp_path)]
    code, out, err = run("ask", str(scene), QUESTION, *PLAIN, *where, "--json")
    assert code == 0, err
    told = json.loads(out)["model"]
    assert (told["name"], told["chosen_by"]) == ("tiny", SCENE)
    code, out, err = run("ask", str(VIDEO), QUESTION, *PLAIN, *where)
    assert (code, out) == (ModelError.exit_code, "")
    assert "error: No model for real videos is downloaded yet." in err


def test_without_a_model_a_table_for_this_machine_says_which_to_pull(cache):
    with pytest.raises(NoModelError) as raised:
        choose_model(VIDEO, RetakeConfig())
    text = str(raised.value)
    names = [entry.name for entry in raised.value.entries if entry.source == "hub"]
    lines = [line.split() for line in text.splitlines() if line.startswith("  ")]
    assert [words[0] for words in lines] == ["model", *names, "retake-edge"]
    (best,) = (entry.name for entry in raised.value.entries if entry.is_recommended)
    assert lines[-1] == ["retake-edge", "pull", best]
    assert text.count("recommended") == 1 and "tiny" not in text and "?" not in text
    assert all(entry.n_bytes and entry.memory_bytes and entry.hour_s for entry in _real(raised))


def _real(raised):
    return [entry for entry in raised.value.entries if entry.source == "hub"]


@pytest.mark.process
def test_of_those_downloaded_the_best_that_fits_is_taken(two_pulled, monkeypatch):
    chosen = choose_model(VIDEO, RetakeConfig())
    assert chosen.why == BEST and "Qwen3-VL-2B" in str(chosen.source.model)
    monkeypatch.setattr(choice, "_fits", lambda entry, *_: entry.name != "qwen3-vl-2b")
    assert "test--other" in str(choose_model(VIDEO, RetakeConfig()).source.model)
    monkeypatch.setattr(choice, "_fits", lambda *_: False)
    with pytest.raises(NoModelError, match=r"qwen3-vl-2b, test/other-GGUF:Q8_0"):
        choose_model(VIDEO, RetakeConfig())


@pytest.mark.process
def test_a_downloaded_model_goes_before_the_bundled_one(two_pulled, scene):
    assert choose_model(scene, RetakeConfig()).why == BEST


@pytest.mark.process
def test_a_damaged_download_is_passed_over(hub, scene):
    assert run("pull", "test/pair-GGUF")[0] == 0  # random bytes, no GGUF
    assert choose_model(scene, RetakeConfig()).why == SCENE


@pytest.mark.process
def test_the_variable_goes_before_the_file_and_the_file_before_the_rest(
    two_pulled, tmp_path, monkeypatch
):
    file = tmp_path / "config.toml"
    file.write_text('model = "test/other-GGUF"\n', encoding="utf-8")
    monkeypatch.setenv("RETAKE_CONFIG", str(file))
    chosen = choose_model(VIDEO, RetakeConfig())
    assert "test--other" in str(chosen.source.model) and chosen.why == str(file)
    monkeypatch.setenv("RETAKE_MODEL", "TINY")
    chosen = choose_model(VIDEO, RetakeConfig())
    assert isinstance(chosen.source, ModelManifest)
    assert (chosen.source.name, chosen.why) == ("tiny", "RETAKE_MODEL")
    monkeypatch.setenv("RETAKE_MODEL", "tinny")
    with pytest.raises(ModelError, match="did you mean tiny"):
        choose_model(VIDEO, RetakeConfig())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model = 3\n", "is 3; write it like"),
        ('modle = "tiny"\n', "sets 'modle', which is no setting"),
        ("model = \n", "Cannot read"),
        ('model = " "\n', "write it like"),
    ],
)
def test_a_wrong_configuration_is_told(tmp_path, monkeypatch, text, told):
    (tmp_path / "config.toml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("RETAKE_CONFIG", str(tmp_path / "config.toml"))
    with pytest.raises(ConfigError, match=told):
        default_model()


def test_python_chooses_as_the_command_line_does(scene, tmp_path):
    with retake_edge.open_video(scene, max_frames=8, cache_dir=tmp_path) as session:
        answer = session.ask(QUESTION)
    assert (answer.model["name"], answer.model["chosen_by"]) == ("tiny", SCENE)
    with pytest.raises(NoModelError, match="retake-edge pull"):
        retake_edge.open_video(VIDEO, cache_dir=tmp_path)
    with retake_edge.open_video(scene, MODEL, max_frames=8, cache_dir=tmp_path) as session:
        assert session.chosen_by == "asked for"


# -- the table ---------------------------------------------------------------------------------


def entry(name, *, rank, hour_s=60.0, fits=True, n_bytes=10**9, **more):
    base = {"is_downloaded": False, "memory_bytes": 2 * 10**9, "description": "", "hub": name}
    return ModelEntry(
        name, "hub", n_bytes=n_bytes, rank=rank, hour_s=hour_s, fits=fits, **base | more
    )


@pytest.mark.parametrize(
    ("entries", "best"),
    [
        ([entry("a", rank=1), entry("b", rank=2)], "a"),
        ([entry("a", rank=1, hour_s=7200), entry("b", rank=2)], "b"),
        ([entry("a", rank=1, hour_s=9000), entry("b", rank=2, hour_s=8000)], "b"),
        ([entry("a", rank=1, fits=False), entry("b", rank=2, hour_s=8000)], "b"),
        ([entry("a", rank=1, n_bytes=10**18), entry("b", rank=2)], "b"),
        ([entry("a", rank=1, fits=False)], None),
        ([], None),
    ],
)
def test_the_best_that_fits_and_is_quick_enough_is_recommended(entries, best):
    found = [e.name for e in catalog._with_recommendation(entries) if e.is_recommended]
    assert found == ([best] if best else [])


def test_every_row_of_the_table_fits_the_screen_and_names_what_to_know():
    entries = [
        entry("a-model", rank=1, hour_s=8000.0, is_recommended=True),
        entry("some-user/A-Long-Repository-Name-GGUF:Q4_K_M", rank=9, is_downloaded=True),
        entry("b", rank=10, fits=False, n_bytes=None),
    ]
    lines = table.table_lines(entries)
    assert " ".join(lines[1].split()) == "a-model 1.0 GB 2.0 GB 2 h 15 min recommended"
    assert lines[2] == entries[1].name and lines[3].endswith("downloaded")
    assert "too large" in lines[4] and "?" in lines[4]
    assert all(len(line) <= 80 for line in lines)
    assert table.next_step(entries) == "retake-edge pull a-model"
    assert "None of them fits" in table.next_step(entries[1:])


def test_what_is_too_large_for_the_memory_is_known(monkeypatch):
    work = Work(1.0, 1.0, 1.0, 1.0, 1.0)
    model = Needs({"": 100, "GPU0": 50}, work, "key")
    for free, fits in [({"": 100, "GPU0": 50}, True), ({"": 99}, False), ({"GPU0": 49}, False)]:
        monkeypatch.setattr(needs, "free_memory", lambda free=free: free)
        assert model.fits == fits


def test_the_machine_is_measured_once_and_a_models_own_runs_count_more(tmp_path):
    from retake_edge.plan.machine import machine_key, measure_machine
    from retake_edge.plan.seconds import STAGES, Calibration

    known = Calibration(SessionStore().cache_dir)
    measure_machine(known)
    told = []
    measure_machine(known, lambda *report: told.append(report))
    assert not told, "the second time there is nothing to do"
    entry = json.loads((SessionStore().cache_dir / "calibration.json").read_text())[machine_key()]
    assert set(entry) == set(STAGES)
    work = Work(1e9, 1e12, 3e12, 1.0, 1e9, attention=2e12)
    general = known.seconds(machine_key(), work, 1)
    rates = {stage: seconds / amount for stage, (amount, seconds) in entry.items()}
    expected = rates["prefill"] * 1e12 + rates["attention"] * 2e12
    assert general["prefill"] == pytest.approx(expected)
    known.add("own", work, {"encode": 7.0, "prefill": 5.0})
    own = Needs({"": 1}, work, "own").hour_s(known)
    assert own == pytest.approx(general["decode"] + 12.0)
    assert Needs({"": 1}, work, "other").hour_s(Calibration(tmp_path)) is None
