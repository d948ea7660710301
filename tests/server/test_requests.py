"""Each wrong request gets one error in OpenAI's form, with the right status."""

import base64
import json
from typing import Any

import pytest
from server_support import file_url, text

PNG = b"\x89PNG\r\n\x1a\n"
ASKED = text("What is it?")


def b64(data):
    return base64.b64encode(data).decode()


def video(url):
    return {"type": "video_url", "video_url": url}


def image(url):
    return {"type": "image_url", "image_url": {"url": url}}


def data_url(kind, data):
    return f"data:{kind};base64,{b64(data)}"


def schema(**inside):
    return {"type": "json_schema", "json_schema": {"schema": inside}}


def error_of(response, status):
    assert response.status_code == status, response.text
    body = response.json()
    assert list(body) == ["error"] and set(body["error"]) == {"message", "type", "code", "param"}
    message = body["error"]["message"]
    assert message and "\n" not in message and "Traceback" not in message
    assert len(message) < 400
    return body["error"]


DEEP: dict[str, Any] = {"type": "string"}
for _ in range(400):
    DEEP = {"type": "array", "items": DEEP}

# What else stands beside a good video and question: the field that the error names.
FIELDS: list[tuple[dict[str, Any], str | None]] = [
    ({"max_tokens": "many"}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": -1}, "temperature"),
    ({"top_p": 5}, "top_p"),
    ({"top_k": 2**40}, "top_k"),
    ({"min_p": 2}, "min_p"),
    ({"repeat_penalty": -1}, "repeat_penalty"),
    ({"frequency_penalty": 1}, "frequency_penalty"),
    ({"n": 10**9}, "n"),
    ({"n": 0}, "n"),
    ({"model": 5}, "model"),
    ({"stop": 5}, "stop"),
    ({"stop": [5]}, "stop"),
    ({"stop": ["x"] * 1000}, "stop"),
    ({"stream": "x"}, "stream"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"logprobs": True}, "logprobs"),
    ({"logit_bias": {"1": 100}}, "logit_bias"),
    ({"response_format": {"type": "x"}}, "response_format"),
    ({"response_format": schema(type="nonesuch")}, None),
    ({"response_format": schema(type="string", minLength=10**9)}, None),
    ({"response_format": schema(type="string", pattern="(((a{99}){99}){99}){99}")}, None),
    ({"response_format": schema(**DEEP)}, None),
    ({"response_format": schema(**{"$ref": "https://127.0.0.1/x"})}, None),
    ({"grammar": "root ::= ("}, "grammar"),
    ({"grammar": 5}, "grammar"),
    ({"grammar": 'root ::= "a\0"'}, None),
    ({"grammar": "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000}, None),
    ({"fps": "x"}, "fps"),
    ({"fps": 1e9}, "fps"),
    ({"max_frames": 1.5}, "max_frames"),
    ({"kv_budget": 10**12}, "kv_budget"),
    ({"keep_ratio": 7}, "keep_ratio"),
    ({"start": 10, "end": 5}, "end"),
    ({"start": 1000}, None),
    ({"start": "soon"}, None),
    ({"mm_processor_kwargs": 5}, "mm_processor_kwargs"),
    ({"media_io_kwargs": {"video": {"num_frames": "x"}}}, "num_frames"),
]


@pytest.mark.parametrize(
    ("fields", "param"), FIELDS, ids=[f"{n} {next(iter(f))}" for n, (f, _) in enumerate(FIELDS)]
)
def test_a_wrong_field_is_told_by_its_name(server, scenes, fields, param):
    # httpx would refuse to write half of a surrogate pair, and a client need not.
    body = {"messages": [{"role": "user", "content": [file_url(scenes[0][0]), ASKED]}], **fields}
    headers = {"Content-Type": "application/json"}
    response = server.http.post("/v1/chat/completions", content=json.dumps(body), headers=headers)
    error = error_of(response, 400)
    assert error["param"] == param and "--" not in error["message"]


def test_a_budget_that_nothing_fits_into_is_not_the_videos_fault(server, scenes):
    response = server.chat([file_url(scenes[0][0]), ASKED], kv_budget=1)
    assert error_of(response, 422)["code"] == "does_not_fit"


@pytest.mark.parametrize(
    ("part", "status", "code"),
    [
        (video({"url": "data:video/mp4;base64,@@@"}), 400, "400"),
        (video({"url": "data:video/mp4;base64,"}), 400, "400"),
        (video({"url": "data:video/mp4"}), 400, "400"),
        (video({"data": "!!!"}), 400, "400"),
        (video({"data": ""}), 400, "400"),
        (video(5), 400, "400"),
        (video([5]), 400, "400"),
        (video([]), 400, "video_missing"),
        (video(None), 400, "400"),
        ({**video(None), "uuid": "never sent"}, 404, "not_found"),
        ({**video(None), "uuid": 5}, 400, "400"),
        (video({"url": "ftp://example.com/a.mp4"}), 400, "400"),
        (video({"url": "http://example.com/a.mp4"}), 403, "url_not_allowed"),
        (video({"url": "file://elsewhere/a.mp4"}), 400, "400"),
        (video({"url": "file:///a\0b.mp4"}), 400, "400"),
        (video({"url": "file:///" + "a" * 5000}), 403, "path_not_allowed"),
        (video({"url": "file:///etc/passwd"}), 403, "path_not_allowed"),
        (video({"url": data_url("video/mp4", b"junk" * 99)}), 415, "video_unreadable"),
        ({"type": "file", "file": {"file_id": "file-none"}}, 404, "file_not_found"),
        ({"type": "file", "file": {}}, 400, "400"),
        ({"type": "file", "file": 5}, 400, "400"),
        ({"type": "input_audio", "input_audio": {"data": "x"}}, 400, "400"),
        ({"text": "no type"}, 400, "400"),
        (5, 400, "400"),
        (image(data_url("image/png", b"no image")), 415, "415"),
        (image(data_url("image/png", PNG + bytes(99))), 415, "415"),
        (image(data_url("image/jpeg", b"\xff\xd8\xff" + bytes(99))), 415, "415"),
        (image("data:image/png;base64,"), 415, "415"),
        (image("data:image/png;base64,@"), 400, "400"),
        (image("http://example.com/a.png"), 403, "url_not_allowed"),
        (image("file:///etc/passwd"), 403, "path_not_allowed"),
    ],
)
def test_a_part_that_holds_no_video_is_refused(server, part, status, code):
    assert error_of(server.chat([part, ASKED]), status)["code"] == code


def test_images_beside_a_video_are_refused(server, scenes):
    both = [file_url(scenes[0][0]), image(data_url("image/png", PNG)), ASKED]
    assert "images and a video" in error_of(server.chat(both), 400)["message"]


@pytest.mark.parametrize(
    "messages",
    [
        *([], None, 5, {}, ["hi"], [None], [{}], [{"role": "user"}]),
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": "no video"}],
        [{"role": "tool", "content": "x"}],
        [{"role": ["user"], "content": "x"}],
        [{"role": "user", "content": "x"}] * 3000,
    ],
)
def test_messages_without_a_question_about_a_video_are_refused(server, messages):
    response = server.http.post("/v1/chat/completions", json={"messages": messages})
    assert error_of(response, 400)["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b'"x"', b"null", b"\xff\xfe", b"[" * 100_000),
        b'{"messages": [NaN], "n": ' + b"9" * 5000 + b"}",
        b'{"messages": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}",
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_a_body_that_is_no_json_object_is_refused(server, path, body):
    headers = {"Content-Type": "application/json"}
    assert error_of(server.http.post(path, content=body, headers=headers), 400)["param"] != ""


def test_json_under_another_name_is_told_to_be_named(server, scenes):
    body = {"messages": [{"role": "user", "content": [file_url(scenes[0][0]), ASKED]}]}
    response = server.http.post("/v1/chat/completions", content=json.dumps(body))
    assert "application/json" in error_of(response, 400)["message"]


@pytest.mark.parametrize(
    "body",
    [
        *({}, {"input": 5}, {"input": []}, {"input": [5]}, {"input": "no video"}),
        {"input": "x", "previous_response_id": "resp_1"},
        {"input": [{"type": "item_reference", "id": "x"}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "@"}]}]},
    ],
)
def test_a_wrong_response_is_refused(server, body):
    error_of(server.http.post("/v1/responses", json=body), 400)


def test_what_is_not_there_has_an_error_too(server):
    get = server.http.get
    for path in ("/nope", "/v1/files/file-x", "/v1/files/file-x/content", "/v1/models/none"):
        assert error_of(get(path), 404)["type"] == "not_found_error"
    error_of(get("/v1/chat/completions"), 405)
    error_of(server.http.delete("/v1/files/file-x"), 404)


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"json": {}},
        {"data": {"file": "x"}},
        {"files": {"other": b"1"}},
        {"files": {"file": ("a.mp4", b"")}},
        {"content": b"z", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
        {"content": b"z", "headers": {"Content-Type": "multipart/form-data"}},
    ],
)
def test_an_upload_without_a_file_is_refused(server, sent):
    error_of(server.http.post("/v1/files", **sent), 400)


@pytest.mark.parametrize("n", [10**30, 10**9, 0, -1])
def test_any_number_of_tokens_is_taken(server, scenes, n):
    assert server.chat([file_url(scenes[0][0]), ASKED], max_tokens=n).status_code == 200


def test_a_grammar_is_followed_and_one_that_never_ends_is_not(server, scenes):
    content = [file_url(scenes[0][0]), ASKED]
    answered = server.chat(content, grammar='root ::= "yes" | "no"').json()
    assert answered["choices"][0]["message"]["content"] in ("yes", "no")
    endless = " ".join(['"a"?'] * 2000)
    assert error_of(server.chat(content, grammar=f"root ::= {endless}"), 400)["code"] == "400"
    assert server.chat(content).status_code == 200
