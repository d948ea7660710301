"""Kill a server with SIGKILL at random points of reading, uploading and answering.

    .venv/bin/python scripts/kill_server.py [N] [OUT.json]       50, benchmarks/server-kills.json

After each kill a new server over the same folder must list every upload that was confirmed, with
its content; list nothing that is not whole; answer about videos that were read without reading them
again, as before; and find no saved session damaged.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from retake_edge.bench.scenes.render import write_video
from retake_edge.bench.scenes.scene import make_scene
from retake_edge.session.store.folder import SessionStore

ROOT = Path(__file__).resolve().parents[1]
SEED, PHASES, QUESTION = 20261126, ("reading", "uploading", "answering"), "Is there a red card?"
LONGEST_S = {"reading": 2.0, "uploading": 0.4, "answering": 0.15}


def start(cache: Path, media: Path) -> tuple[subprocess.Popen[str], httpx.Client]:
    """Start a server over the same folders as the one before."""
    command = [sys.executable, "-m", "retake_edge", "serve", "-m", "tiny", "--port", "0", "-t", "1"]
    command += ["--media-path", str(media), "--cache-dir", str(cache)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    assert " at http" in line, line
    return process, httpx.Client(base_url=line.split()[-1], timeout=120, trust_env=False)


def ask(client: httpx.Client, path: Path) -> str:
    """Ask about a video, and return the answer."""
    part = {"type": "video_url", "video_url": {"url": f"file://{path}"}}
    content = [part, {"type": "text", "text": QUESTION}]
    response = client.post(
        "/v1/chat/completions", json={"messages": [{"role": "user", "content": content}]}
    )
    response.raise_for_status()
    return str(response.json()["choices"][0]["message"]["content"])


def n_read(client: httpx.Client) -> float:
    """How many videos this server has read."""
    lines = client.get("/metrics").text.splitlines()
    return next(float(x.split()[1]) for x in lines if x.startswith("retake_videos_read_total"))


def faults(
    client: httpx.Client, cache: Path, uploaded: dict[str, str], answers: dict[Path, str]
) -> list[str]:
    """What is lost, or not whole, after a kill."""
    found = []
    listed = {one["id"]: one["bytes"] for one in client.get("/v1/files").json()["data"]}
    found += [f"the upload {name} is lost" for name in set(uploaded) - set(listed)]
    for name, n_bytes in listed.items():
        content = client.get(f"/v1/files/{name}/content").content
        digest = hashlib.sha256(content).hexdigest()
        if len(content) != n_bytes or uploaded.get(name, digest) != digest:
            found.append(f"the upload {name} is not whole")
    folder = cache / "uploads"
    for blob in folder.glob("*.blob"):
        if hashlib.sha256(blob.read_bytes()).hexdigest() != blob.stem:
            found.append(f"the blob {blob.stem} is not whole")
    found += [f"{part.name} was left" for part in folder.glob("*.part")]
    before = n_read(client)
    for path, answer in answers.items():
        if (told := ask(client, path)) != answer:
            found.append(f"{path.name} was answered {answer!r}, and now {told!r}")
    if n_read(client) != before:
        found.append("a video that was read is read again")
    found += [
        f"a session has a fault: {one.problem}"
        for one in SessionStore(cache).sessions()
        if one.problem
    ]
    return found


def one_round(client: httpx.Client, phase: str, video: Path, process: Any, rng: Any) -> Any:
    """Let a phase run and kill the server in it; return the request's outcome, or None."""
    delay_s = rng.uniform(0, LONGEST_S[phase])

    def work() -> Any:
        if phase == "uploading":
            content = video.read_bytes() + rng.randbytes(8 << 20)
            response = client.post("/v1/files", files={"file": ("a.mp4", content)})
            return response.json()["id"], hashlib.sha256(content).hexdigest()
        return ask(client, video)

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        return (delay_s, None if working.exception() else working.result())


def main() -> None:
    """Kill N times; write what was done and found."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "benchmarks" / "server-kills.json"
    rng, rounds = random.Random(SEED), []
    uploaded: dict[str, str] = {}
    answers: dict[Path, str] = {}
    os.environ["PYTHONPATH"] = str(ROOT)
    with tempfile.TemporaryDirectory() as place:
        media, cache = Path(place) / "media", Path(place) / "cache"
        media.mkdir()
        process, client = start(cache, media)
        for number in range(n):
            phase = PHASES[number % len(PHASES)]
            video = media / f"scene{number}.mp4"
            if phase == "reading" or not answers:
                write_video(make_scene(500 + number, 24.0), video, fps=4.0, size_px=224)
                if phase != "reading":
                    answers[video] = ask(client, video)
            else:
                video = rng.choice(list(answers))
            delay_s, outcome = one_round(client, phase, video, process, rng)
            client.close()
            if outcome and phase == "uploading":
                uploaded[outcome[0]] = outcome[1]
            elif outcome:
                answers[video] = outcome
            process, client = start(cache, media)
            found = faults(client, cache, uploaded, answers)
            if phase == "reading" and video not in answers:
                answers[video] = ask(client, video)  # goes on from where it was killed
            rounds.append(
                {
                    "phase": phase,
                    "after_s": round(delay_s, 4),
                    "was_answered": outcome is not None,
                    "faults": found,
                }
            )
            print(number, rounds[-1], flush=True)
        process.kill()
        process.wait()
    n_faults = sum(len(one["faults"]) for one in rounds)
    facts = {"seed": SEED, "n_kills": len(rounds), "n_faults": n_faults, "rounds": rounds}
    out.write_text(json.dumps(facts, indent=1) + "\n")
    sys.exit(bool(n_faults))


if __name__ == "__main__":
    main()
