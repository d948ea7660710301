"""Ask by VLMEvalKit's LMDeployAPI: questions on stdin, answers on stdout."""

import json
import sys

from vlmeval.api import LMDeployAPI

url, local = sys.argv[1], sys.argv[2] == "local"
api = LMDeployAPI(
    model="tiny", api_base=f"{url}/chat/completions", retry=1, video_llm=True, local_media=local
)
found = []
for asked in json.load(sys.stdin):
    message = [
        {"type": "text", "value": ""},
        {"type": "video", "value": asked["video"]},
        {"type": "text", "value": asked["question"]},
    ]
    found.append(api.generate(message))
print("\n" + json.dumps(found))
