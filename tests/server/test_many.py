"""Many clients at once, those that leave, and servers that are killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from server_support import answer_of, file_url, running, text

from retake_edge.bench.scenes.questions import grade
from retake_edge.bench.scenes.render import write_video
from retake_edge.bench.scenes.scene import make_scene
from retake_edge.session.store.folder import SessionStore

N_CLIENTS = 32


@pytest.fixture(scope="module")
def crowded(tmp_path_factory, limits):
    """A server of its own, in which one video at a time is loaded, and no one is waited for."""
    folder = tmp_path_factory.mktemp("crowded")
    with running(folder, limits, max_loaded_bytes=1, grace_s=0.0) as made:
        yield made


def test_32_clients_over_4_videos_get_their_own_answers_and_each_video_is_read_once(
    crowded, scenes
):
    asked = [(path, question) for path, questions in scenes for question in questions]
    asked = [asked[(7 * i) % len(asked)] for i in range(N_CLIENTS)]

    def ask(one):
        path, question = one
        return answer_of(crowded.chat([file_url(path), text(question.text)]))

    with ThreadPoolExecutor(N_CLIENTS) as pool:
        answers = list(pool.map(ask, asked))
    assert crowded.n_read() == len(scenes)
    # The model itself errs at times; alone it must say the same.
    alone = {one: ask(one) for one in set(asked)}
    assert answers == [alone[one] for one in asked]
    right = [grade(question, told) for (_, question), told in zip(asked, answers, strict=True)]
    assert sum(right) >= 0.9 * len(right)


def started(server, path):
    """A stream of a question about a video that is being read."""
    body = {
        "messages": [{"role": "user", "content": [file_url(path), text("Is there a red card?")]}],
        "stream": True,
        "return_progress": True,
    }
    stream = server.http.stream("POST", "/v1/chat/completions", json=body)
    response = stream.__enter__()
    for line in response.iter_lines():
        if '"stage":"encode"' in line:
            break
    return stream


@pytest.fixture
def new_scene(scenes, request):
    """A video that no server has read."""
    path = scenes[0][0].with_name(f"{request.node.name}.mp4")
    write_video(make_scene(len(request.node.name), 32.0), path, fps=4.0, size_px=224)
    return path


def test_a_client_that_leaves_frees_its_turn_and_loses_nothing(crowded, scenes, new_scene):
    path, questions = scenes[0]
    content = [file_url(path), text(questions[0].text)]
    answer = answer_of(crowded.chat(content))
    n_read = crowded.n_read()
    stream = started(crowded, new_scene)
    stream.__exit__(None, None, None)
    assert answer_of(crowded.chat(content)) == answer
    assert crowded.n_read() == n_read  # the other one was given up
    assert answer_of(crowded.chat([file_url(new_scene), text("Is there a red card?")]))
    assert crowded.n_read() == n_read + 1


def test_a_retry_joins_the_reading_that_runs(server, new_scene):
    n_read = server.n_read()
    stream = started(server, new_scene)
    stream.__exit__(None, None, None)
    assert answer_of(server.chat([file_url(new_scene), text("Is there a red card?")]))
    assert server.n_read() == n_read + 1


def test_beyond_the_queue_a_client_is_told_when_to_come_again(guarded, new_scene, monkeypatch):
    monkeypatch.setitem(guarded.http.headers, "X-Api-Key", "open-sesame")
    stream = started(guarded, new_scene)
    content = [file_url(new_scene), text("Is there a red card?")]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(guarded.chat, content)
        while not guarded.service.worker.n_waiting:
            assert not waiting.done()
            time.sleep(0.005)
        refused = guarded.chat(content)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        stream.__exit__(None, None, None)
        assert answer_of(waiting.result())


def test_a_video_longer_than_allowed_is_refused(tmp_path, limits, scenes):
    with running(tmp_path, replace(limits, max_video_s=5.0)) as short:
        response = short.chat([file_url(scenes[0][0]), text("What is it?")])
        assert (response.status_code, response.json()["error"]["code"]) == (413, "too_long")


def spawned(cache, media):
    """A server in a process of its own, and its address."""
    command = [sys.executable, "-m", "retake_edge", "serve", "-m", "tiny", "--port", "0", "-t", "1"]
    command += ["--media-path", str(media), "--cache-dir", str(cache)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    line = process.stderr.readline()
    assert " at http" in line, line
    return process, line.split()[-1]


@pytest.mark.process
def test_a_killed_server_leaves_nothing_half_and_loses_nothing_whole(tmp_path, scenes):
    rng, path = random.Random(0), scenes[2][0]
    data, uploaded = path.read_bytes(), set()
    question = {"messages": [{"role": "user", "content": [file_url(path), text("What is it?")]}]}
    for _ in range(3):
        process, url = spawned(tmp_path, path.parent)
        with ThreadPoolExecutor(2) as pool, httpx.Client(base_url=url, timeout=60) as client:
            listed = {entry["id"] for entry in client.get("/v1/files").json()["data"]}
            assert uploaded <= listed
            for name in listed:
                assert client.get(f"/v1/files/{name}/content").content.startswith(data)
            name = f"{rng.random()}.mp4"
            content = data + name.encode()
            files = {"file": (name, content)}
            sending = pool.submit(client.post, "/v1/files", files=files)
            pool.submit(client.post, "/v1/chat/completions", json=question)
            time.sleep(rng.random())
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stderr.close()
            if sending.exception() is None:
                uploaded.add(sending.result().json()["id"])
    process, url = spawned(tmp_path, path.parent)
    try:
        assert httpx.post(f"{url}/v1/chat/completions", json=question, timeout=60).is_success
        assert not list((tmp_path / "uploads").glob("*.part"))
        saved = SessionStore(tmp_path).sessions()
        assert [session.problem for session in saved] == [""]
        assert json.dumps(saved[0].head)
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()
