"""The picture: turns, mirrors, pixel shapes, depths, colours, sizes, interlaced lines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from video_matrix.bytes_of import pull_down, turn
from video_matrix.case import Case, Truth, case, even
from video_matrix.cases_codecs import AV1, MPEG2, VP8, VP9, X264, X265
from video_matrix.picture import UPRIGHT

SIDEWAYS = 144 / 176
# The file's matrix (a, b, c, d) -> what it does to an array of rows: the eight ways to lie.
MATRICES: dict[str, tuple[tuple[int, int, int, int], int, bool]] = {
    "turned_90": ((0, 1, -1, 0), 3, False),
    "turned_180": ((-1, 0, 0, -1), 2, False),
    "turned_270": ((0, -1, 1, 0), 1, False),
    "mirrored": ((-1, 0, 0, 1), 0, True),
    "upside_down": ((1, 0, 0, -1), 2, True),
    "mirrored_90": ((0, 1, 1, 0), 3, True),
    "mirrored_270": ((0, -1, -1, 0), 1, True),
}


def turned(name: str, aspect: float = 176 / 144, n: int = 100) -> Truth:
    """Return the truth of the usual frames under a matrix (turned first, then mirrored)."""
    _, turns, mirror = MATRICES[name]
    names = np.rot90(np.array(UPRIGHT), turns)
    names = names[:, ::-1] if mirror else names
    corners = tuple(map(tuple, names.tolist()))
    return even(n, corners=corners, aspect=1 / aspect if turns % 2 else aspect)


def orientation() -> list[Case]:
    """Display matrices: phones held any way, front cameras, editors' mirrors."""
    cases = []
    for name, (matrix, _, _) in MATRICES.items():
        cases.append(
            case(
                f"{name}.mp4",
                f"{X264} plain.mp4",
                turn(f"{name}.mp4", "plain.mp4", *matrix),
                truth=turned(name),
            )
        )
    hevc = f"{X265} -tag:v hvc1 plain.mov".replace("yuv420p", "yuv420p10le")
    quarter, back = MATRICES["turned_90"][0], MATRICES["turned_270"][0]
    wide = 176 / 144 * 4 / 3
    return [
        *cases,
        case(
            "phone_hevc10_90.mov",
            hevc,
            turn("phone_hevc10_90.mov", "plain.mov", *quarter),
            truth=turned("turned_90"),
        ),
        case(
            "turned_and_sar.mp4",
            f"-vf setsar=4/3 {X264} plain.mp4",
            turn("turned_and_sar.mp4", "plain.mp4", *quarter),
            truth=turned("turned_90", wide),
        ),
        case(
            "mirrored_av1.mp4",
            f"{AV1} plain.mp4",
            turn("mirrored_av1.mp4", "plain.mp4", *MATRICES["mirrored"][0]),
            truth=turned("mirrored"),
        ),
        case(
            "turned_odd.mp4",
            f"-i src:25:0:100:175x143 {VP9} plain.mp4",
            turn("turned_odd.mp4", "plain.mp4", *back),
            truth=turned("turned_270", 175 / 143),
        ),
        case(
            "turned_interlaced.mp4",
            *weave("-c:v libx264 -crf 14 -flags +ildct+ilme -x264opts tff=1", "plain.mp4"),
            turn("turned_interlaced.mp4", "plain.mp4", *quarter),
            truth=sideways_fields(),
            mark="interlaced wild",
            blur=1,
        ),
    ]


def sideways_fields() -> Truth:
    """Return the truth of the woven frames turned a quarter clockwise."""
    plain, woven = turned("turned_90"), fields()
    return Truth(woven.numbers, woven.starts_s, woven.end_s, plain.corners, plain.aspect)


def pixel_shapes() -> list[Case]:
    """Pixels that are not square: discs, camcorders, broadcast."""
    disc = f"-i src:25:0:50:360x288 {MPEG2}"
    return [
        case("sar_wide.mp4", f"-vf setsar=4/3 {X264}", truth=even(aspect=176 / 144 * 4 / 3)),
        case("sar_tall.mp4", f"-vf setsar=8/9 {X264}", truth=even(aspect=176 / 144 * 8 / 9)),
        case("sar.mkv", f"-vf setsar=16/11 {X264}", truth=even(aspect=176 / 144 * 16 / 11)),
        case(
            "sar.avi", "-vf setsar=16/11 -c:v mpeg4 -q:v 2", truth=even(aspect=176 / 144 * 16 / 11)
        ),
        case("sar.ts", f"-vf setsar=16/11 {X265}", truth=even(aspect=176 / 144 * 16 / 11)),
        case("dvd_4_3.vob", f"{disc} -aspect 4:3", truth=even(50, aspect=4 / 3)),
        case("dvd_16_9.vob", f"{disc} -aspect 16:9", truth=even(50, aspect=16 / 9)),
        case("aspect_in_container.mkv", f"{VP8} -aspect 16:9", truth=even(aspect=16 / 9)),
        case(
            "aspect_in_container.mp4",
            f"{X264} plain.mp4",
            "-i plain.mp4 -c copy -aspect 2:1",
            truth=even(aspect=2.0),
        ),
        case(
            "sar.ogv", "-vf setsar=4/3 -c:v libtheora -q:v 9", truth=even(aspect=176 / 144 * 4 / 3)
        ),
    ]


def depths() -> list[Case]:
    """Bits, chroma, alpha, gray, odd sizes, small and wide ones."""
    odd = "-i src:25:0:50:175x143"
    odd_truth = even(50, aspect=175 / 143)
    return [
        case("h264_10bit.mp4", X264.replace("yuv420p", "yuv420p10le")),
        case("hevc_10bit.mkv", X265.replace("yuv420p", "yuv420p10le")),
        case("hevc_12bit.mp4", X265.replace("yuv420p", "yuv420p12le")),
        case("vp9_10bit.webm", VP9.replace("yuv420p", "yuv420p10le") + " -profile:v 2"),
        case("av1_10bit.mp4", AV1.replace("yuv420p", "yuv420p10le")),
        case("h264_422.mov", X264.replace("yuv420p", "yuv422p10le")),
        case("h264_444.mkv", X264.replace("yuv420p", "yuv444p")),
        case("h264_rgb.mkv", "-c:v libx264rgb -preset veryfast -crf 10"),
        case("hevc_444_12bit.mkv", X265.replace("yuv420p", "yuv444p12le")),
        case("vp9_444.webm", VP9.replace("yuv420p", "yuv444p") + " -profile:v 1"),
        case("vp9_gbr.mkv", VP9.replace("yuv420p", "gbrp") + " -profile:v 1"),
        case("alpha_vp8.webm", VP8.replace("yuv420p", "yuva420p") + " -auto-alt-ref 0"),
        case("alpha_vp9.webm", VP9.replace("yuv420p", "yuva420p")),
        case("alpha_qtrle.mov", "-c:v qtrle -pix_fmt argb"),
        case("alpha_png.mov", "-c:v png -pix_fmt rgba"),
        case("alpha_utvideo.avi", "-c:v utvideo -pix_fmt gbrap"),
        case("gray_h264.mp4", X264.replace("yuv420p", "gray"), mark="gray"),
        case("gray_ffv1.mkv", "-c:v ffv1 -pix_fmt gray", mark="gray"),
        case("gray16_ffv1.mkv", "-c:v ffv1 -pix_fmt gray16le", mark="gray"),
        case("gray_mjpeg.avi", "-c:v mjpeg -q:v 2 -pix_fmt gray", mark="gray"),
        case("rgb48_png.mov", "-i src:25:0:50 -c:v png -pix_fmt rgb48be", truth=even(50)),
        case("ffv1_16bit.mkv", "-i src:25:0:50 -c:v ffv1 -pix_fmt yuv444p16le", truth=even(50)),
        case("odd_vp9.webm", f"{odd} {VP9}", truth=odd_truth),
        case("odd_mpeg4.avi", f"{odd} -c:v mpeg4 -q:v 2", truth=odd_truth),
        case("odd_h264_444.mp4", f"{odd} {X264}".replace("yuv420p", "yuv444p"), truth=odd_truth),
        case("odd_ffv1.mkv", f"{odd} -c:v ffv1 -pix_fmt yuv420p", truth=odd_truth),
        case(
            "odd_av1.mp4",
            f"{odd} -c:v libaom-av1 -cpu-used 8 -usage realtime -crf 25 -pix_fmt yuv420p",
            truth=odd_truth,
        ),
        case("odd_gif.gif", f"{odd}", truth=odd_truth),
        case("tall.mp4", f"-i src:25:0:50:90x320 {X264}", truth=even(50, aspect=90 / 320)),
        case("wide.webm", f"-i src:25:0:50:640x48 {VP9}", truth=even(50, aspect=640 / 48)),
        case("hd_untagged.mp4", f"-i src:25:0:10:1280x720 {X264}", truth=even(10, aspect=16 / 9)),
        case("cropped_1080.mp4", f"-i src:25:0:10:1920x1080 {X264}", truth=even(10, aspect=16 / 9)),
    ]


TEN_BITS = X265.replace("yuv420p", "yuv420p10le")


def hdr(transfer: str, video: str = TEN_BITS) -> str:
    """Return what makes ten bits of the usual frames in PQ or HLG."""
    tags = f"-color_primaries bt2020 -color_trc {transfer} -colorspace bt2020nc"
    tags += " -tag:v hvc1" if "libx265" in video else ""
    light = (
        f"zscale=p=bt2020:t={transfer}:m=bt2020nc:r=tv:tin=bt709:pin=bt709:min=gbr:rin=pc:npl=203"
    )
    return f"-vf format=gbrp,{light},format=yuv420p10le {video} {tags}"


def colours() -> list[Case]:
    """Ranges, matrices, and high dynamic range."""

    def tagged(matrix: str, video: str = X264) -> str:
        tags = f"-colorspace {matrix} -color_primaries {matrix} -color_trc {matrix}"
        tags = tags.replace("trc bt2020nc", "trc bt2020-10").replace(
            "primaries bt2020nc", "primaries bt2020"
        )
        scale = {"bt709": "bt709", "smpte170m": "bt601", "bt2020nc": "bt2020"}[matrix]
        return f"-vf scale=out_color_matrix={scale}:flags=accurate_rnd {video} {tags}"

    full = "-vf scale=out_range=full"
    return [
        case("bt709.mp4", tagged("bt709")),
        case("bt709.mkv", tagged("bt709", VP9)),
        case("bt709_hevc.mp4", tagged("bt709", X265)),
        case("bt709_av1.mkv", tagged("bt709", AV1)),
        case("bt601.mp4", tagged("smpte170m")),
        case("bt2020_sdr.mp4", tagged("bt2020nc", TEN_BITS)),
        case("full_range.mp4", f"{full} -color_range pc {X264}".replace("yuv420p", "yuvj420p")),
        case(
            "full_range_709.mp4",
            f"{full}:out_color_matrix=bt709 -color_range pc {X264} -colorspace bt709",
        ),
        case("full_range_hevc.mkv", f"{full} -color_range pc {X265}"),
        case("full_range_vp9.webm", f"{full} -color_range pc {VP9}"),
        case("full_range_mpeg4.avi", "-c:v mjpeg -q:v 2 -pix_fmt yuvj444p"),
        case("hlg_hevc.mp4", hdr("arib-std-b67"), mark="hdr"),
        case("pq_hevc.mkv", hdr("smpte2084"), mark="hdr"),
        case(
            "hlg_phone_90.mov",
            hdr("arib-std-b67") + " plain.mov",
            turn("hlg_phone_90.mov", "plain.mov", *MATRICES["turned_90"][0]),
            truth=turned("turned_90"),
            mark="hdr",
        ),
    ]


def fields(first: int = 0, n: int = 50) -> Truth:
    """Return the truth of 50 fields a second woven into 25 frames: every second number."""
    numbers = tuple(range(first, first + 2 * n, 2))
    return Truth(numbers, tuple(k / 25 for k in range(n)), n / 25)


def weave(video: str, name: str = "", top: bool = True, size: str = "176x144") -> tuple[str, ...]:
    """Return the step that makes interlaced video of 50 fields a second."""
    mode = "interleave_top" if top else "interleave_bottom"
    order = "tff" if top else "bff"
    pixels = "" if "-pix_fmt" in video else "-pix_fmt yuv420p"
    return (
        f"-i src:50:0:100:{size} -vf tinterlace={mode},setfield={order} "
        f"{video} {pixels} {name}".strip(),
    )


def twice(truth: Truth) -> Truth:
    """Return the truth of a recording that follows itself."""
    again = tuple(t + truth.end_s for t in truth.starts_s)
    return replace(
        truth,
        numbers=truth.numbers * 2,
        starts_s=truth.starts_s + again,
        end_s=2 * truth.end_s,
    )


def interlaced() -> list[Case]:
    """Camcorders, broadcast, discs: two moments in the lines of one frame."""
    lines = "-flags +ilme+ildct"
    shared: dict[str, Any] = {"truth": fields(), "mark": "interlaced", "blur": 1}

    def h264(order: str) -> str:
        return f"-c:v libx264 -preset veryfast -crf 14 {lines} -x264opts {order}=1"

    wide_fields = replace(fields(), aspect=16 / 9)
    mpeg2 = f"-c:v mpeg2video -q:v 2 -g 12 -bf 2 {lines}"
    film = "-i src:24000/1001:0:80 -vf telecine=pattern=23,setfield=tff"
    telecined = even(100, 30000 / 1001)
    pulled = Truth(tuple(k * 4 // 5 for k in range(100)), telecined.starts_s, telecined.end_s)
    return [
        case("tff_h264.mkv", *weave(h264("tff")), **shared),
        case("bff_h264.mp4", *weave(h264("bff"), top=False), **shared),
        case("tff_h264.ts", *weave(h264("tff")), **shared),
        case(
            "avchd.m2ts",
            "-f lavfi -i sine=duration=2 " + weave(h264("tff"))[0] + " -c:a ac3",
            **shared,
        ),
        case("tff_h264_10bit_422.mov", *weave(h264("tff") + " -pix_fmt yuv422p10le"), **shared),
        case("tff_mpeg2.ts", *weave(f"{mpeg2} -top 1"), **shared),
        case("bff_mpeg2.mpg", *weave(f"{mpeg2} -top 0", top=False), **shared),
        case(
            "dvd_interlaced.vob",
            *weave(f"{mpeg2} -top 1 -aspect 16:9"),
            **{**shared, "truth": Truth(fields().numbers, fields().starts_s, 2.0, aspect=16 / 9)},
        ),
        case("xdcam.mxf", *weave(f"{mpeg2} -top 1 -pix_fmt yuv422p"), **shared),
        case(
            "prores_interlaced.mov",
            *weave("-c:v prores_ks -profile:v 2 -flags +ildct -pix_fmt yuv422p10le"),
            **shared,
        ),
        case("mpeg4_interlaced.avi", *weave(f"-c:v mpeg4 -q:v 2 {lines} -top 1"), **shared),
        case(
            "dv_interlaced.avi",
            "-i src:50:0:50:720x576 -vf tinterlace=interleave_bottom,setfield=bff "
            f"-c:v dvvideo {lines} -pix_fmt yuv420p -aspect 4:3",
            **{
                **shared,
                "truth": Truth(
                    tuple(range(0, 50, 2)), tuple(k / 25 for k in range(25)), 1.0, aspect=4 / 3
                ),
            },
        ),
        *[
            case(
                f"pulled_down.{e}",
                f"-i src:24000/1001:0:80 -c:v mpeg2video -q:v 2 -g 12 plain.{e}",
                pull_down(f"pulled_down.{e}", f"plain.{e}"),
                truth=even(80, 24000 / 1001),
            )
            for e in ("vob", "ts", "mkv")
        ],
        *[
            # In HEVC, a field is a picture of its own.
            case(
                f"fields_hevc.{e}",
                "-vf scale=176:72:flags=area,setsar=1/2 "
                + X265.replace("log-level", "interlace=tff:log-level"),
            )
            for e in ("mkv", "ts", "mp4")
        ],
        case(
            "telecined.mpg",
            f"{film} {mpeg2} -top 1 -r 30000/1001",
            truth=pulled,
            mark="interlaced",
            blur=1,
        ),
        case(
            "cat_interlaced.vob",
            *weave(f"{mpeg2} -top 1 -aspect 16:9", "a.vob"),
            "cat a.vob a.vob > cat_interlaced.vob",
            truth=twice(wide_fields),
            mark="interlaced",
            blur=1,
        ),
        case(
            "progressive_flagged.ts",
            f"-vf setfield=tff {h264('tff')} -pix_fmt yuv420p",
            truth=even(),
            mark="interlaced",
        ),
    ]


def cases() -> list[Case]:
    return [*orientation(), *pixel_shapes(), *depths(), *colours(), *interlaced()]
