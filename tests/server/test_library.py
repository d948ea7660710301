"""What the page asks the server for: opened videos, their conversations, and what goes on."""

import json
import time
from dataclasses import replace

import pytest
from server_support import PATIENCE_S, running

from retake_edge.bench.scenes.questions import grade


@pytest.fixture
def own(tmp_path, limits):
    """A server with a library of its own."""
    with running(tmp_path / "cache", limits) as made:
        yield made


def opened(server, path):
    response = server.http.post("/api/videos", json={"path": str(path)})
    assert response.status_code == 200, response.text
    return response.json()["id"]


def video_of(server, video_id):
    return server.http.get(f"/api/videos/{video_id}").json()


def settled(server, video_id):
    """Wait until nothing goes on about a video; return it."""
    with server.http.stream("GET", f"/api/videos/{video_id}/live") as stream:
        told = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
    assert told[-1]["is_idle"]
    return video_of(server, video_id)


def ask(server, video_id, question, chat=""):
    body = {"question": question, "chat": chat}
    response = server.http.post(f"/api/videos/{video_id}/questions", json=body)
    assert response.status_code == 202, response.text
    return response.json()["chat"]


def turns_of(server, video_id, chat):
    return server.http.get(f"/api/videos/{video_id}/chats/{chat}").json()["turns"]


def until(true):
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_video_is_read_and_then_answers_with_where_it_looked(own, scenes):
    path, questions = scenes[0]
    video_id = opened(own, path)
    video = settled(own, video_id)
    facts = video["facts"]
    assert (video["state"], facts["name"], facts["end_s"]) == ("read", path.name, 12.0)
    assert len(facts["pictures"]) == len(facts["times_s"]) > 0
    chat = ask(own, video_id, questions[0].text)
    video = settled(own, video_id)
    (turn,) = turns_of(own, video_id, chat)
    assert grade(questions[0], turn["text"])
    assert len(turn["weights"]) == len(facts["times_s"])
    assert sum(turn["weights"]) == pytest.approx(1, abs=0.01)
    assert [head["title"] for head in video["chats"]] == [questions[0].text]
    assert own.n_read() == 1


def test_a_question_asked_before_the_video_is_read_waits_for_it(own, scenes, reading_gate):
    path, questions = scenes[1]
    reading_gate.shut()
    video_id = opened(own, path)
    reading_gate.reached()
    chat = ask(own, video_id, questions[0].text)
    until(lambda: "time_s" in (video_of(own, video_id)["live"]["reading"]["progress"] or {}))
    video = video_of(own, video_id)
    progress = video["live"]["reading"]["progress"]
    assert (video["state"], progress["end_s"]) == ("reading", 12.0)
    assert 0 < progress["time_s"] <= 12
    assert video["live"]["answers"][0]["question"] == questions[0].text
    reading_gate.open()
    settled(own, video_id)
    assert grade(questions[0], turns_of(own, video_id, chat)[0]["text"])
    assert own.n_read() == 1


def test_a_stopped_reading_goes_on_when_it_is_asked_for(own, scenes, reading_gate):
    path, _ = scenes[2]
    reading_gate.shut()
    video_id = opened(own, path)
    reading_gate.reached()
    assert own.http.delete(f"/api/videos/{video_id}/reading").json()["state"] == "unread"
    reading_gate.open()
    assert own.http.post(f"/api/videos/{video_id}/reading").json()["state"] == "reading"
    assert settled(own, video_id)["state"] == "read"


def test_a_stopped_answer_keeps_what_it_says_so_far(own, scenes, answer_gate):
    path, questions = scenes[0]
    video_id = opened(own, path)
    settled(own, video_id)
    answer_gate.shut()
    chat = ask(own, video_id, questions[0].text)
    answer_gate.reached()
    until(lambda: video_of(own, video_id)["live"]["answers"][0]["text"])
    busy = own.http.post(
        f"/api/videos/{video_id}/questions", json={"question": "And?", "chat": chat}
    )
    assert busy.status_code == 409
    own.http.delete(f"/api/videos/{video_id}/chats/{chat}/answer")
    answer_gate.open()
    (turn,) = turns_of(own, video_id, chat)
    assert (turn["is_stopped"], turn["weights"]) == (True, None)
    ask(own, video_id, questions[1].text, chat)
    settled(own, video_id)
    assert len(turns_of(own, video_id, chat)) == 2


def test_all_is_there_after_a_restart_and_nothing_is_read_again(tmp_path, limits, scenes):
    path, questions = scenes[0]
    with running(tmp_path, limits) as first:
        video_id = opened(first, path)
        chat = ask(first, video_id, questions[0].text)
        before = settled(first, video_id)
        turns = turns_of(first, video_id, chat)
    (tmp_path / "library" / video_id / "chat-broken.json").write_text("{")
    with running(tmp_path, limits) as second:
        after = video_of(second, video_id)
        assert (after["facts"], after["chats"]) == (before["facts"], before["chats"])
        assert (after["state"], turns_of(second, video_id, chat)) == ("read", turns)
        assert after["media"] != before["media"]
        ask(second, video_id, questions[1].text, chat)
        settled(second, video_id)
        assert len(turns_of(second, video_id, chat)) == 2
        assert second.n_read() == 0


def test_a_video_and_a_conversation_can_be_forgotten(own, scenes):
    data = scenes[3][0].read_bytes()
    file_id = own.http.post("/v1/files", files={"file": ("holiday.mp4", data)}).json()["id"]
    video = own.http.post("/api/videos", json={"file_id": file_id}).json()
    assert video["name"] == "holiday.mp4"
    chat = ask(own, video["id"], "What is it?")
    media = settled(own, video["id"])["media"]
    assert own.http.delete(f"/api/videos/{video['id']}/chats/{chat}").status_code == 200
    assert video_of(own, video["id"])["chats"] == []
    own.http.delete(f"/api/videos/{video['id']}")
    assert own.http.get("/api/videos").json() == {"videos": []}
    for path in (f"/api/videos/{video['id']}", media, f"/v1/files/{file_id}"):
        assert own.http.get(path).status_code == 404
    assert not list((own.service.blobs.folder.parent / "library").iterdir())


def test_a_file_that_is_no_video_says_why_and_can_be_tried_again(own):
    file_id = own.http.post("/v1/files", files={"file": ("a.mp4", b"no video" * 99)}).json()["id"]
    video = own.http.post("/api/videos", json={"file_id": file_id}).json()
    found = settled(own, video["id"])
    assert found["state"] == "failed"
    assert found["live"]["reading"]["error"]["code"] == "video_unreadable"
    chat = ask(own, video["id"], "What is it?")
    (answer,) = settled(own, video["id"])["live"]["answers"]
    assert (answer["chat"], answer["error"]["code"]) == (chat, "video_unreadable")
    own.http.delete(f"/api/videos/{video['id']}/chats/{chat}/answer")
    assert video_of(own, video["id"])["live"]["answers"] == []


def test_a_file_that_has_changed_is_not_taken_for_the_one_before(tmp_path, limits, scenes):
    folder = tmp_path / "media"
    folder.mkdir()
    file = folder / "a.mp4"
    file.write_bytes(scenes[0][0].read_bytes())
    with running(tmp_path / "cache", replace(limits, media_roots=(folder,))) as server:
        video_id = opened(server, file)
        media = settled(server, video_id)["media"]
        file.write_bytes(scenes[1][0].read_bytes())
        ask(server, video_id, "What is it?")
        (answer,) = settled(server, video_id)["live"]["answers"]
        assert answer["error"]["code"] == "changed"
        assert server.http.get(media).status_code == 409


def test_a_player_gets_the_parts_it_asks_for_by_a_ticket_alone(guarded, scenes):
    key = {"Authorization": "Bearer open-sesame"}
    path = scenes[0][0]
    get = guarded.http.get
    body = {"path": str(path)}
    assert guarded.http.post("/api/videos", json=body).status_code == 401
    video = guarded.http.post("/api/videos", json=body, headers=key).json()
    media = get(f"/api/videos/{video['id']}", headers=key).json()["media"]
    part = get(media, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, path.read_bytes()[10:20])
    assert "sandbox" in part.headers["content-security-policy"]
    assert get(f"/media/{'x' * 32}").status_code == 404
    assert get(media, headers={"Origin": "http://evil.example"}).status_code == 403


def test_folders_below_the_media_path_are_told_and_no_others(tmp_path, limits, scenes):
    root = tmp_path / "media"
    (root / "b").mkdir(parents=True)
    for name in ("z.mp4", "a.MKV", "notes.txt", ".hidden.mp4", "b/c.webm"):
        (root / name).write_bytes(b"x")
    (root / "out").symlink_to("/etc")
    with running(tmp_path / "cache", replace(limits, media_roots=(root,))) as server:

        def names(path):
            found = server.http.get("/api/folder", params={"path": path})
            return [entry["name"] for entry in found.json()["entries"]]

        assert names("") == ["b", "a.MKV", "z.mp4"]
        assert names(str(root / "b")) == ["c.webm"]
        for path in ("/", "/etc", str(root / ".."), str(root / "out"), "a\0b"):
            refused = server.http.get("/api/folder", params={"path": path})
            assert refused.status_code == 404


def test_the_page_and_its_files_need_no_key_and_no_one_else(guarded):
    page = guarded.http.get("/")
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert guarded.http.get("/page/app.js").headers["content-type"].startswith("text/javascript")
    tag = guarded.http.get("/page/app.js").headers["etag"]
    assert guarded.http.get("/page/app.js", headers={"If-None-Match": tag}).status_code == 304
    for path in ("/page/..%2Ffacts.py", "/page/../facts.py", "/page/none.js", "/page/"):
        assert guarded.http.get(path).status_code in (401, 404)
    assert guarded.http.get("/api/videos").status_code == 401
