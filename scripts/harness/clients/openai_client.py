"""Ask by OpenAI's own client: an uploaded file, a stream with its usage, and responses."""

import base64
import json
import sys
from pathlib import Path
from typing import Any

from openai import OpenAI

messages: Any
content: Any
client = OpenAI(base_url=sys.argv[1], api_key="any")
found: list[str] = []
for number, asked in enumerate(json.load(sys.stdin)):
    path, question = Path(asked["video"]), asked["question"]
    if number % 3 == 0:
        file = client.files.create(file=path, purpose="user_data")
        part = {"type": "file", "file": {"file_id": file.id}}
        messages = [{"role": "user", "content": [part, {"type": "text", "text": question}]}]
        whole = client.chat.completions.create(model="tiny", messages=messages)
        found.append(whole.choices[0].message.content or "")
    elif number % 3 == 1:
        part = {"type": "video_url", "video_url": {"url": f"file://{path}"}}
        messages = [{"role": "user", "content": [part, {"type": "text", "text": question}]}]
        chunks = client.chat.completions.create(
            model="tiny", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        said = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
        found.append("".join(said))
    else:
        url = f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"
        content = [
            {"type": "input_file", "filename": path.name, "file_data": url},
            {"type": "input_text", "text": question},
        ]
        messages = [{"role": "user", "content": content}]
        found.append(client.responses.create(model="tiny", input=messages).output_text)
print("\n" + json.dumps(found))
