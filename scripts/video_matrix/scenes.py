"""A video with known answers in many forms: `ask` must give the same answer and the same time.

The demo video shows a red card with the number 70 at 0:14 to 0:16 and a green card from 0:32.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from video_matrix.bytes_of import turn
from video_matrix.case import Step, make_file
from video_matrix.cases_codecs import AV1, MPEG2, VP9, X264, X265

NUMBER, WHEN = "What number is on the red card?", "When does the green card appear?"


@dataclass(frozen=True)
class Form:
    """One form of the demo video, when its cards appear (None: cut away), and for how long."""

    name: str
    steps: tuple[Step, ...]
    red_s: float | None = 14.0
    green_s: float | None = 32.0
    stays_s: float = 2.0


def forms() -> list[Form]:
    """Return every form; each is made from the demo video, named `demo` in the steps."""
    first, second = "-t 20 -i demo", "-ss 20 -i demo"
    lines = "-flags +ilme+ildct -x264opts tff=1"
    weave = "-vf fps=50,scale=448:448,tinterlace=interleave_top,setfield=tff"
    one_key = (
        "-i demo -c:v libx264 -preset veryfast -crf 18 -g 600 -keyint_min 600 -sc_threshold 0 -bf 2"
    )
    slides = "+".join(f"eq(n\\,{n})" for n in (20, 64, 116, 180, 260, 300))
    held = (
        f"-i demo -vf 'select={slides},settb=1/1000,setpts=N*10/TB' "
        "-fps_mode passthrough -enc_time_base 1/1000"
    )
    dvd = "fps=50,scale=720:576,tinterlace=interleave_top,setfield=tff,setsar=16/15"
    tone = "-f lavfi -i sine=sample_rate=48000:duration=69"
    return [
        Form("cat.ts", (f"{first} {X264} a.ts", f"{second} {X264} b.ts", "cat a.ts b.ts > cat.ts")),
        Form(
            "cat.mpg",
            (
                f"{first} {MPEG2} -r 25 a.mpg",
                f"{second} {MPEG2} -r 25 b.mpg",
                "cat a.mpg b.mpg > cat.mpg",
            ),
        ),
        Form(
            "late.mp4",
            (f"{tone} -itsoffset 5 -i demo -map 1:v -map 0:a -c:v copy -c:a aac",),
            19.0,
            37.0,
        ),
        Form("clip.mp4", (f"{one_key} whole.mp4", "-ss 30 -t 12 -i whole.mp4 -c copy"), None, 2.0),
        Form("interlaced.mkv", (f"-i demo {weave} -c:v libx264 -crf 18 -pix_fmt yuv420p {lines}",)),
        Form("plain.mpg", (f"-i demo {MPEG2} -r 25",)),
        Form(
            "turned.mp4",
            (
                f"-i demo -vf transpose=2 {X264} plain.mp4",
                turn("turned.mp4", "plain.mp4", 0, 1, -1, 0),
            ),
        ),
        Form(
            "preview_first.mkv",
            (
                f"-i demo -i demo -map 0 -map 1 {X264} -filter:v:0 negate,scale=64:64 "
                "-disposition:v:0 0 -disposition:v:1 0",
            ),
        ),
        Form("disc.vob", (f"-i demo -vf {dvd} {MPEG2} -flags +ilme+ildct -pix_fmt yuv420p",)),
        Form("held.mp4", (f"{held} {X264}",), 20.0, None, 10.0),
        Form("copied.mkv", ("-i demo -c copy",)),
        Form("copied.mov", ("-i demo -c copy",)),
        Form("copied.ts", ("-i demo -c copy",)),
        Form("phone.mov", (f"-i demo {X265} -tag:v hvc1".replace("yuv420p", "yuv420p10le"),)),
        Form("hub.webm", (f"-i demo {VP9} -f webm -live 1",)),
        Form("hub.mp4", (f"-i demo {AV1}",)),
        Form("old.avi", ("-i demo -c:v libxvid -q:v 2 -bf 2",)),
        Form("old.wmv", ("-i demo -c:v wmv2 -q:v 2",)),
        Form("old.flv", ("-i demo -c:v flv1 -q:v 2",)),
        Form("old.ogv", ("-i demo -c:v libtheora -q:v 9",)),
        Form("edit.mov", ("-i demo -c:v prores_ks",)),
        Form("camera.avi", ("-i demo -c:v mjpeg -q:v 2 -pix_fmt yuvj420p",)),
        Form("changing.mkv", (f"-i demo -vf mpdecimate -fps_mode vfr {X264}",)),
        Form("wrapped.ts", (f"-i demo {X264} -output_ts_offset 95420",)),
        Form(
            "fragmented.mp4",
            (
                f"{tone} -i demo -map 1:v -map 0:a {X264} -c:a aac "
                "-movflags empty_moov+frag_keyframe",
            ),
        ),
    ]


def faults_of(form: Form, path: Path) -> list[str]:
    """Ask about a made form and name every wrong answer or time."""
    cards = {NUMBER: form.red_s, WHEN: form.green_s}
    asked = {question: card_s for question, card_s in cards.items() if card_s is not None}
    faults = []
    for answer in ask(path, list(asked)):
        question, card_s = answer["question"], asked[answer["question"]]
        right = "70" if question == NUMBER else f"{int(card_s) // 60}:{int(card_s) % 60:02d}"
        if answer["text"] != right:
            faults.append(f"{question} {answer['text']!r}, not {right!r}")
        first_s = answer["evidence"][0]["start_s"]
        if not card_s - 1.0 <= first_s <= card_s + form.stays_s:
            faults.append(f"{question} evidence at {first_s} s, not {card_s} s")
    return faults


def ask(path: Path, questions: list[str]) -> list[dict[str, Any]]:
    """Ask the command line, without the cache, and return its JSON answers."""
    command = [sys.executable, "-m", "retake_edge", "ask", str(path), "-m", "tiny"]
    done = subprocess.run(
        [*command, "--questions", "-", "--json", "--no-cache"],
        input="\n".join(questions) + "\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode:
        raise RuntimeError(f"{path.name}: exit {done.returncode}: {done.stderr.strip()[-400:]}")
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def judge(form: Form, folder: Path) -> list[str]:
    """Make a form in `folder`, ask, and name what is wrong."""
    try:
        return faults_of(form, make_file(form.name, form.steps, folder, folder))
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]


def main() -> int:
    """Ask about every form; the exit code is 1 where an answer or a time differs."""
    named = [f for f in forms() if not sys.argv[1:] or f.name in sys.argv[1:]]
    n_right = 0
    with tempfile.TemporaryDirectory(prefix="video-scenes-") as scratch:
        for form in named:
            faults = judge(form, Path(scratch) / form.name)
            n_right += not faults
            print(f"{form.name:20} {'; '.join(faults) or 'ok'}", flush=True)
    print(f"{n_right} of {len(named)} forms give the same answers and times")
    return 0 if n_right == len(named) else 1


if __name__ == "__main__":
    sys.exit(main())
