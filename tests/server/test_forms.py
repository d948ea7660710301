"""Every form in which clients send a video leads to the same answer."""

import base64
from pathlib import Path
from typing import Any

import cv2
import openai
import pytest
from server_support import answer_of, file_url, text

from retake_edge.bench.scenes.questions import grade
from retake_edge.bench.scenes.render import frames
from retake_edge.bench.scenes.scene import make_scene


@pytest.fixture(scope="module")
def sent(scenes, server):
    """The first scene: its path, its data, a question, and the answer by path."""
    path, questions = scenes[0]
    data = base64.b64encode(path.read_bytes()).decode()
    answer = answer_of(server.chat([text(questions[0].text), file_url(path)]))
    assert grade(questions[0], answer)
    return path, data, questions[0], answer


def parts(path, data):
    """All forms, by who sends them."""
    url = f"data:video/mp4;base64,{data}"
    return {
        "llama-server data": {"type": "input_video", "input_video": {"data": data}},
        "llama-server url": {"type": "video_url", "video_url": {"url": url}},
        "bare base64 as url": {"type": "video_url", "video_url": {"url": data}},
        "vllm with uuid": {**file_url(path), "uuid": "scene-0"},
        "vllm sent before": {"type": "video_url", "video_url": None, "uuid": "again"},
        "sglang": {"type": "video_url", "video_url": {"url": f"file://{path}", "max_frames": 512}},
        "mlx string": {"type": "input_video", "input_video": str(path)},
        "mlx path": {"type": "video", "video": str(path)},
        "relative to the media path": {"type": "video", "video": path.name},
        "inspect": {"type": "input_file", "file_data": url, "filename": "a.mp4"},
        "openai file data": {"type": "file", "file": {"file_data": url, "filename": "a.mp4"}},
    }


@pytest.mark.parametrize("form", list(parts(Path("a.mp4"), "")))
def test_all_forms_reach_the_same_video(server, sent, form):
    path, data, question, answer = sent
    if form == "vllm sent before":
        server.chat(
            [text(question.text), {**parts(path, data)["llama-server url"], "uuid": "again"}]
        )
    n_before = server.n_read()
    response = server.chat([text(""), parts(path, data)[form], text(question.text)])
    assert answer_of(response) == answer
    assert server.n_read() == n_before


@pytest.mark.process
def test_an_uploaded_file_is_asked_by_its_id(server, sent):
    path, _, question, answer = sent
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any")
    with path.open("rb") as file:
        uploaded = client.files.create(file=file, purpose="user_data")
    assert uploaded.bytes == path.stat().st_size
    assert uploaded.id in [entry.id for entry in client.files.list()]
    part = {"type": "file", "file": {"file_id": uploaded.id}}
    messages: Any = [{"role": "user", "content": [part, text(question.text)]}]
    found = client.chat.completions.create(model="any", messages=messages)
    assert found.choices[0].message.content == answer
    assert client.files.content(uploaded.id).read() == path.read_bytes()
    assert client.files.delete(uploaded.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="any", messages=messages)


def test_a_stream_has_a_role_the_text_a_reason_and_the_usage(server, sent):
    path, _, question, answer = sent
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any")
    messages: Any = [{"role": "user", "content": [file_url(path), text(question.text)]}]
    chunks: Any = list(
        client.chat.completions.create(
            model="any", messages=messages, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    said = [chunk.choices[0] for chunk in chunks[:-1]]
    assert "".join(choice.delta.content or "" for choice in said).strip() == answer
    assert [choice.finish_reason for choice in said][-1] == "stop"
    assert chunks[-2].retake["evidence"] is not None


def test_responses_as_inspect_sends_them(server, sent):
    _, data, question, answer = sent
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any")
    url = f"data:video/mp4;base64,{data}"
    content = [
        {"type": "input_file", "file_data": url, "filename": "a.mp4"},
        {"type": "input_text", "text": question.text},
    ]
    asked: Any = [{"type": "message", "role": "user", "content": content}]
    found = client.responses.create(model="any", input=asked, store=False)
    assert (found.status, found.output_text.strip()) == ("completed", answer)
    with client.responses.stream(model="any", input=asked) as stream:
        kinds = [event.type for event in stream]
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"


def test_frames_as_images_are_a_video(server):
    scene = make_scene(100, 12.0)
    images = [cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) for frame in frames(scene, 2.0, 224)]
    urls = [
        "data:image/png;base64,"
        + base64.b64encode(cv2.imencode(".png", image)[1].tobytes()).decode()
        for image in images
    ]
    content = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    response = server.chat([*content, text("Which shape is it?")], fps=2)
    video = response.json()["retake"]["video"]
    assert (response.status_code, video["n_frames"]) == (200, len(urls))
    assert video["duration_s"] == pytest.approx(len(urls) / 2)


def test_knobs_reach_the_reading_from_wherever_they_stand(server, scenes):
    path, questions = scenes[0]
    part, asked = file_url(path), text(questions[0].text)

    def frames_seen(part, **more):
        return server.chat([part, asked], **more).json()["retake"]["video"]["n_frames"]

    assert frames_seen(part, fps=1) == 12
    assert frames_seen(part, media_io_kwargs={"video": {"num_frames": 6, "fps": -1}}) == 6
    url = part["video_url"]["url"]
    assert frames_seen({"type": "video_url", "video_url": {"url": url, "max_frames": 4}}) == 4
    assert frames_seen(part, start=4, end="0:08") == 8
    assert server.chat([part, asked], keep_ratio=7).status_code == 400


def test_a_later_turn_reuses_the_cells_of_the_turns_before(server, scenes):
    path, questions = scenes[1]
    first, second = questions[0].text, questions[1].text
    response = server.chat([file_url(path), text(first)])
    before = [
        {"role": "user", "content": [file_url(path), text(first)]},
        {"role": "assistant", "content": answer_of(response)},
    ]
    n_cached = response.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    follow = server.chat(second, before=before).json()["usage"]["prompt_tokens_details"]
    assert follow["cached_tokens"] > n_cached
    # Another conversation in between changes nothing.
    one = answer_of(server.chat(second, before=before))
    server.chat([file_url(path), text("Is there a red card?")])
    assert answer_of(server.chat(second, before=before)) == one


def test_two_videos_in_one_conversation_are_refused(server, scenes):
    both = [file_url(scenes[0][0]), file_url(scenes[1][0]), text("What is it?")]
    response = server.chat(both)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "several_videos")


def test_a_stop_word_ends_the_text(server, sent):
    path, _, question, answer = sent
    content = [file_url(path), text(question.text)]
    assert answer_of(server.chat(content, stop=[answer[-1]])) == answer[: answer.index(answer[-1])]


def test_max_tokens_of_a_harness_is_obeyed(server, sent):
    path, _, _, _ = sent
    asked = [file_url(path), text("When does the green card appear?")]
    found = server.chat(asked, max_tokens=1, temperature=0).json()
    assert found["usage"]["completion_tokens"] == 1
    assert found["choices"][0]["finish_reason"] == "length"


def test_a_guided_reading_is_for_its_question_alone(server, scenes):
    path, questions = scenes[2]
    first, second = questions[0].text, questions[1].text

    def guide_of(question, **more):
        answer = server.chat([file_url(path), text(question)], keep_ratio=0.3, **more)
        return answer.json()["retake"]["video"]["guide"]

    n_read = server.n_read()
    assert guide_of(first, guided=True) == first
    assert guide_of(second, guided=True) == second
    assert guide_of(first) == ""
    assert server.n_read() == n_read + 3
    assert guide_of(second, guided=True) == second
    assert server.n_read() == n_read + 3
    before = [
        {"role": "user", "content": [file_url(path), text(first)]},
        {"role": "assistant", "content": "Red."},
    ]
    for asked in (
        server.chat([text(second)], before=before, guided=True),
        server.chat([file_url(path), text(first)], guided="yes"),
    ):
        assert asked.status_code == 400 and asked.json()["error"]["param"] == "guided"
