"""Drive lmms-eval, VLMEvalKit, inspect-ai and OpenAI's client, unchanged, against a running server.

    make harness        in .venv-harness; writes benchmarks/harness.json

Four rendered scenes, four questions each, the bundled model. The run file holds what was run, what
each client sent (paths and data of the videos by name) and what it was answered. tests/server
replays the requests.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness.recorder import Recorder
from retake_edge.bench.scenes.questions import grade, make_questions
from retake_edge.bench.scenes.render import write_video
from retake_edge.bench.scenes.scene import make_scene

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = Path(__file__).parent / "clients"
BIN = ROOT / ".venv-harness" / "bin"
N_SCENES, N_QUESTIONS, SECONDS = 4, 4, 12.0
PACKAGES = ("lmms-eval", "ms-vlmeval", "inspect-ai", "openai", "torch", "transformers", "datasets")
Asked = list[dict[str, str]]


def write_scenes(folder: Path) -> tuple[Asked, list[Any]]:
    """Render the scenes of tests/server; return what is asked, with the questions."""
    asked, questions = [], []
    for seed in range(N_SCENES):
        scene, path = make_scene(100 + seed, SECONDS), folder / f"scene{seed}.mp4"
        write_video(scene, path, fps=4.0, size_px=224)
        for question in make_questions(scene, 8, seed)[:N_QUESTIONS]:
            asked.append({"video": str(path), "question": question.text, "answer": question.answer})
            questions.append(question)
    return asked, questions


def run(command: list[str], cwd: Path, given: str | None = None, **variables: str) -> str:
    """Run a client in its environment; return its stdout."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(CLIENTS / "site"),
        "HF_HOME": str(cwd / "hf"),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        **variables,
    }
    done = subprocess.run(
        command, cwd=cwd, input=given, capture_output=True, text=True, env=environment, timeout=900
    )
    if done.returncode:
        raise SystemExit(f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def lmms_eval(asked: Asked, folder: Path, url: str, *, pass_url: bool) -> tuple[str, list[str]]:
    """Run lmms-eval's command line over a task of its own form."""
    (folder / "data.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))
    (folder / "utils.py").write_text((CLIENTS / "lmms" / "utils.py").read_text())
    task = {
        "task": "scenes",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "data.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_visual": "!function utils.doc_to_visual",
        "doc_to_text": "question",
        "doc_to_target": "answer",
        "process_results": "!function utils.process_results",
        "generation_kwargs": {"max_new_tokens": 16, "temperature": 0},
        "metric_list": [{"metric": "right", "aggregation": "mean", "higher_is_better": True}],
    }
    lines = json.dumps(task, indent=1)
    (folder / "scenes.yaml").write_text(re.sub(r'"(!function [^"]+)"', r"\1", lines))
    how = "pass_video_url=True,max_frames_num=768" if pass_url else "max_frames_num=12"
    arguments = f"model=tiny,base_url={url},api_key=x,{how},num_concurrent=4"
    command = ["lmms-eval", "--model", "openai", "--model_args", arguments, "--tasks", "scenes"]
    command += ["--include_path", str(folder), "--output_path", str(folder / "out")]
    run([str(BIN / command[0]), *command[1:], "--log_samples", "--batch_size", "1"], folder)
    (samples,) = (folder / "out").rglob("*samples*.jsonl")
    found = sorted(map(json.loads, samples.read_text().splitlines()), key=lambda one: one["doc_id"])
    return " ".join(command), [_first(one["filtered_resps"]) for one in found]


def _first(value: Any) -> str:
    while isinstance(value, list):
        value = value[0]
    return value["text"] if isinstance(value, dict) else str(value)


def vlmevalkit(asked: Asked, folder: Path, url: str, *, local: bool) -> tuple[str, list[str]]:
    """Ask by the class that VLMEvalKit's run.py makes of its configuration."""
    script, how = CLIENTS / "vlmevalkit.py", "local" if local else "base64"
    told = run([str(BIN / "python"), str(script), url, how], folder, json.dumps(asked))
    name = f"LMDeployAPI(model='tiny', video_llm=True, local_media={local}, api_base=...)"
    return name, json.loads(told.splitlines()[-1])


def inspect(asked: Asked, folder: Path, url: str) -> tuple[str, list[str]]:
    """Run inspect's command line over a task with videos."""
    data = folder / "inspect.jsonl"
    data.write_text("".join(json.dumps(one) + "\n" for one in asked))
    command = ["inspect", "eval", "inspect_scenes.py", "--model", "openai-api/retake/tiny"]
    command += ["-M", "responses_api=true"]
    (folder / "inspect_scenes.py").write_text((CLIENTS / "inspect_scenes.py").read_text())
    more = ["-T", f"data={data}", "--log-dir", str(folder / "logs"), "--log-format", "json"]
    variables = {"RETAKE_BASE_URL": url, "RETAKE_API_KEY": "x"}
    run([str(BIN / command[0]), *command[1:], *more, "--display", "none"], folder, **variables)
    (log,) = (folder / "logs").glob("*.json")
    samples = sorted(json.loads(log.read_text())["samples"], key=lambda one: one["id"])
    return " ".join(command), [one["output"]["choices"][0]["message"]["content"] for one in samples]


def openai_client(asked: Asked, folder: Path, url: str) -> tuple[str, list[str]]:
    """Ask by OpenAI's client in three ways."""
    script = CLIENTS / "openai_client.py"
    told = run([str(BIN / "python"), str(script), url], folder, json.dumps(asked))
    return "OpenAI(base_url=...): files, streams, responses", json.loads(told.splitlines()[-1])


def curl(asked: Asked, folder: Path, url: str) -> tuple[str, list[str]]:
    """Ask as llama-server's users do."""
    found = []
    for one in asked:
        data = base64.b64encode(Path(one["video"]).read_bytes()).decode()
        part = {"type": "input_video", "input_video": {"data": data}}
        content = [part, {"type": "text", "text": one["question"]}]
        body = json.dumps({"messages": [{"role": "user", "content": content}]})
        command = ["curl", "-sS", f"{url}/chat/completions", "-d", "@-"]
        command += ["-H", "Content-Type: application/json"]
        found.append(json.loads(run(command, folder, body))["choices"][0]["message"]["content"])
    return "curl -d '{... input_video: {data} ...}'", found


def _flat(value: Any) -> str:
    """The text of an answer that may be a list of parts."""
    if isinstance(value, list):
        value = "".join(part.get("text", "") for part in value)
    return str(value).strip()


def recorded(requests: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Each kind of request once: bodies with the videos' paths and data by their names."""
    data = {
        base64.b64encode(path.read_bytes()).decode(): f"{{data:{path.name}}}"
        for path in sorted(folder.glob("*.mp4"))
    }
    kept: dict[str, dict[str, Any]] = {}
    for request in requests:
        one = {key: request[key] for key in ("method", "path", "status")}
        if "json" in request["type"]:
            text = request["body"].decode()
            for content, name in data.items():
                text = text.replace(content, name)
            text = re.sub(r"data:image/(\w+);base64,[A-Za-z0-9+/=]+", r"{image/\1}", text)
            for path in (folder.resolve(), folder):
                text = text.replace(f"{path}/", "{media}/")
            one["body"] = json.loads(text)
        elif request["body"]:
            one["body"] = re.sub(r"boundary=\S+", "boundary=...", request["type"])
        shape = json.dumps([one["method"], one["path"], _shape(one.get("body"))])
        kept.setdefault(shape, one)
    return list(kept.values())


def _shape(value: Any) -> Any:
    """What two requests of one kind have in common: their keys, types and places of text."""
    if isinstance(value, dict):
        return {key: value[key] if key in ("type", "role") else _shape(value[key]) for key in value}
    if isinstance(value, list):
        shapes = [json.dumps(_shape(one)) for one in value]
        return sorted(set(shapes))
    return type(value).__name__


def started(media: Path, cache: Path) -> tuple[subprocess.Popen[str], int]:
    """Start the server that a user starts; return it with its port."""
    command = [sys.executable, "-m", "retake_edge", "serve", "-m", "tiny", "--port", "0"]
    command += ["--media-path", str(media), "--cache-dir", str(cache), "-t", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    return process, int(line.rsplit(":", 1)[1])


def main() -> None:
    """Run all clients, and write the run file."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "benchmarks" / "harness.json"
    ways: dict[str, Callable[[Asked, Path, str], tuple[str, list[str]]]] = {
        "lmms-eval": lambda a, f, u: lmms_eval(a, f, u, pass_url=True),
        "lmms-eval, frames": lambda a, f, u: lmms_eval(a, f, u, pass_url=False),
        "VLMEvalKit": lambda a, f, u: vlmevalkit(a, f, u, local=True),
        "VLMEvalKit, base64": lambda a, f, u: vlmevalkit(a, f, u, local=False),
        "inspect-ai": inspect,
        "openai": openai_client,
        "curl": curl,
    }
    runs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        media = Path(place) / "media"
        media.mkdir()
        asked, questions = write_scenes(media)
        process, port = started(media, Path(place) / "cache")
        try:
            for number, (name, ask) in enumerate(ways.items()):
                folder = Path(place) / f"client{number}"
                folder.mkdir()
                began = time.monotonic()
                with Recorder(port).running() as recorder:
                    command, told = ask(asked, folder, recorder.url)
                answers = [_flat(one) for one in told]
                right = [grade(q, a) for q, a in zip(questions, answers, strict=True)]
                command = command.replace(recorder.url, "URL").replace(str(folder), "DIR")
                runs[name] = {
                    "command": command,
                    "n_requests": len(recorder.requests),
                    "n_failed": sum(one["status"] >= 400 for one in recorder.requests),
                    "n_right": sum(map(bool, right)),
                    "seconds": round(time.monotonic() - began, 1),
                    "answers": answers,
                    "requests": recorded(recorder.requests, media),
                }
                print(f"{name}: {sum(map(bool, right))} of {len(right)} right", flush=True)
        finally:
            process.terminate()
            process.wait()
    facts = {"questions": [one["question"] for one in asked], "versions": versions(), "runs": runs}
    out.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def versions() -> dict[str, str]:
    """What is installed in the environment of the clients."""
    code = "import json, sys; from importlib.metadata import version as v; "
    code += "print(json.dumps({name: v(name) for name in sys.argv[1:]}))"
    told = subprocess.check_output([str(BIN / "python"), "-c", code, *PACKAGES], text=True)
    return {"retake-edge": version("retake-edge"), **json.loads(told)}


if __name__ == "__main__":
    main()
