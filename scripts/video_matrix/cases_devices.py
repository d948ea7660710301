"""What phones, recorders, browsers, cameras and servers leave behind: several oddities at once."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from video_matrix import bytes_of
from video_matrix.case import Case, Truth, case, even
from video_matrix.cases_clocks import ONE_KEY, PASS, SLOW
from video_matrix.cases_codecs import AV1, MPEG2, TONE, VP8, VP9, X264, X265
from video_matrix.cases_pictures import MATRICES, TEN_BITS, fields, hdr, turned, weave

SLOW_THEN_FAST = tuple(k * 0.3 if k < 10 else 3 + (k - 10) * 0.04 for k in range(60))
CHANGING = Truth(tuple(range(60)), SLOW_THEN_FAST, SLOW_THEN_FAST[-1] + 0.04)
VFR = f"-i src:25:0:60 -vf {SLOW} {PASS}"
FRAGMENTS = "-movflags empty_moov+frag_keyframe+default_base_moof"
KEYED = X264.replace("-g 24", "-g 25 -keyint_min 25 -sc_threshold 0")


def join(*parts: str, name: str) -> str:
    """Return the step that puts files together."""
    return f"cat {' '.join(parts)} > {name}"


def phones() -> list[Case]:
    """Turned, cut without encoding again, ten bits, sound that begins first."""
    cut = even(60, 25, first=40)
    one_key = TEN_BITS.replace("keyint=24", "keyint=600")
    quarter = MATRICES["turned_90"][0]
    side = turned("turned_90")
    cut_side = Truth(cut.numbers, cut.starts_s, cut.end_s, side.corners, side.aspect)
    return [
        case(
            "phone_cut_90.mov",
            f"{TONE} {one_key} -tag:v hvc1 -c:a aac whole.mov",
            "-ss 1.6 -i whole.mov -c copy plain.mov",
            bytes_of.turn("phone_cut_90.mov", "plain.mov", *quarter),
            truth=cut_side,
        ),
        case(
            "phone_vfr_90.mp4",
            f"{VFR} {X264} plain.mp4",
            bytes_of.turn("phone_vfr_90.mp4", "plain.mp4", *quarter),
            truth=Truth(
                CHANGING.numbers, CHANGING.starts_s, CHANGING.end_s, side.corners, side.aspect
            ),
        ),
        case(
            "phone_fragmented_90.mp4",
            f"{TONE} {X264} -c:a aac {FRAGMENTS} plain.mp4",
            bytes_of.turn("phone_fragmented_90.mp4", "plain.mp4", *quarter),
            truth=side,
        ),
        case(
            "phone_joined.mp4",  # one held upright, one held sideways
            f"-i src:25:0:50 {X264} a.mp4",
            f"-i src:25:50:100 {X264} plain.mp4",
            bytes_of.turn("b.mp4", "plain.mp4", *MATRICES["turned_180"][0]),
            bytes_of.turn("c.mp4", "a.mp4", *MATRICES["turned_180"][0]),
            join("c.mp4", "b.mp4", name="phone_joined.mp4"),
            truth=turned("turned_180"),
            mark="wild",
        ),
        case(
            "cut_twice.mp4",
            f"{ONE_KEY} a.mp4",
            "-ss 0.8 -i a.mp4 -c copy b.mp4",
            "-ss 0.8 -i b.mp4 -c copy",
            truth=cut,
        ),
        case(
            "cut_b_frames.mp4",
            f"{ONE_KEY.replace('-bf 2', '-bf 5')} a.mp4",
            "-ss 1.6 -i a.mp4 -c copy",
            truth=cut,
        ),
        case("cut.mkv", f"{KEYED} a.mkv", "-ss 1.5 -i a.mkv -c copy", truth=even(75, 25, first=25)),
        case("hinted.mp4", f"{TONE} {X264} -c:a aac -movflags rtphint"),
        case("smooth.ismv", f"{TONE} {X264} -c:a aac -f ismv"),
        case("flash.f4v", f"{TONE} {X264} -c:a aac -f f4v"),
        case("player.m4v", f"{TONE} {X264} -c:a aac -f ipod"),
    ]


def recorders() -> list[Case]:
    """Screen recorders and browsers: killed, without a length, with pauses."""
    slides = Truth(tuple(range(6)), tuple(5.0 * k for k in range(6)), 25.04)
    slow = f"-i src:25:0:6 -vf settb=1/1000,setpts=N*5/TB {PASS}"
    return [
        case(
            "killed.mkv",
            f"{TONE} {X264} -c:a aac whole.mkv",
            bytes_of.cut("killed.mkv", "whole.mkv", 0.7),
            mark="damaged length",
        ),
        case(
            "killed_fragmented.mp4",
            f"{TONE} {X264} -bf 0 -c:a aac {FRAGMENTS} whole.mp4",
            bytes_of.cut("killed_fragmented.mp4", "whole.mp4", 0.7),
            mark="damaged length",
        ),
        case(
            "killed.webm",
            f"{TONE} {VP8} -c:a libopus -live 1 -f webm whole.webm",
            bytes_of.cut("killed.webm", "whole.webm", 0.7),
            mark="damaged length",
        ),
        case(
            "killed.flv",
            f"{TONE} {X264} -c:a aac whole.flv",
            bytes_of.cut("killed.flv", "whole.flv", 0.7),
            mark="damaged length",
        ),
        case("browser_vfr.webm", f"{VFR} {VP9} -f webm -live 1", truth=CHANGING),
        case("browser_h264.mkv", f"{VFR} {X264} -bf 0 -f matroska -live 1", truth=CHANGING),
        case("browser_slides.webm", f"{slow} {VP8} -f webm -live 1", truth=slides),
        case("fragmented_slides.mp4", f"{slow} {X264} {FRAGMENTS}", truth=slides, mark="length"),
        case("fragmented_vfr.mp4", f"{VFR} {X264} {FRAGMENTS}", truth=CHANGING),
        case("intra_refresh.mp4", f"{ONE_KEY.replace('-bf 2', '-bf 0')} -intra-refresh 1 -g 30"),
        case("intra_refresh.ts", f"{ONE_KEY.replace('-bf 2', '-bf 0')} -intra-refresh 1 -g 30"),
        case("no_length.flv", f"{X264} -flvflags no_duration_filesize"),
        case("low_delay.mkv", f"{TONE} {X264} -tune zerolatency -c:a libopus"),
    ]


def segments() -> list[Case]:
    """Streams that were saved in parts and put together again."""
    dash = (
        "-f dash -seg_duration 1 -use_template 1 -init_seg_name init -media_seg_name $Number$.m4s"
    )
    hls = "-f hls -hls_time 1 -hls_list_size 0 -hls_segment_filename"
    parts = tuple(f"{k}.m4s" for k in (1, 2, 3, 4))
    late = even(50, 25, first=50)
    gap = Truth(
        (*range(25), *range(50, 100)), tuple(k / 25 for k in (*range(25), *range(50, 100))), 4.0
    )
    ts = tuple(f"{k}.ts" for k in range(4))
    return [
        case(
            "dash_joined.mp4",
            f"{KEYED} {dash} list.mpd",
            join("init", *parts, name="dash_joined.mp4"),
        ),
        case(
            "dash_late.mp4",
            f"{KEYED} {dash} list.mpd",
            join("init", *parts[2:], name="dash_late.mp4"),
            truth=late,
        ),
        case(
            "dash_part_missing.mp4",
            f"{KEYED} {dash} list.mpd",
            join("init", parts[0], *parts[2:], name="dash_part_missing.mp4"),
            truth=gap,
        ),
        case(
            "dash_hevc.mp4",
            X265.replace("keyint=24", "keyint=25:min-keyint=25:scenecut=0") + f" {dash} list.mpd",
            join("init", *parts, name="dash_hevc.mp4"),
        ),
        case(
            "dash_no_start.mp4",
            f"{KEYED} {dash} list.mpd",
            join(*parts[1:], name="dash_no_start.mp4"),
            mark="refused",
        ),
        case(
            "hls_joined.ts",
            f"{TONE} {KEYED} -c:a aac {hls} %d.ts list.m3u8",
            join(*ts, name="hls_joined.ts"),
        ),
        case(
            "hls_part_missing.ts",
            f"{KEYED} {hls} %d.ts list.m3u8",
            join(ts[0], *ts[2:], name="hls_part_missing.ts"),
            truth=gap,
        ),
        case(
            "hls_parts.mp4",
            f"{KEYED} -hls_segment_type fmp4 {hls} %d.m4s list.m3u8",
            join("init.mp4", "0.m4s", *parts[:3], name="hls_parts.mp4"),
        ),
        case("hls_list.m3u8", f"{KEYED} {hls} %d.ts hls_list.m3u8", mark="refused"),
        case("dash_list.mpd", f"{KEYED} {dash} dash_list.mpd", mark="refused"),
    ]


def cameras() -> list[Case]:
    """Camcorders, discs, broadcast and what editors make of them."""
    lines = "-flags +ilme+ildct"
    avchd = f"-c:v libx264 -preset veryfast -crf 14 {lines} -x264opts tff=1"
    half = [
        f"-i src:50:{a}:{a + 50} -vf tinterlace=interleave_top,setfield=tff {avchd} "
        f"-pix_fmt yuv420p {a}.m2ts"
        for a in (0, 50)
    ]
    disc = "-f lavfi -i sine=duration=4 -f lavfi -i sine=duration=4"
    return [
        case(
            "avchd_joined.m2ts",
            *half,
            join("0.m2ts", "50.m2ts", name="avchd_joined.m2ts"),
            truth=fields(),
            mark="interlaced",
            blur=1,
        ),
        case("disc_two_sounds.vob", f"-i src {disc} -map 0 -map 1 -map 2 {MPEG2} -c:a ac3"),
        case("recorded_tv.wtv", f"{TONE} {MPEG2} -c:a mp2"),
        case(
            "dnxhd.mov",
            "-i src:25:0:10:1920x1080 -c:v dnxhd -b:v 120M -pix_fmt yuv422p",
            truth=even(10, 25, aspect=16 / 9),
        ),
        case(
            "broadcast.gxf",
            "-i src:25:0:50:720x576 -c:v mpeg2video -q:v 2 -g 12 -aspect 4:3",
            truth=even(50, aspect=4 / 3),
        ),
        case("prores_proxy_pcm.mov", f"{TONE} -c:v prores_ks -profile:v 0 -c:a pcm_s24le"),
        case(
            "dvcpro50.mov",
            "-i src:25:0:25:720x576 -c:v dvvideo -pix_fmt yuv422p -aspect 4:3",
            truth=even(25, aspect=4 / 3),
            mark="interlaced",
        ),
        case(
            "interlaced_hevc_turned.mov",
            "-vf scale=176:72:flags=area,setsar=1/2 "
            + X265.replace("log-level", "interlace=tff:log-level")
            + " plain.mov",
            bytes_of.turn("interlaced_hevc_turned.mov", "plain.mov", *MATRICES["turned_180"][0]),
            truth=turned("turned_180"),
        ),
        case("ffv1_interlaced.mkv", *weave("-c:v ffv1"), truth=fields(), mark="interlaced", blur=1),
    ]


def web() -> list[Case]:
    """Web video: hidden frames of VP8 and VP9, grain, colours of HDR, old players' formats."""
    hidden8 = (
        "-c:v libvpx -deadline good -cpu-used 4 -auto-alt-ref 1 -lag-in-frames 16 -b:v 1M -g 48"
    )
    hidden9 = hidden8.replace("libvpx", "libvpx-vp9")
    px = "-pix_fmt yuv420p"
    return [
        *[case(f"hidden_vp8.{e}", f"{hidden8} {px}") for e in ("webm", "mkv", "ivf", "avi")],
        *[case(f"hidden_vp9.{e}", f"{hidden9} {px}") for e in ("webm", "mp4", "ivf")],
        case(
            "cat_hidden_vp8.webm",
            f"-i src:25:0:50 {hidden8} {px} a.webm",
            f"-i src:25:50:100 {hidden8} {px} b.webm",
            join("a.webm", "b.webm", name="cat_hidden_vp8.webm"),
            mark="wild",
        ),
        case("grain_av1.mp4", f"{AV1} -svtav1-params film-grain=8", min_psnr_db=24.0),
        case(
            "aom_av1.mkv",
            f"-i src:25:0:50 -c:v libaom-av1 -cpu-used 8 -crf 25 -lag-in-frames 16 -g 24 {px}",
            truth=even(50),
        ),
        case(
            "aom_av1.ivf",
            f"-i src:25:0:50 -c:v libaom-av1 -cpu-used 8 -crf 25 -lag-in-frames 16 -g 24 {px}",
            truth=even(50),
        ),
        case("rav1e.mp4", f"-i src:25:0:50 -c:v librav1e -speed 10 -qp 60 {px}", truth=even(50)),
        case(
            "rav1e_b.mkv",
            f"-i src:25:0:50 -c:v librav1e -speed 10 -qp 60 -rav1e-params low_latency=false {px}",
            truth=even(50),
        ),
        # Two pictures in one packet, and an empty packet for the other: ffmpeg is a frame late.
        case("xvid_packed.avi", "-c:v libxvid -q:v 2 -g 24 -bf 2", mark="wild", blur=1),
        case("divx_sound.avi", f"{TONE} -c:v mpeg4 -vtag DX50 -q:v 2 -bf 2 -c:a libmp3lame"),
        case("rv10.rm", "-c:v rv10 -q:v 2"),
        case("rv20_sound.rm", f"{TONE} -c:v rv20 -q:v 2 -c:a ac3"),
        case("flash.swf", f"{TONE} -c:v flv1 -q:v 2 -c:a libmp3lame -ar 44100"),
        case("h263_sound.3gp", f"{TONE} -c:v h263 -q:v 2 -c:a aac", truth=even(aspect=4 / 3)),
        case(
            "wmv_sound_first.wmv",
            "-f lavfi -i sine=duration=6 -itsoffset 2 -i src -map 1:v "
            "-map 0:a -fps_mode passthrough -c:v wmv2 -q:v 2 -c:a wmav2",
            truth=even(offset_s=2.0),
        ),
    ]


# EXIF's numbers for the ways a camera is held.
EXIF = {
    2: "mirrored",
    3: "turned_180",
    4: "upside_down",
    5: "mirrored_90",
    6: "turned_90",
    7: "mirrored_270",
    8: "turned_270",
}


def exif(name: str, source: str, orientation: int) -> Callable[[Path], None]:
    """Write a JPEG that says how it was held."""

    def step(folder: Path) -> None:
        data = (folder / source).read_bytes()
        tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)
        body = b"Exif\0\0" + tiff
        (folder / name).write_bytes(
            data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
        )

    return step


def exif_all(folder: Path) -> None:
    """Write the photos of a time lapse as q001.jpg and so on, with EXIF."""
    for path in sorted(folder.glob("p*.jpg")):
        exif(f"q{path.name[1:]}", path.name, 1)(folder)


def picture_tag(folder: Path) -> None:
    """Write a cover as Ogg's players expect it, in a comment."""
    jpeg = (folder / "cover.jpg").read_bytes()
    block = (
        struct.pack(">II", 3, 10)
        + b"image/jpeg"
        + struct.pack(">IIIIII", 0, 640, 480, 24, 0, len(jpeg))
        + jpeg
    )
    text = base64.b64encode(block).decode()
    (folder / "tags.txt").write_text(
        f";FFMETADATA1\nMETADATA_BLOCK_PICTURE={text.replace('=', chr(92) + '=')}\n"
    )


def pictures() -> list[Case]:
    """Still pictures as phones and pages have them, and sound with covers."""
    one = even(1, 25)
    cover = "-i src:25:200:201:640x480 -frames:v 1 cover.jpg"
    tone = "-f lavfi -i sine=duration=3"
    return [
        case(
            "photo.jpg",
            "-frames:v 1 -q:v 2 plain.jpg",
            exif("photo.jpg", "plain.jpg", 1),
            truth=one,
            mark="still",
        ),
        *[  # ffmpeg 5.1 does not turn photos
            case(
                f"photo_{way}.jpg",
                "-frames:v 1 -q:v 2 plain.jpg",
                exif(f"photo_{way}.jpg", "plain.jpg", number),
                truth=replace(one, corners=turned(way).corners, aspect=turned(way).aspect),
                mark="still wild",
            )
            for number, way in EXIF.items()
        ],
        case(
            "photo_film.avi",
            "-c:v mjpeg -q:v 2 -pix_fmt yuvj420p p%03d.jpg",
            exif_all,
            "-i q%03d.jpg -c copy -r 25",
            truth=even(),
        ),
        case("still.bmp", "-frames:v 1", truth=one, mark="still"),
        case("still.gif", "-frames:v 1", truth=one, mark="still"),
        case("still.tiff", "-frames:v 1", truth=one, mark="still"),
        case(
            "still.avif",
            "-frames:v 1 -c:v libaom-av1 -cpu-used 8 -crf 20 -still-picture 1",
            truth=one,
            mark="still",
        ),
        case("still_lossless.webp", "-frames:v 1 -lossless 1", truth=one, mark="still"),
        case("still_gray16.png", "-frames:v 1 -pix_fmt gray16be", truth=one, mark="still gray"),
        case(
            "still_palette.png",
            "-frames:v 1 -pix_fmt pal8",
            truth=one,
            mark="still",
            min_psnr_db=24.0,
        ),
        case("still_alpha.png", "-frames:v 1 -pix_fmt rgba64be", truth=one, mark="still"),
        case("still_cmyk.jpg", "-frames:v 1 -q:v 2 -pix_fmt yuvj444p", truth=one, mark="still"),
        case(
            "animated.avif",
            "-i src:25:0:50 -c:v libaom-av1 -cpu-used 8 -crf 20 -pix_fmt yuv420p",
            truth=even(50),
        ),
        case(
            "animated_alpha.apng", "-i src:25:0:50 -c:v apng -f apng -pix_fmt rgba", truth=even(50)
        ),
        case("animated.png", "-i src:25:0:50 -c:v apng -f apng", truth=even(50)),
        case("loop.gif", "-i src:25:0:50 -loop 3", truth=even(50)),
        case(
            "palette.avi",
            "-i src:25:0:50 -c:v rawvideo -pix_fmt pal8",
            truth=even(50),
            min_psnr_db=20.0,
        ),
        case(
            "raw_nv12.mkv",
            "-i src:25:0:50 -c:v rawvideo -pix_fmt nv12 -allow_raw_vfw 1",
            truth=even(50),
        ),
        case(
            "song.ogg",
            cover,
            picture_tag,
            f"{tone} -i tags.txt -map_metadata 1 -c:a libvorbis",
            mark="refused",
        ),
        case(
            "song.opus",
            cover,
            picture_tag,
            f"{tone} -i tags.txt -map_metadata 1 -c:a libopus",
            mark="refused",
        ),
        case(
            "song.mka",
            cover,
            f"{tone} -c:a aac -attach cover.jpg -metadata:s:t mimetype=image/jpeg "
            "-metadata:s:t filename=cover.jpg",
            mark="refused",
        ),
        case("radio.ts", f"{tone} -c:a aac", mark="refused"),
        case("only_sound.mp4", f"{tone} -c:a aac", mark="refused"),
        case("only_sound.webm", f"{tone} -c:a libopus", mark="refused"),
        case("only_sound.wav", f"{tone}", mark="refused"),
        case(
            "cover_unmarked.mov",
            cover,
            f"{X264} film.mov",
            "-i film.mov -i cover.jpg -map 0 -map 1 -c copy -disposition:v:0 0 "
            "-disposition:v:1 default",
            mark="wild",
        ),
        case(
            "hdr_vp9.webm",
            hdr("arib-std-b67", VP9.replace("yuv420p", "yuv420p10le") + " -profile:v 2"),
            mark="hdr",
        ),
        case("hdr_av1.mp4", hdr("smpte2084", AV1.replace("yuv420p", "yuv420p10le")), mark="hdr"),
    ]


def cases() -> list[Case]:
    return [*phones(), *recorders(), *segments(), *cameras(), *web(), *pictures()]
