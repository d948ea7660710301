"""A task of inspect-ai: the questions of a JSONL file."""

import json
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageUser, ContentText, ContentVideo
from inspect_ai.scorer import includes
from inspect_ai.solver import generate


@task
def scenes(data):
    samples = []
    for line in Path(data).read_text().splitlines():
        asked = json.loads(line)
        content = [
            ContentVideo(video=asked["video"], format="mp4"),
            ContentText(text=asked["question"]),
        ]
        samples.append(Sample(input=[ChatMessageUser(content=content)], target=asked["answer"]))
    return Task(dataset=samples, solver=generate(), scorer=includes())
