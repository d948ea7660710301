"""What lmms-eval, VLMEvalKit, inspect-ai and others sent (`make harness`) is answered still."""

import base64
import json
from itertools import cycle
from pathlib import Path

import cv2
import pytest
from server_support import answer_of, file_url, text

from retake_edge.bench.scenes.render import frames
from retake_edge.bench.scenes.scene import make_scene

RECORDED = json.loads((Path(__file__).parents[2] / "benchmarks/harness.json").read_text())
SENT = [
    pytest.param(request, id=f"{name} {request['method']} {request['path']} {number}")
    for name, run in RECORDED["runs"].items()
    for number, request in enumerate(run["requests"])
    if request["path"] in ("/v1/chat/completions", "/v1/responses")
]


def filled(value, media, images):
    """A recorded body with the paths, the videos' data and the images that stand for others."""
    if isinstance(value, dict):
        return {key: filled(inside, media, images) for key, inside in value.items()}
    if isinstance(value, list):
        return [filled(inside, media, images) for inside in value]
    if not isinstance(value, str):
        return value
    for path in media.glob("scene?.mp4"):
        if f"{{data:{path.name}}}" in value:
            data = base64.b64encode(path.read_bytes()).decode()
            value = value.replace(f"{{data:{path.name}}}", data)
    if value.startswith("{image/"):
        return next(images)
    return value.replace("{media}", str(media))


def said(response):
    """The text of an answer in any of the forms."""
    assert response.status_code == 200, response.text
    if response.headers["content-type"].startswith("text/event-stream"):
        lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: {")]
        choices = [choice for line in lines for choice in json.loads(line)["choices"]]
        return "".join(choice["delta"].get("content") or "" for choice in choices).strip()
    body = response.json()
    if "choices" in body:
        return body["choices"][0]["message"]["content"]
    return "".join(part["text"] for item in body["output"] for part in item["content"])


@pytest.mark.parametrize("request_sent", SENT)
def test_what_a_harness_sent_gets_its_answer(server, scenes, request_sent):
    media = scenes[0][0].parent
    shown = frames(make_scene(100, 12.0), 1.0, 224)
    encoded = [cv2.imencode(".png", frame[..., ::-1])[1].tobytes() for frame in shown]
    images = cycle(f"data:image/png;base64,{base64.b64encode(data).decode()}" for data in encoded)
    written = json.dumps(request_sent["body"])
    body = filled(request_sent["body"], media, images)
    if "file_id" in written:
        with (media / "scene0.mp4").open("rb") as file:
            uploaded = server.http.post("/v1/files", files={"file": file}).json()["id"]
        for part in body["messages"][-1]["content"]:
            if part["type"] == "file":
                part["file"]["file_id"] = uploaded
    found = said(server.http.post(request_sent["path"], json=body))
    assert found
    question = next(asked for asked in RECORDED["questions"] if json.dumps(asked)[1:-1] in written)
    number = next((n for n in range(len(scenes)) if f"scene{n}.mp4" in written), None)
    if number is not None:
        path = scenes[number][0]
        assert found == answer_of(server.chat([file_url(path), text(question)]))


def test_every_harness_was_run_without_a_failure():
    assert {"lmms-eval", "VLMEvalKit", "inspect-ai", "openai", "curl"} <= set(RECORDED["runs"])
    n = len(RECORDED["questions"])
    for name, run in RECORDED["runs"].items():
        assert (name, run["n_failed"], len(run["answers"])) == (name, 0, n)
        assert run["n_requests"] >= n and run["requests"]
