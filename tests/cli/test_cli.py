"""The command line as a user meets it: exit codes, what goes where, and the shape of --json."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest
from session_support import ARGUMENTS, GOLDEN, LONG_VIDEO, QUESTION, VIDEO, command, run
from typer.testing import CliRunner
from update_readme import PROGRESS

from retake_edge.cli import app

pytestmark = pytest.mark.process

ANSWER_SHAPE = {
    "question": str,
    "text": str,
    "n_tokens": int,
    "evidence": list,
    "video": {
        "path": str,
        "duration_s": float,
        "n_frames": int,
        "n_grid_frames": int,
        "n_keyframes": int,
        "n_frames_kept": int,
        "n_cells_before": int,
        "n_cells_kept": int,
        "keep_ratio": float,
        "n_ctx": int,
        "kv_bytes": int,
        "reduced_by": str,
        "not_compressible": str,
        "positions": str,
        "n_positions": int,
        "n_positions_trained": int,
        "n_still": int,
        "n_left_out": int,
        "sampling": str,
        "guide": str,
    },
    "session": {"key": str, "is_reused": bool, "n_bytes": int},
    "seconds": dict,
    "profile": {"wall_s": float, "stages": dict, "beside": dict},
    "peak_memory_bytes": int,
    "model": {
        "name": str,
        "chosen_by": str,
        "description": str,
        "model_sha256": str,
        "mmproj_sha256": str,
    },
    "config": {
        "sampling": dict,
        "dpselect": dict,
        "compression": dict,
        "runtime": dict,
        "prompt": dict,
        "generation": dict,
        "look": dict,
    },
    "versions": {"retake_edge": str, "python": str},
    "sampler": {
        "temperature": float,
        "top_k": int,
        "top_p": float,
        "min_p": float,
        "repeat_penalty": float,
        "presence_penalty": float,
        "repeat_last_n": int,
    },
    "positions": {"mode": str, "highest": int, "limit": int},
    "probability": float,
    "looked_again": type(None),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache folder that holds the standard video's session."""
    folder = tmp_path_factory.mktemp("cache")
    code, _, err = run("index", str(VIDEO), *ARGUMENTS, "--cache-dir", str(folder))
    assert code == 0, err
    return ["--cache-dir", str(folder)]


def shape_of(value, shape):
    """`value` with everything that `shape` has no word on replaced by its type."""
    if isinstance(shape, dict):
        return {key: shape_of(item, shape.get(key)) for key, item in value.items()}
    return type(value)


def test_stdout_is_the_answer_and_nothing_else(cache):
    code, out, err = run("ask", str(VIDEO), QUESTION, *ARGUMENTS, *cache)
    assert code == 0
    _, document, _ = run("ask", str(VIDEO), QUESTION, *ARGUMENTS, *cache, "--json")
    assert out.strip() == json.loads(document)["text"]
    assert "cells" not in err
    _, again, err = run("-v", "ask", str(VIDEO), QUESTION, *ARGUMENTS, *cache)
    assert again == out and "KV cells kept" in err


def test_the_json_of_an_answer_has_its_documented_shape(cache):
    code, out, err = run("ask", str(VIDEO), QUESTION, *ARGUMENTS, *cache, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert shape_of(document, ANSWER_SHAPE) == ANSWER_SHAPE
    assert document["session"]["is_reused"]
    assert len(document["model"]["model_sha256"]) == 64
    for span in document["evidence"]:
        assert 0 <= span["start_s"] < span["end_s"] <= document["video"]["duration_s"]


def test_many_questions_get_the_answers_they_would_get_alone(cache, tmp_path):
    file = tmp_path / "questions.txt"
    file.write_text("Who is there?\n\n  What is it?  \n", encoding="utf-8")
    options = [*ARGUMENTS, *cache, "--json"]
    code, out, err = run(
        "ask", str(VIDEO), "-q", QUESTION, "-q", "Why?", "--questions", str(file), *options
    )
    assert code == 0, err
    answers = json.loads(out)
    assert [a["question"] for a in answers] == [QUESTION, "Why?", "Who is there?", QUESTION]
    assert answers[0]["text"] == answers[3]["text"]
    _, alone, _ = run("ask", str(VIDEO), "Who is there?", *options)
    assert json.loads(alone)["text"] == answers[2]["text"]


def test_chat_works_through_a_pipe(cache):
    lines = f"{QUESTION}\nWhy?\n/frames\n/when\n/nothing\n/reset\n{QUESTION}\n/quit\nnever asked\n"
    with command("chat", str(VIDEO), *ARGUMENTS, *cache, stdin=-1) as process:
        out, err = process.communicate(lines, timeout=300)
    assert process.returncode == 0, err
    shown = out.splitlines()
    assert shown[0] == shown[-1], "a reset conversation begins as the first did"
    assert any(line.startswith("24 frames from 0:00 to 0:02") for line in shown)
    assert "no such command" in err
    _, alone, _ = run("ask", str(VIDEO), QUESTION, *ARGUMENTS, *cache)
    assert shown[0].strip() == alone.strip()


def test_chat_at_a_terminal_prompts_and_remembers_what_was_asked(cache):
    import pty

    parent, child = pty.openpty()
    with command("chat", str(VIDEO), *ARGUMENTS, *cache, stdin=child, stdout=child) as process:
        os.close(child)
        os.write(parent, f"{QUESTION}\n/when\n/quit\n".encode())
        shown = b""
        with contextlib.suppress(OSError):  # Linux: the other end is closed
            while piece := os.read(parent, 4096):
                shown += piece
        err = process.stderr.read()
    os.close(parent)
    assert process.returncode == 0, err
    assert shown.count(b"> ") >= 3
    assert "/help shows what else there is" in err and "tiny-f32, h264.mp4 0:00-0:03" in err
    history = Path(cache[1], "chat_history").read_text(encoding="utf-8")
    assert QUESTION in history and "/when" in history


def test_index_prints_the_key_and_sessions_knows_it(cache):
    code, key, err = run("index", str(VIDEO), *ARGUMENTS, *cache)
    assert code == 0 and "was there already" in err
    runner = CliRunner()
    (listed,) = json.loads(runner.invoke(app, ["sessions", "list", "--json", *cache]).stdout)
    assert listed["key"] == key.strip() and listed["is_complete"]
    shown = json.loads(runner.invoke(app, ["sessions", "show", key[:6], *cache]).stdout)
    assert shown["head"]["video"] == VIDEO.name
    assert shown["end"]["video"]["n_frames"] == 24
    line = runner.invoke(app, ["sessions", "list", *cache]).stdout
    assert line.startswith("KEY ") and key[:8] in line and VIDEO.name in line
    assert "0:00-0:03" in line and " all " in line


def test_sessions_are_removed_by_key_and_by_size(tmp_path):
    where = ["--cache-dir", str(tmp_path)]
    _, key, _ = run("index", str(VIDEO), *ARGUMENTS, *where)
    runner = CliRunner()
    assert runner.invoke(app, ["sessions", "prune", "--max-size", "1G", *where]).exit_code == 0
    assert list((tmp_path / "sessions").iterdir())
    assert runner.invoke(app, ["sessions", "rm", key[:8], *where]).exit_code == 0
    assert list((tmp_path / "sessions").iterdir()) == []


def test_ask_and_report_take_a_key_in_place_of_the_video(cache):
    _, key, _ = run("index", str(VIDEO), *ARGUMENTS, *cache)
    code, out, err = run("ask", key[:8], QUESTION, "-n", "6", *cache)
    assert code == 0 and out.strip(), err
    assert "tiny-f32, h264.mp4 0:00-0:03" in err and "reading" not in err
    code, _, err = run("ask", key[:8], QUESTION, "--fps", "2", *cache)
    assert code == 2 and f"--fps was decided when {key[:8]} was read" in err
    code, _, err = run("ask", "00000000", QUESTION, *cache)
    assert code == 3 and "00000000" in err


# --- exit codes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["ask", str(VIDEO), "-q", "x", "--policy", "best"], 2, "--policy is 'best'"),
        (["ask", str(VIDEO)], 2, "no question"),
        (["ask", str(VIDEO), "--questions", "/nowhere"], 2, "Cannot read the questions"),
        (["index", str(VIDEO), "--no-cache"], 2, "--no-cache"),
        (["sessions", "show", "abc"], 2, "No saved sessions"),
        (["sessions", "rm"], 2, "which saved videos"),
        (["sessions", "prune", "--max-size", "much"], 2, "no number of bytes"),
        (["ask", "/nowhere.mp4", "x"], 3, "/nowhere.mp4"),
        (["ask", str(GOLDEN), "x"], 3, "directory"),
        (["ask", "https://example.org/a.mp4", "x"], 3, "URL"),
        (["index", __file__], 3, "test_cli.py"),
        (["ask", str(VIDEO), "x", "-m", "/nowhere.gguf"], 4, "/nowhere.gguf"),
        (["ask", str(VIDEO), "x", "-m", "huge"], 4, "no model named 'huge'"),
        (["ask", str(VIDEO), "x", "-c", "64"], 5, "-c gives 64"),
        (["ask", str(VIDEO), "why " * 600], 5, "room for it"),
    ],
)
def test_every_mistake_has_its_exit_code_and_one_sentence(arguments, code, words, tmp_path):
    command_options = [] if arguments[0] == "sessions" else ARGUMENTS
    chosen = [o for o in command_options if "-m" not in arguments] or []
    where = ["--cache-dir", str(tmp_path)]
    found, out, err = run(*arguments[:2], *chosen, *arguments[2:], *where)
    assert found == code, err
    assert out == ""
    said = [line for line in err.splitlines() if not line.startswith(PROGRESS)]
    assert len(said) == 1 and words in said[0] and said[0].startswith("error: ")


def test_libraries_without_pivotkv_are_a_native_error(tmp_path, monkeypatch):
    monkeypatch.setenv("RETAKE_LIBRARY_DIR", str(tmp_path))
    code, out, err = run("ask", str(VIDEO), "x", *ARGUMENTS, "--cache-dir", str(tmp_path))
    assert (code, out) == (6, "")
    assert "There is no libllama" in err


def test_ctrl_c_ends_with_130_and_the_work_goes_on_the_next_time(tmp_path):
    options = ["index", str(LONG_VIDEO), *ARGUMENTS, "--cache-dir", str(tmp_path)]
    with command(*options) as process:
        while process.poll() is None and not list(tmp_path.glob("sessions/*.resume")):
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == "" and "Traceback" not in err
    assert not list(tmp_path.glob("sessions/*.session"))
    code, out, err = run(*options)
    assert code == 0, err
    assert [file.suffix for file in (tmp_path / "sessions").iterdir()] == [".session"]


def test_the_help_of_every_command_says_what_it_does():
    runner = CliRunner()
    for name in ("ask", "chat", "index", "sessions"):
        result = runner.invoke(app, [name, "--help"])
        assert result.exit_code == 0
        assert name in result.stdout and "--help" in result.stdout


def test_verbose_may_stand_after_the_command(cache):
    code, _, err = run("ask", str(VIDEO), QUESTION, *ARGUMENTS, *cache, "-v")
    assert code == 0 and "llama" in err


def test_what_stands_after_an_option_is_its_value_also_where_it_looks_like_a_flag(cache):
    for value in ("-v", "--help-all"):
        code, out, err = run("ask", str(VIDEO), "-q", value, *ARGUMENTS, *cache, "--json")
        assert code == 0, err
        assert "llama" not in err and [a["question"] for a in json.loads(out)] == [value]


def runtime_of(cache, *options, **env):
    """The settings of llama.cpp that an answer was made with."""
    arguments = ["ask", str(VIDEO), QUESTION, *ARGUMENTS, *cache, *options, "--json"]
    code, out, err = run(*arguments, env={**os.environ, **env})
    assert code == 0, err
    document = json.loads(out)
    return document["config"]["runtime"], document["config"]["generation"], document["session"]


def test_flash_attention_is_as_asked_and_off_makes_a_saved_video_of_its_own(cache):
    for asked, is_reused in (("on", True), ("off", False), ("auto", True), ("off", True)):
        runtime, _, session = runtime_of(cache, "-fa", asked)
        assert (runtime["flash_attention"], session["is_reused"]) == (asked, is_reused)
    code, _, err = run("ask", str(VIDEO), QUESTION, *ARGUMENTS, "-fa", "off", "-ctv", "q8_0")
    assert code == 2 and "a quantized V needs flash attention" in err


def test_variables_of_llama_cpp_count_where_no_flag_is_given(cache):
    env = {
        "LLAMA_ARG_FLASH_ATTN": "off",
        "LLAMA_ARG_UBATCH": "256",
        "LLAMA_ARG_CTX_SIZE": "2048",
        "LLAMA_ARG_TOP_K": "7",
        "LLAMA_ARG_TEMPERATURE": "0.5",
    }
    runtime, generation, _ = runtime_of(cache, "-ub", "128", "--temp", "0", **env)
    assert (runtime["flash_attention"], runtime["n_ubatch"], runtime["n_ctx"]) == ("off", 128, 2048)
    assert (generation["top_k"], generation["temperature"]) == (7, 0)


def test_a_model_of_llama_cpps_variables_gives_way_to_ours_and_to_a_flag(cache):
    model = {"LLAMA_ARG_MODEL": ARGUMENTS[1], "LLAMA_ARG_MMPROJ": ARGUMENTS[3]}
    plan = ["plan", str(VIDEO), "--json", *cache]
    for options, env, name in (
        ([], model, "tiny-f32"),
        (["-m", "qwen2.5-vl-3b"], {"LLAMA_ARG_MODEL": ARGUMENTS[1]}, "qwen2.5-vl-3b"),
        ([], {"LLAMA_ARG_MODEL": ARGUMENTS[1], "RETAKE_MODEL": "tiny"}, "tiny"),
        (["-m", ARGUMENTS[1], "-mm", ARGUMENTS[3]], {"LLAMA_ARG_HF_REPO": "a/b"}, "tiny-f32"),
    ):
        code, out, err = run(*plan, *options, env={**os.environ, **env})
        assert code == 0, err
        assert json.loads(out)["model"]["name"] == name


def test_the_whole_help_shows_the_variables():
    told = CliRunner().invoke(app, ["ask", "--help-all"]).stdout
    short = CliRunner().invoke(app, ["ask", "--help"]).stdout
    for name in ("MODEL", "CTX_SIZE", "FLASH_ATTN", "CACHE_TYPE_V", "N_PREDICT", "OFFLINE"):
        assert f"[env: LLAMA_ARG_{name}]" in " ".join(told.split())
    assert "LLAMA_ARG" not in short
