"""Clients that ask about several videos at once, leave and come again never get another's answer.

For minutes: RETAKE_INTERLEAVE_S=300 .venv/bin/python -m pytest tests/server/test_interleaved.py
"""

import json
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from server_support import answer_of, file_url, running, text

SECONDS = float(os.environ.get("RETAKE_INTERLEAVE_S", "8"))
N_CLIENTS = 8


@pytest.fixture(scope="module")
def small(tmp_path_factory, limits):
    """A server in whose memory one video has room, so that they take turns in it."""
    folder = tmp_path_factory.mktemp("interleaved")
    with running(folder, limits, max_loaded_bytes=1, grace_s=0.0) as made:
        yield made


def streamed(server, messages, *, n_pieces=None):
    """The text of a stream; of its first pieces alone where the client leaves after them."""
    body, said = {"messages": messages, "stream": True}, []
    with server.http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            choice = json.loads(line[6:])["choices"][0]
            said.append(choice["delta"].get("content") or "")
            if n_pieces is not None and len(said) > n_pieces:
                return None
    return "".join(said).strip()


def conversations(scenes):
    """Of each scene: each question alone, and after another one with its answer."""
    for path, questions in scenes:
        for number, question in enumerate(questions):
            asked = {"role": "user", "content": [file_url(path), text(question.text)]}
            before = questions[number - 1]
            yield [asked]
            yield [
                {"role": "user", "content": [file_url(path), text(before.text)]},
                {"role": "assistant", "content": before.answer},
                {"role": "user", "content": question.text},
            ]


def test_answers_never_cross(small, scenes, record_property):
    asked = list(conversations(scenes))

    def whole(messages):
        return answer_of(small.chat(messages[-1]["content"], before=messages[:-1]))

    alone = [whole(messages) for messages in asked]
    assert len(set(alone)) > len(scenes)
    n_read, until = small.n_read(), time.monotonic() + SECONDS

    def client(seed):
        rng, n_asked, n_left = random.Random(seed), 0, 0
        while n_asked < 3 or time.monotonic() < until:
            number = rng.randrange(len(asked))
            if rng.random() < 0.25:
                streamed(small, asked[number], n_pieces=rng.randrange(3))
                n_left += 1
                continue
            ask = whole if rng.random() < 0.5 else lambda messages: streamed(small, messages)
            assert (number, ask(asked[number])) == (number, alone[number])
            n_asked += 1
        return n_asked, n_left

    with ThreadPoolExecutor(N_CLIENTS) as pool:
        done = list(pool.map(client, range(N_CLIENTS)))
    record_property("n_asked", sum(n for n, _ in done))
    print(f"\n{sum(n for n, _ in done)} answers, {sum(n for _, n in done)} clients left")
    assert small.n_read() == n_read == len(scenes)
