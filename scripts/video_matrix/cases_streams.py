"""Several streams in one file, container forms, and damage."""

from __future__ import annotations

from pathlib import Path

from video_matrix import bytes_of
from video_matrix.case import Case, case
from video_matrix.cases_codecs import AV1, MPEG2, TONE, VP8, VP9, X264, X265

# Numbers 128 and more belong to the stream that must not be taken.
OTHER = "src:25:128:228"
SOUND = "-f lavfi -i sine=sample_rate=48000:duration=4"
SMALL = f"{OTHER}:88x72"
LARGE = "src:25:0:100:352x288"
COVER = "-i src:25:200:201:640x480 -frames:v 1 cover.jpg"


def choice() -> list[Case]:
    """Which stream is the film: never a cover, the default one, then the largest."""
    two = f"-i {SMALL} -i {LARGE} -map 0 -map 1 {X264}"
    cover_first = "-i cover.jpg -i film.mp4 -map 0 -map 1 -c copy -disposition:v:0 attached_pic"
    podcast = "-i tone.m4a -i cover.jpg -map 0 -map 1 -c copy -disposition:v:0 attached_pic"
    return [
        case("preview_first.mp4", two + " -disposition:v:0 default -disposition:v:1 default"),
        case("preview_first.mkv", two + " -disposition:v:0 0 -disposition:v:1 0"),
        case("preview_first.ts", two),
        case("preview_default.mkv", two + " -disposition:v:0 0 -disposition:v:1 default"),
        case(
            "two_angles.mkv",
            f"-i {OTHER} -i src -map 0 -map 1 {X264} -disposition:v:0 0 -disposition:v:1 default",
        ),
        case(
            "two_angles.mp4",
            f"-i src -i {OTHER} -map 0 -map 1 {X264} -disposition:v:0 default -disposition:v:1 0",
        ),
        case(
            "two_programs.ts",
            f"-i {SMALL} -i {LARGE} -map 0 -map 1 {X264} "
            "-program title=a:st=0 -program title=b:st=1",
        ),
        case("dashcam_two.ts", f"-i {LARGE} -i {SMALL} -map 0 -map 1 {X264}"),
        case("cover_first.mp4", COVER, f"{X264} film.mp4", cover_first),
        case(
            "cover_last.mp4",
            COVER,
            f"{TONE} {X264} -c:a aac film.mp4",
            "-i film.mp4 -i cover.jpg -map 0 -map 1 -c copy -disposition:v:1 attached_pic",
        ),
        case(
            "cover_attached.mkv",
            COVER,
            f"{X264} film.mkv",
            "-i film.mkv -c copy -attach cover.jpg -metadata:s:t mimetype=image/jpeg "
            "-metadata:s:t filename=cover.jpg",
        ),
        case(
            "podcast.m4a",
            COVER,
            "-f lavfi -i sine=duration=3 -c:a aac tone.m4a",
            podcast,
            mark="refused",
        ),
        case(
            "song.mp3",
            COVER,
            "-f lavfi -i sine=duration=3 -c:a libmp3lame tone.mp3",
            "-i tone.mp3 -i cover.jpg -map 0 -map 1 -c copy -id3v2_version 3 "
            "-disposition:v attached_pic",
            mark="refused",
        ),
        case(
            "song.flac",
            COVER,
            "-f lavfi -i sine=duration=3 -c:a flac tone.flac",
            "-i tone.flac -i cover.jpg -map 0 -map 1 -c copy -disposition:v attached_pic",
            mark="refused",
        ),
        case("only_sound.mkv", "-f lavfi -i sine=duration=3 -c:a aac", mark="refused"),
    ]


def write_subtitles(folder: Path) -> None:
    """Write a subtitle file."""
    (folder / "sub.srt").write_text("1\n00:00:00,000 --> 00:00:03,000\nHello.\n")


def list_parts(folder: Path) -> None:
    """Write what ffmpeg's concat reads."""
    (folder / "list.txt").write_text("file a.webm\nfile b.webm\n")


def company() -> list[Case]:
    """Subtitles, time codes, chapters and several sounds beside the film."""
    return [
        case("subtitles.mkv", write_subtitles, f"-i src -i sub.srt {X264} -c:s srt"),
        case("subtitles.mp4", write_subtitles, f"-i src -i sub.srt {X264} -c:s mov_text"),
        case("timecode.mov", f"{TONE} {X265} -tag:v hvc1 -c:a aac -timecode 10:00:00:00"),
        case("timecode.mp4", f"{TONE} {X264} -c:a aac -timecode 01:02:03:04"),
        case(
            "camera_data.mp4",  # as action cameras write it: time code and measurements
            write_subtitles,
            f"{TONE} -i sub.srt -map 0 -map 1 -map 2 {X264} -c:a aac -c:s mov_text "
            "-timecode 10:00:00:00 plain.mp4",
            bytes_of.rename("camera_data.mp4", "plain.mp4", {b"tx3g": b"gpmd", b"sbtl": b"meta"}),
        ),
        case(
            "broadcast.ts",
            bytes_of.bitmap_subtitles("sub.sup"),
            f"-i {SMALL} {SOUND} -i {LARGE} {SOUND} -i {SMALL} -i sub.sup "
            f"-map 0 -map 1 -map 2 -map 3 -map 4 -map 5 {MPEG2} -c:a mp2 -c:s dvbsub "
            "-program title=a:st=0:st=1 -program title=b:st=2:st=3:st=5 -program title=c:st=4",
        ),
        case(
            "disc_subtitles.vob",
            bytes_of.bitmap_subtitles("sub.sup"),
            f"{TONE} -i sub.sup -map 0 -map 1 -map 2 {MPEG2} -c:a ac3 -c:s dvdsub",
        ),
        case("two_sounds.mkv", f"{TONE} -map 0 -map 1 -map 1 {X264} -c:a aac"),
        case("obs.mkv", f"{TONE} {X264} -bf 2 -c:a aac -metadata title=OBS"),
    ]


def forms() -> list[Case]:
    """How a container is written: index first or last, fragments, streamed, without an index."""
    frag = "-movflags"
    return [
        case("index_first.mp4", f"{X264} -movflags +faststart"),
        case("index_last_sound.mp4", f"{TONE} {X264} -c:a aac"),
        case("fragmented.mp4", f"{X264} {frag} empty_moov+frag_keyframe+default_base_moof"),
        case("fragmented_sound.mp4", f"{TONE} {X264} -c:a aac {frag} empty_moov+frag_keyframe"),
        case("fragmented_av1.mp4", f"{AV1} {frag} empty_moov+frag_keyframe+default_base_moof"),
        case("fragment_each_frame.mp4", f"{X264} {frag} empty_moov+frag_every_frame"),
        case("dash.mp4", f"{X265} {frag} +dash+frag_keyframe+global_sidx+delay_moov"),
        case("live.mkv", f"{X264} -live 1"),
        case("live.webm", f"{VP8} -f webm -live 1"),
        case("browser_recording.webm", f"{TONE} {VP9} -c:a libopus -f webm -live 1"),
        case("cues_first.mkv", f"{X264} -cues_to_front 1"),
        case(
            "no_index.avi",
            "-c:v mpeg4 -q:v 2 whole.avi",
            bytes_of.without_avi_index("no_index.avi", "whole.avi"),
        ),
        case(
            "no_index_mjpeg.avi",
            "-c:v mjpeg -q:v 2 -pix_fmt yuvj420p whole.avi",
            bytes_of.without_avi_index("no_index_mjpeg.avi", "whole.avi"),
        ),
        case("hev1.mp4", f"{X265} -tag:v hev1"),
        case(
            "size_changes.webm",
            f"-i src:25:0:50 {VP8} a.webm",
            f"-i src:25:50:100:352x288 {VP8} b.webm",
            list_parts,
            "-f concat -i list.txt -c copy size_changes.webm",
            min_psnr_db=24.0,
        ),
        case("wrong_name.avi", f"{X264} right.mp4", "cat right.mp4 > wrong_name.avi"),
        case("no_name.dat", f"{MPEG2} right.mpg", "cat right.mpg > no_name.dat"),
    ]


def damage() -> list[Case]:
    """Files cut short, lost packets, overwritten parts: read to where they end."""

    def short(name: str, video: str, share: float, first: str = "") -> Case:
        whole = f"whole.{name.rsplit('.')[-1]}"
        return case(
            name,
            f"{video} {first} {whole}",
            bytes_of.cut(name, whole, share),
            mark="damaged length",
        )

    return [
        short("short.mp4", X264, 0.6, "-movflags +faststart"),
        short("short_fragmented.mp4", X264, 0.6, "-movflags empty_moov+frag_keyframe"),
        short("short.mkv", X264, 0.6),
        short("short.webm", VP9, 0.6),
        short("short.ts", X264, 0.6),
        short("short.avi", "-c:v mpeg4 -q:v 2", 0.6),
        short("short.mpg", MPEG2, 0.6),
        short("short.flv", "-c:v flv1 -q:v 2", 0.6),
        short("short.wmv", "-c:v wmv2 -q:v 2", 0.6),
        short("short_prores.mov", "-c:v prores_ks", 0.6, "-movflags +faststart"),
        case(
            "no_index.mp4",
            f"{X264} whole.mp4",
            bytes_of.cut("no_index.mp4", "whole.mp4", 0.6),
            mark="refused",
        ),
        case(
            "lost.ts",
            f"{X264} whole.ts",
            bytes_of.lose_ts("lost.ts", "whole.ts", 0.02),
            mark="damaged",
        ),
        case(
            "lost_hevc.ts",
            f"{X265} whole.ts",
            bytes_of.lose_ts("lost_hevc.ts", "whole.ts", 0.02),
            mark="damaged",
        ),
        case(
            "lost_mpeg2.ts",
            f"{MPEG2} whole.ts",
            bytes_of.lose_ts("lost_mpeg2.ts", "whole.ts", 0.02),
            mark="damaged",
        ),
        case(
            "zeroed.mkv",
            f"{X264} whole.mkv",
            bytes_of.overwrite("zeroed.mkv", "whole.mkv", [(0.5, 600)]),
            mark="damaged",
        ),
        case(
            "zeroed.mp4",
            f"{X264} whole.mp4",
            bytes_of.overwrite("zeroed.mp4", "whole.mp4", [(0.4, 600)]),
            mark="damaged",
        ),
        case(
            "zeroed.avi",
            "-c:v mjpeg -q:v 2 -pix_fmt yuvj420p whole.avi",
            bytes_of.overwrite("zeroed.avi", "whole.avi", [(0.3, 3000), (0.6, 20000)]),
            mark="damaged length",
        ),
        case(
            "zeroed.mpg",
            f"{MPEG2} whole.mpg",
            bytes_of.overwrite("zeroed.mpg", "whole.mpg", [(0.5, 3000)]),
            mark="damaged",
        ),
        case(
            "junk_before.ts",
            f"{X264} whole.ts",
            bytes_of.cut("junk_before.ts", "whole.ts", 1.0, start=0.00033),
            mark="damaged",
        ),
        case("broken_pictures.mkv", f"{X264} -bsf:v noise=amount=20000", mark="damaged"),
    ]


def cases() -> list[Case]:
    return [*choice(), *company(), *forms(), *damage()]
