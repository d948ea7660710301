"""How tests of the server write parts and read answers."""


def file_url(path):
    return {"type": "video_url", "video_url": {"url": f"file://{path}"}}


def text(words):
    return {"type": "text", "text": words}


def answer_of(response):
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]
