"""Time: rates, offsets, held pictures, edit lists, joined recordings, wraps, missing stamps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from video_matrix.bytes_of import cut, cut_ts, edit, stamp_flv, stamp_ts
from video_matrix.case import Case, Truth, case, even
from video_matrix.cases_codecs import AV1, MPEG1, MPEG2, MPEG4, TONE, VP8, VP9, X264, X265

SLOW = "'settb=1/1000,setpts=(if(lt(N\\,10)\\,N*0.3\\,3+(N-10)*0.04))/TB'"
ONE_KEY = (
    "-c:v libx264 -preset veryfast -crf 16 -g 600 -keyint_min 600 -sc_threshold 0 -bf 2 "
    "-pix_fmt yuv420p"
)
AVI_SLOW = "-fps_mode passthrough -c:v mpeg4 -q:v 2"
PASS = "-fps_mode passthrough -enc_time_base 1/1000"


def rates() -> list[Case]:
    """Constant rates, slow and fast, and rates that change."""
    ntsc, film = 30000 / 1001, 24000 / 1001
    slow_then_fast = tuple(k * 0.3 if k < 10 else 3 + (k - 10) * 0.04 for k in range(60))
    changing = Truth(tuple(range(60)), slow_then_fast, slow_then_fast[-1] + 0.04)
    vfr = f"-i src:25:0:60 -vf {SLOW} {PASS}"
    return [
        case("rate_29_97.mp4", f"-i src:30000/1001:0:100 {X264}", truth=even(100, ntsc)),
        case("rate_23_976.mkv", f"-i src:24000/1001:0:100 {X265}", truth=even(100, film)),
        case("rate_59_94.ts", f"-i src:60000/1001:0:150 {X264}", truth=even(150, 60000 / 1001)),
        case("rate_120.mp4", f"-i src:120:0:240 {X264}", truth=even(240, 120)),
        case("rate_240.mkv", f"-i src:240:0:250 {X264}", truth=even(250, 240)),
        case("rate_1.mkv", f"-i src:1:0:40 {X264}", truth=even(40, 1)),
        case("rate_0_1.mp4", f"-i src:1/10:0:20 {X264}", truth=even(20, 0.1)),
        case("rate_0_1.webm", f"-i src:1/10:0:20 {VP9}", truth=even(20, 0.1)),
        case("rate_5.ts", f"-i src:5:0:40 {X265}", truth=even(40, 5)),
        case("vfr.mp4", f"{vfr} {X264} -video_track_timescale 1000", truth=changing),
        case("vfr.mov", f"{vfr} {X264}", truth=changing),
        case("vfr.mkv", f"{vfr} {X265}", truth=changing),
        case("vfr.webm", f"{vfr} {VP9}", truth=changing),
        case("vfr.flv", f"{vfr} -c:v flv1 -q:v 2", truth=changing),
        case("vfr.wmv", f"{vfr} -c:v wmv2 -q:v 2", truth=changing),
        case("vfr.ts", f"{vfr} {X264}", truth=changing),
        case("vfr_av1.mp4", f"{vfr} {AV1}", truth=changing),
        case("vfr.gif", f"{vfr} -c:v gif", truth=changing),
        case("long_gop.mp4", f"{ONE_KEY}"),
        case("all_intra.mov", f"{X264} -g 1 -bf 0"),
        case("open_gop.mkv", f"{X264} -x264opts open-gop=1:keyint=24:bframes=3"),
        case("open_gop_hevc.mp4", X265.replace("keyint=24", "keyint=24:open-gop=1")),
        case("two_frames.mp4", f"-i src:25:0:2 {X264}", truth=even(2)),
        *[case(f"one_frame.{e}", f"-i src:25:0:1 {X264}", truth=even(1)) for e in ("mp4", "mkv")],
        case("one_frame.ts", f"-i src:25:0:1 {X264}", truth=even(1)),
        case("one_frame.webm", f"-i src:25:0:1 {VP8}", truth=even(1)),
        case("one_frame.gif", "-i src:25:0:1", truth=even(1), mark="still"),
    ]


def held() -> list[Case]:
    """Slides and screen recordings: a stored picture that stays for long."""
    slides = Truth(tuple(range(6)), tuple(5.0 * k for k in range(6)), 30.0)
    ended = replace(slides, end_s=25.04)  # the last one as long as the encoder said
    step = f"-i src:25:0:6 -vf settb=1/1000,setpts=N*5/TB {PASS}"
    sound = "-f lavfi -i sine=duration=30"
    slow_sound = f"-i src:25:0:6 {sound} -vf settb=1/1000,setpts=N*5/TB {PASS}"
    starts = (0.0, 0.5, 0.54, 7.0, 7.1, 7.14, 19.0, 19.04)
    screen = Truth(tuple(range(8)), starts, 19.08)
    at = "+".join(f"eq(N\\,{k})*{t}" for k, t in enumerate(starts))
    recorder = f"-i src:25:0:8 -vf 'settb=1/1000,setpts=({at})/TB' {PASS}"
    return [
        case("slides.mp4", f"{step} {X264}", truth=slides),
        case("slides.mkv", f"{step} {X264}", truth=ended),
        case("slides_hevc.mov", f"{step} {X265}", truth=ended),
        case("slides.webm", f"{step} {VP9}", truth=ended),
        case(
            "slides_sound.mp4",
            f"-i src:25:0:6 {sound} -vf settb=1/1000,setpts=N*5/TB {PASS} {X264} -c:a aac",
            truth=slides,
        ),
        case(
            "slides_sound.flv",
            f"{slow_sound} -c:v flv1 -q:v 2 -ar 44100 -c:a libmp3lame",
            truth=slides,
        ),
        case("slides.gif", f"{step} -c:v gif -final_delay 500", truth=slides),
        case("screen_recorder.mkv", f"{recorder} {X264}", truth=screen),
        case("screen_recorder.mov", f"{recorder} {X265}", truth=screen),
        case("screen_recorder.webm", f"{recorder} {VP8}", truth=screen),
        case(
            "meeting.mp4",
            f"-f lavfi -i sine=duration=25 {recorder} {X264} -c:a aac",
            truth=screen,
        ),
    ]


def offsets() -> list[Case]:
    """Clocks that do not start at 0, and pictures that begin before or after the sound."""
    late = (
        "-f lavfi -i sine=sample_rate=48000:duration=9 -itsoffset 5 -i src "
        "-map 1:v -map 0:a -fps_mode passthrough"
    )
    sound_late = "-i src -itsoffset 2 -f lavfi -i sine=sample_rate=48000:duration=4"
    five = even(offset_s=5.0)
    # Without an edit list, the first picture begins at once and is held.
    first_held = Truth(tuple(range(100)), (0.08, *(5.0214 + k / 25 for k in range(1, 100))), 9.0214)
    return [
        case("start_5s.mkv", f"{X264} -output_ts_offset 5"),
        case("start_1h.ts", f"{X264} -output_ts_offset 3600"),
        case("start_5s.webm", f"{VP9} -output_ts_offset 5"),
        case("start_7s.flv", "-c:v flv1 -q:v 2 -output_ts_offset 7"),
        case(
            "start_5s_fragmented.mp4",
            f"{X264} -output_ts_offset 5 -movflags empty_moov+frag_keyframe+default_base_moof",
        ),
        case("no_edit_list.mp4", f"{X264} -use_editlist 0"),
        case("negative_cts.mp4", f"{X264} -movflags +negative_cts_offsets"),
        case("late_video.mp4", f"{late} {X264} -c:a aac", truth=five),
        case("late_video.mov", f"{late} {X265} -tag:v hvc1 -c:a aac", truth=five),
        case("late_video.mkv", f"{late} {X264} -c:a aac", truth=five),
        case("late_video.webm", f"{late} {VP9} -c:a libopus", truth=five),
        case("late_video.ts", f"{late} {X264} -c:a aac", truth=five),
        case("late_video.mpg", f"{late} {MPEG2} -c:a mp2", truth=five),
        case("late_video.flv", f"{late} {X264} -c:a aac", truth=five),
        case(
            "late_video_fragmented.mp4",
            f"{late} {X264} -c:a aac -movflags empty_moov+frag_keyframe",
            truth=first_held,
        ),
        case("late_sound.mp4", f"{sound_late} {X264} -c:a aac"),
        case("late_sound.ts", f"{sound_late} {X264} -c:a aac"),
        case("long_sound.mp4", f"-i src -f lavfi -i sine=duration=9 {X264} -c:a aac", mark="sound"),
        case("long_sound.mkv", f"-i src -f lavfi -i sine=duration=9 {X264} -c:a aac", mark="sound"),
        case("long_sound.ts", f"-i src -f lavfi -i sine=duration=9 {X264} -c:a aac", mark="sound"),
        case("short_sound.mp4", f"-i src -f lavfi -i sine=duration=1 {X264} -c:a aac"),
        case("short_sound.webm", f"-i src -f lavfi -i sine=duration=1 {VP9} -c:a libopus"),
        case("wrap.ts", f"{X264} -output_ts_offset 95441"),
        case("wrap_sound.ts", f"{TONE} {MPEG2} -c:a mp2 -output_ts_offset 95441"),
        case("wrap.m2ts", f"{X265} -output_ts_offset 95441"),
    ]


def cuts() -> list[Case]:
    """Lossless cuts, whose hidden packets an edit list or a negative time marks."""
    after = Truth(tuple(range(40, 100)), tuple(k / 25 for k in range(60)), 2.4)
    keyed = X264.replace("-g 24", "-g 24 -keyint_min 24 -sc_threshold 0")
    from_key = even(76, 25, first=24)
    return [
        case("cut.mp4", f"{ONE_KEY} whole.mp4", "-ss 1.6 -i whole.mp4 -c copy", truth=after),
        case("cut.mov", f"{ONE_KEY} whole.mov", "-ss 1.6 -i whole.mov -c copy", truth=after),
        case(
            "cut_sound.mp4",
            f"{TONE} {ONE_KEY} -c:a aac whole.mp4",
            "-ss 1.6 -i whole.mp4 -c copy",
            truth=after,
        ),
        case(
            "cut_hevc.mp4",
            X265.replace("keyint=24", "keyint=600") + " whole.mp4",
            "-ss 1.6 -i whole.mp4 -c copy",
            truth=after,
        ),
        case(
            "cut_both.mp4",
            f"{ONE_KEY} -bf 0 whole.mp4",
            "-ss 0.8 -t 2 -i whole.mp4 -c copy",
            truth=even(50, 25, first=20),
        ),
        case(
            "cut_at_key.mp4", f"{keyed} whole.mp4", "-ss 0.96 -i whole.mp4 -c copy", truth=from_key
        ),
        case(
            "cut.ts",
            f"{keyed} whole.ts",
            "-ss 0.97 -i whole.ts -c copy",
            truth=from_key,
            mark="cut",
        ),
        case(
            "cut_open_gop.mp4",
            X265.replace("keyint=24", "keyint=24:min-keyint=24:open-gop=1:scenecut=0")
            + " whole.mp4",
            "-ss 0.97 -i whole.mp4 -c copy",
            truth=even(75, 25, first=25),
            mark="cut",
        ),
    ]


def joined() -> list[Case]:
    """Recordings put together with `cat`: the clock starts again at each join."""

    def two(name: str, video: str, kind: str, **other: Any) -> Case:
        parts = [
            f"-i src:25:{a}:{b} {video} {c}.{kind}" for a, b, c in ((0, 50, "a"), (50, 100, "b"))
        ]
        return case(name, *parts, f"cat a.{kind} b.{kind} > {name}", **other)

    sound = "-f lavfi -i sine=sample_rate=48000:duration=2"
    with_sound = [
        f"-i src:25:{a}:{b} {sound} {X264} -c:a aac {c}.ts"
        for a, b, c in ((0, 50, "a"), (50, 100, "b"))
    ]
    disc = [
        f"-i src:25:{a}:{b} {sound} {MPEG2} -c:a ac3 {c}.vob"
        for a, b, c in ((0, 50, "a"), (50, 100, "b"))
    ]
    three = [f"-i src:25:{a}:{a + 33} {X264} {c}.ts" for a, c in ((0, "a"), (33, "b"), (66, "c"))]
    back = [
        f"-i src:25:0:50 {X264} -output_ts_offset 500 a.ts",
        f"-i src:25:50:100 {X264} -output_ts_offset 20 b.ts",
    ]
    ahead = [f"-i src:25:0:50 {X264} a.ts", f"-i src:25:50:100 {X264} -output_ts_offset 500 b.ts"]
    return [
        two("cat.ts", X264, "ts"),
        two("cat_hevc.ts", X265, "ts"),
        two("cat.m2ts", X264, "m2ts"),
        two("cat_mpeg2.ts", MPEG2, "ts"),
        two("cat.mpg", MPEG2, "mpg"),
        two("cat_mpeg1.mpg", MPEG1, "mpg"),
        two("cat.vob", MPEG2, "vob"),
        two("cat.h264", X264, "h264"),
        two("cat.m2v", MPEG2, "m2v"),
        two("cat.mjpeg", "-c:v mjpeg -q:v 2 -pix_fmt yuvj420p", "mjpeg"),
        two("cat.m4v", MPEG4 + " -f m4v", "m4v"),
        case("cat_sound.ts", *with_sound, "cat a.ts b.ts > cat_sound.ts"),
        *joined_containers(),
        # ffmpeg takes the piece's last picture, which comes late, for another join.
        case("cat_sound.vob", *disc, "cat a.vob b.vob > cat_sound.vob", mark="wild"),
        case("cat_three.ts", *three, "cat a.ts b.ts c.ts > cat_three.ts", truth=even(99)),
        case("cat_back.ts", *back, "cat a.ts b.ts > cat_back.ts"),
        case("cat_ahead.ts", *ahead, "cat a.ts b.ts > cat_ahead.ts"),
        case(
            "cat_sizes.ts",
            f"-i src:25:0:50 {X264} a.ts",
            f"-i src:25:50:100:352x288 {X264} b.ts",
            "cat a.ts b.ts > cat_sizes.ts",
            min_psnr_db=24.0,
        ),
    ]


def joined_containers() -> list[Case]:
    """Containers that are read to their end: ffmpeg shows the first piece, or mixes the clocks."""
    fragments = f"{X264} -movflags empty_moov+frag_keyframe"
    videos = {
        "cat.mp4": X264,
        "cat_index_first.mp4": f"{X264} -movflags +faststart",
        "cat.mov": X265,
        "cat_fragmented.mp4": fragments,
        "cat_fragmented_base.mp4": f"{fragments}+default_base_moof",
        "cat.mkv": X264,
        "cat_live.mkv": f"{X264} -live 1",
        "cat.webm": VP9,
        "cat_live.webm": f"{VP8} -live 1",
        "cat.flv": "-c:v flv1 -q:v 2",
        "cat.ivf": VP9,
        "cat.ogv": "-c:v libtheora -q:v 9",
        "cat.wmv": "-c:v wmv2 -q:v 2",
        "cat.avi": "-c:v mpeg4 -q:v 2",
        "cat.gif": "-c:v gif",
        "cat.dv": "-target pal-dv",
    }
    cases = []
    for name, video in videos.items():
        kind = name.rsplit(".", 1)[1]
        size = ":720x576" if kind == "dv" else ""
        parts = [f"-i src:25:{a}:{a + 50}{size} {video} {a}.{kind}" for a in (0, 50)]
        steps = (*parts, f"cat 0.{kind} 50.{kind} > {name}")
        truth = even(aspect=4 / 3) if size else even()
        cases.append(case(name, *steps, truth=truth, mark="wild interlaced" if size else "wild"))
    tone = "-f lavfi -i sine=sample_rate=48000:duration"
    pcm = f"{tone}=1.5 {X264} -c:a pcm_s16le"
    sounds = [f"-i src:25:{a}:{a + 25} {pcm} {a}.mkv" for a in (0, 25, 50, 75)]
    starts_s = tuple(1.5 * (k // 25) + k % 25 / 25 for k in range(100))  # the sound goes on
    late = replace(even(), starts_s=tuple(t + (t >= 2) for t in even().starts_s), end_s=5.0)
    return [
        *cases,
        case(
            "cat_sound.mkv",
            *sounds,
            "cat 0.mkv 25.mkv 50.mkv 75.mkv > cat_sound.mkv",
            truth=Truth(tuple(range(100)), starts_s, 5.5),
            mark="wild once",
        ),
        case(
            "cat_late.mp4",
            f"-i src:25:0:50 {X264} a.mp4",
            f"{tone}=3 -itsoffset 1 -i src:25:50:100 -map 1:v -map 0:a -fps_mode passthrough "
            f"{X264} -c:a aac b.mp4",
            "cat a.mp4 b.mp4 > cat_late.mp4",
            truth=late,
            mark="wild",
        ),
        case(
            "cat_sizes.mp4",
            f"-i src:25:0:50 {X264} a.mp4",
            f"-i src:25:50:100:352x288 -vf setsar=4/3 {X265} b.mp4",
            "cat a.mp4 b.mp4 > cat_sizes.mp4",
            mark="wild",
        ),
        case(
            "cat_part_lost.mp4",
            f"-i src:25:0:100 {X264} a.mp4",
            cut("b.mp4", "a.mp4", 0.5),
            "cat a.mp4 b.mp4 > cat_part_lost.mp4",
            mark="wild damaged",
        ),
    ]


def stamps() -> list[Case]:
    """Time stamps that are missing or wild."""

    def setts(expression: str) -> str:
        return f"-i plain.mkv -c copy -bsf:v setts=ts='{expression}'"

    no_b = X264.replace("-bf 3", "-bf 0")
    twice = Truth(tuple(range(100)), tuple((k - (k % 10 == 5)) / 25 for k in range(100)), 4.0)
    return [
        case("bare_hevc.h265", f"{X265} -f hevc"),
        case("bare_b_frames.avi", f"{X264} -bf 2"),
        case(
            "wild_ahead.flv",
            "-c:v flv1 -q:v 2 plain.flv",
            stamp_flv("wild_ahead.flv", "plain.flv", 50, 600_000),
            mark="wild",
            blur=1,
        ),
        case(
            "wild_back.flv",
            "-c:v flv1 -q:v 2 plain.flv",
            stamp_flv("wild_back.flv", "plain.flv", 50, -1500),
            mark="wild",
            blur=1,
        ),
        case(
            "wild_ahead.ts",
            f"{no_b} plain.ts",
            stamp_ts("wild_ahead.ts", "plain.ts", 50, 3600.0),
            mark="wild",
            blur=1,
        ),
        case(
            "wild_back.ts",
            f"{no_b} plain.ts",
            stamp_ts("wild_back.ts", "plain.ts", 50, -1.5),
            mark="wild",
            blur=1,
        ),
        case(
            "same_twice.mkv",
            f"{no_b} plain.mkv",
            setts("if(eq(mod(N\\,10)\\,5)\\,PTS-40\\,PTS)"),
            truth=twice,
            mark="wild",
            blur=1,
        ),
    ]


def mixtures() -> list[Case]:
    """Several of these oddities in one file."""
    sound = "-f lavfi -i sine=sample_rate=48000:duration"
    ticks = 12800  # of the track, for 25 frames a second
    edited = Truth((*range(50, 75), *range(25)), tuple(k / 25 for k in range(50)), 2.0)
    # Nothing is shown for a second: the file starts with its first picture.
    paused = Truth((*range(25), *range(50, 75)), tuple(k / 25 for k in range(50)), 2.0)
    keyed = X264.replace("-bf 3", "-bf 0 -keyint_min 24 -sc_threshold 0")
    gap = Truth(
        tuple(range(100)), tuple(k / 25 + (1.0 if k >= 50 else 0.0) for k in range(100)), 5.0
    )
    sound_first = replace(
        gap, starts_s=tuple(t + 0.0213 for t in gap.starts_s), end_s=gap.end_s + 0.0213
    )
    avi = Truth(
        tuple(range(60)),
        tuple(k * 0.32 if k < 10 else 3.2 + (k - 10) * 0.04 for k in range(60)),
        5.2,
    )
    stepped = "'settb=1/25,setpts=if(lt(N\\,10)\\,N*8\\,80+N-10)'"
    return [
        case(
            "two_edits.mp4",
            f"{keyed} plain.mp4",
            edit("two_edits.mp4", "plain.mp4", [(1000, 2 * ticks), (1000, 0)]),
            truth=edited,
        ),
        case(
            "pause_and_edits.mp4",
            f"{keyed} plain.mp4",
            edit("pause_and_edits.mp4", "plain.mp4", [(1000, -1), (1000, 0), (1000, 2 * ticks)]),
            truth=paused,
        ),
        case("vfr.avi", f"-i src:25:0:60 -vf {stepped} {AVI_SLOW}", truth=avi),
        case("wrap.mpg", f"{MPEG2} -output_ts_offset 95441"),
        case(
            "cat_wrap.ts",
            f"-i src:25:0:50 {X264} -output_ts_offset 95441 a.ts",
            f"-i src:25:50:100 {X264} -output_ts_offset 30 b.ts",
            "cat a.ts b.ts > cat_wrap.ts",
        ),
        case(
            "cat_gap.ts",
            f"-i src:25:0:50 {keyed} a.ts",
            f"-i src:25:50:100 {keyed} -output_ts_offset 3 b.ts",
            "cat a.ts b.ts > cat_gap.ts",
            truth=gap,
        ),
        case(
            "cat_overlap.ts",
            f"-i src:25:0:50 {X264} a.ts",
            f"-i src:25:50:100 {X264} -output_ts_offset 1 b.ts",
            "cat a.ts b.ts > cat_overlap.ts",
        ),
        case(
            "late_wrap.ts",
            f"{sound}=9 -itsoffset 5 -i src -map 1:v -map 0:a -fps_mode passthrough {X264} "
            "-c:a aac -output_ts_offset 95440",
            truth=even(offset_s=5.0),
        ),
        case(
            "cat_late.ts",
            f"{sound}=2 -i src:25:0:50 -map 1:v -map 0:a {keyed} -c:a aac a.ts",
            f"{sound}=3 -itsoffset 1 -i src:25:50:100 -map 1:v -map 0:a -fps_mode passthrough "
            f"{keyed} -c:a aac b.ts",
            "cat a.ts b.ts > cat_late.ts",
            truth=sound_first,
            mark="wild once",
            blur=1,  # sound lasts 0.02 s longer
        ),
    ]


def recorder_starts_between_keys() -> list[Case]:
    """A surveillance recorder that begins in the middle of a group of pictures."""

    def step(name: str) -> Callable[[Path], None]:
        return cut_ts(name, "whole.ts", 0.1)

    return [
        case(
            "starts_between_keys.ts",
            f"{X264} whole.ts",
            step("starts_between_keys.ts"),
            truth=even(78, 25, first=22, offset_s=0.68),
            mark="damaged",
        ),
    ]


def cases() -> list[Case]:
    return [
        *rates(),
        *held(),
        *offsets(),
        *cuts(),
        *joined(),
        *stamps(),
        *mixtures(),
        *recorder_starts_between_keys(),
    ]
