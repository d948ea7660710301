"""Codecs and containers: the same hundred frames, as every encoder of ffmpeg 5.1 writes them."""

from __future__ import annotations

from typing import Any

from video_matrix.case import Case, case, even

X264 = "-c:v libx264 -preset veryfast -crf 16 -g 24 -bf 3 -pix_fmt yuv420p"
X265 = (
    "-c:v libx265 -preset ultrafast -crf 16 -pix_fmt yuv420p "
    "-x265-params log-level=error:keyint=24:bframes=3:pools=1:frame-threads=1"
)
AV1 = "-c:v libsvtav1 -preset 10 -crf 25 -g 24 -pix_fmt yuv420p"
VP9 = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 2M -g 24 -pix_fmt yuv420p"
VP8 = "-c:v libvpx -deadline realtime -cpu-used 8 -b:v 2M -g 24 -pix_fmt yuv420p"
MPEG1 = "-c:v mpeg1video -q:v 2 -g 12 -bf 2"
MPEG2 = "-c:v mpeg2video -q:v 2 -g 12 -bf 2"
MPEG4 = "-c:v mpeg4 -q:v 2 -g 24 -bf 2"
TONE = "-i src -f lavfi -i sine=sample_rate=48000:duration=4"


def modern() -> list[Case]:
    """What cameras, phones, hubs and recorders write today."""
    endings = ["mp4", "mov", "mkv", "ts", "m2ts", "flv", "3gp", "nut", "avi", "h264"]
    cases = [case(f"h264.{e}", X264) for e in endings]
    cases += [case(f"hevc.{e}", X265) for e in ["mp4", "mkv", "ts", "hevc"]]
    cases += [case("hevc_hvc1.mov", f"{X265} -tag:v hvc1")]
    cases += [case(f"vp8.{e}", VP8) for e in ["webm", "mkv", "ivf", "avi"]]
    cases += [case(f"vp9.{e}", VP9) for e in ["webm", "mkv", "mp4", "ivf"]]
    cases += [case(f"av1.{e}", AV1) for e in ["mp4", "mkv", "webm", "ivf", "obu"]]
    cases += [
        case("h264_aac.mp4", f"{TONE} {X264} -c:a aac"),
        case("hevc_aac.ts", f"{TONE} {X265} -c:a aac"),
        case("h264_flac.mkv", f"{TONE} {X264} -c:a flac"),
        case("vp9_opus.webm", f"{TONE} {VP9} -c:a libopus"),
        case("av1_opus.webm", f"{TONE} {AV1} -c:a libopus"),
        case("h264_mp3.avi", f"{TONE} {X264} -c:a libmp3lame"),
        case("h264_aac.flv", f"{TONE} {X264} -c:a aac"),
        case("h264_pcm.mov", f"{TONE} {X264} -c:a pcm_s16le"),
    ]
    return cases


def older() -> list[Case]:
    """Broadcast, disc, camcorder and web video of the last thirty years."""
    rate24: dict[str, Any] = {"truth": even(100, 24)}
    cases = [case(f"mpeg2.{e}", MPEG2) for e in ["mpg", "vob", "ts", "mkv", "mov", "m2v", "mxf"]]
    cases += [case(f"mpeg1.{e}", MPEG1) for e in ["mpg", "mkv"]]
    # Without time stamps, ffmpeg guesses a pause behind the first picture.
    cases += [case("mpeg1.m1v", MPEG1, mark="wild")]
    cases += [case(f"mpeg4.{e}", MPEG4) for e in ["mp4", "avi", "mkv", "3gp", "ts"]]
    cases += [case("mpeg4.m4v", f"{MPEG4} -f m4v")]
    cases += [
        case("xvid.avi", "-c:v libxvid -q:v 2 -g 24"),
        case("xvid_mp3.avi", f"{TONE} -c:v libxvid -q:v 2 -g 24 -c:a libmp3lame"),
        case("msmpeg4v2.avi", "-c:v msmpeg4v2 -q:v 2"),
        case("msmpeg4v3.avi", "-c:v msmpeg4 -q:v 2"),
        case("wmv1.wmv", "-c:v wmv1 -q:v 2"),
        case("wmv2.wmv", f"{TONE} -c:v wmv2 -q:v 2 -c:a wmav2"),
        case("wmv2.asf", "-c:v wmv2 -q:v 2"),
        case("flv1.flv", "-c:v flv1 -q:v 2"),
        case("flv1_mp3.flv", f"{TONE} -c:v flv1 -q:v 2 -c:a libmp3lame -ar 44100"),
        case("flashsv.flv", "-c:v flashsv"),
        case("h263.3gp", "-c:v h263 -q:v 2", truth=even(aspect=4 / 3)),
        case("h263p.avi", "-c:v h263p -q:v 2", truth=even(aspect=4 / 3)),
        case("h261.mkv", "-c:v h261 -q:v 2"),
        case("rv20.rm", "-c:v rv20 -q:v 2"),
        case("theora.ogv", "-c:v libtheora -q:v 9"),
        case("theora_vorbis.ogv", f"{TONE} -c:v libtheora -q:v 9 -c:a libvorbis"),
        case("svq1.mov", "-c:v svq1 -q:v 2", min_psnr_db=30.0),
        case("cinepak.avi", "-i src:24:0:24 -c:v cinepak", truth=even(24, 24)),
        case("cinepak.mov", "-i src:24:0:24 -c:v cinepak", truth=even(24, 24)),
        # Its encoder marks every frame as a key frame, and most are none.
        case("rpza.mov", "-c:v rpza"),
        case("msvideo1.avi", "-c:v msvideo1"),
        case("mpeg1_24fps.mpg", f"-i src:24:0:100 {MPEG1}", **rate24),
        case(
            "dv.dv",
            "-i src:25:0:25:720x576 -target pal-dv -aspect 4:3",
            truth=DV,
            mark="interlaced",
        ),
        case(
            "dv.avi",
            "-i src:25:0:25:720x576 -c:v dvvideo -aspect 4:3 -pix_fmt yuv420p",
            truth=DV,
            mark="interlaced",
        ),
        case(
            "dv.mov",
            "-i src:25:0:25:720x576 -c:v dvvideo -aspect 16:9 -pix_fmt yuv420p",
            truth=even(25, 25, aspect=16 / 9),
            mark="interlaced",
        ),
        case(
            "dv_ntsc.mov",
            "-i src:30000/1001:0:30:720x480 -c:v dvvideo -aspect 4:3 -pix_fmt yuv411p",
            truth=even(30, 30000 / 1001, aspect=4 / 3),
            mark="interlaced",
        ),
    ]
    return cases


DV = even(25, 25, aspect=4 / 3)


def editing() -> list[Case]:
    """Intermediate, lossless, screen and animation formats."""
    dnx = "-i src:25:0:50:256x144 -c:v dnxhd -profile:v dnxhr_hq -pix_fmt yuv422p"
    wide = even(50, 25, aspect=16 / 9)
    return [
        case("prores.mov", "-c:v prores_ks -profile:v 2"),
        case("prores.mkv", "-c:v prores_ks -profile:v 2"),
        case("prores4444.mov", "-c:v prores_ks -profile:v 4 -pix_fmt yuva444p10le"),
        case("dnxhr.mov", dnx, truth=wide),
        case("dnxhr.mxf", dnx, truth=wide),
        case(
            "dnxhd.mxf",
            "-i src:25:0:10:1920x1080 -c:v dnxhd -b:v 120M -pix_fmt yuv422p",
            truth=even(10, 25, aspect=16 / 9),
        ),
        case("cineform.mov", "-i src:25:0:50:256x144 -c:v cfhd", truth=wide),
        case("hap.mov", "-c:v hap"),
        case("ffv1.mkv", "-c:v ffv1"),
        case("ffv1.avi", "-c:v ffv1 -pix_fmt yuv444p"),
        case("ffv1.nut", "-c:v ffv1"),
        case("huffyuv.avi", "-c:v huffyuv -pix_fmt yuv422p"),
        case("ffvhuff.avi", "-c:v ffvhuff -pix_fmt yuv420p"),
        case("utvideo.avi", "-c:v utvideo -pix_fmt yuv420p"),
        case("utvideo.mkv", "-c:v utvideo -pix_fmt gbrp"),
        case("magicyuv.avi", "-c:v magicyuv -pix_fmt yuv420p"),
        case("lagarith_like_zlib.avi", "-c:v zlib"),
        case("zmbv.avi", "-c:v zmbv"),
        case("qtrle.mov", "-c:v qtrle"),
        case("png.mov", "-c:v png"),
        case("png.avi", "-c:v png"),
        case("mjpeg.avi", "-c:v mjpeg -q:v 2 -pix_fmt yuvj420p"),
        case("mjpeg.mov", "-c:v mjpeg -q:v 2 -pix_fmt yuvj422p"),
        case("mjpeg.mkv", "-c:v mjpeg -q:v 2 -pix_fmt yuvj420p"),
        case("mjpeg.mjpeg", "-c:v mjpeg -q:v 2 -pix_fmt yuvj420p"),
        case("jpeg2000.mov", "-c:v jpeg2000 -q:v 2"),
        case("raw_bgr24.avi", "-i src:25:0:50 -c:v rawvideo -pix_fmt bgr24", truth=even(50)),
        case("raw_yuv420p.avi", "-i src:25:0:50 -c:v rawvideo -pix_fmt yuv420p", truth=even(50)),
        case("raw_uyvy.mov", "-i src:25:0:50 -c:v rawvideo -pix_fmt uyvy422", truth=even(50)),
        case("raw.nut", "-i src:25:0:50 -c:v rawvideo", truth=even(50)),
        case("v210.mov", "-i src:25:0:50 -c:v v210", truth=even(50)),
        case("raw.y4m", "-i src:25:0:50 -pix_fmt yuv420p", truth=even(50)),
        case("gif.gif", "-c:v gif"),
        case("apng.apng", "-i src:25:0:50 -c:v apng -f apng", truth=even(50)),
        case("mjpeg_pcm.avi", f"{TONE} -c:v mjpeg -q:v 2 -pix_fmt yuvj420p -c:a pcm_u8 -ar 8000"),
    ]


def stills() -> list[Case]:
    """Pictures: videos of one frame."""
    one = even(1, 25)
    return [
        case("still.png", "-frames:v 1", truth=one, mark="still"),
        case("still.jpg", "-frames:v 1 -q:v 2", truth=one, mark="still"),
        case("animated.webp", "-c:v libwebp_anim", mark="refused"),
        case("still.webp", "-frames:v 1 -quality 95", truth=one, mark="still"),
    ]


def cases() -> list[Case]:
    return modern() + older() + editing() + stills()
