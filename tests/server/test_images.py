"""Frames that clients send as images are decoded in a process of its own, under limits."""

import base64
import subprocess
import sys

import cv2
import numpy as np
import pytest
from server_support import answer_of, text

from retake_edge.bench.scenes.render import frames
from retake_edge.bench.scenes.scene import make_scene
from retake_edge.server.errors import ApiError
from retake_edge.server.images import video_of_images
from retake_edge.video.process import VideoLimits
from retake_edge.video.read import sample_frames


def encoded(kind, *pictures):
    return [cv2.imencode(kind, picture)[1].tobytes() for picture in pictures]


def noise(height=48, width=64, n=3):
    return list(np.random.default_rng(0).integers(0, 256, (n, height, width, 3), np.uint8))


@pytest.mark.parametrize("kind", [".png", ".webp"])
def test_every_pixel_is_kept_and_each_image_is_shown_equally_long(tmp_path, kind):
    pictures = noise()
    path = tmp_path / "frames.mkv"
    quality = [cv2.IMWRITE_WEBP_QUALITY, 101] if kind == ".webp" else []
    images = [cv2.imencode(kind, picture, quality)[1].tobytes() for picture in pictures]
    path.write_bytes(b"".join(video_of_images(images, 2.0)))
    batches = list(sample_frames(path, fps=2.0))
    found = np.concatenate([batch.frames for batch in batches])
    assert [*np.concatenate([batch.times_s for batch in batches])] == [0.0, 0.5, 1.0]
    assert np.array_equal(found[..., ::-1], np.stack(pictures))


def test_the_same_images_are_the_same_video():
    images = encoded(".png", *noise())
    assert b"".join(video_of_images(images, 1.0)) == b"".join(video_of_images(images, 1.0))


def test_what_is_no_image_is_told_by_its_number():
    good, other = encoded(".png", *noise(n=2))
    for bad in (b"no image", b"\x89PNG\r\n\x1a\n" + bytes(99), good[:99], b"GIF89a" + bytes(50)):
        with pytest.raises(ApiError, match=r"^Image 2 .*PNG, JPEG or WebP") as refused:
            list(video_of_images([good, bad, other], 1.0))
        assert refused.value.status == 415


def test_images_of_two_sizes_are_refused():
    images = encoded(".png", noise()[0], noise(40)[0])
    with pytest.raises(ApiError, match="Image 2 has 64 x 40 pixels and the first one 64 x 48"):
        list(video_of_images(images, 1.0))


def test_an_image_above_the_limit_of_pixels_or_memory_is_refused():
    images = encoded(".png", np.zeros((3000, 3000, 3), np.uint8))
    with pytest.raises(ApiError) as refused:
        list(video_of_images(images, 1.0, VideoLimits(max_pixels=1000)))
    assert refused.value.status == 413
    huge = encoded(".png", np.zeros((16_000, 16_000, 3), np.uint8))
    with pytest.raises(ApiError, match=r"memory|PNG") as refused:
        list(video_of_images(huge, 1.0, VideoLimits(max_memory_bytes=64 << 20)))
    assert refused.value.status == 415


def test_a_rate_of_almost_nothing_is_refused(server):
    url = "data:image/png;base64," + base64.b64encode(encoded(".png", *noise(n=1))[0]).decode()
    part = {"type": "image_url", "image_url": {"url": url}}
    assert server.chat([part, text("What is it?")], fps=1e-9).status_code == 400
    assert server.chat([part, text("What is it?")], fps=0.001).status_code == 200


def test_frames_in_one_url_are_images_and_none_is_seen_twice(server):
    pictures = [frame[..., ::-1] for frame in frames(make_scene(100, 12.0), 1.0, 224)]
    parts = ",".join(base64.b64encode(image).decode() for image in encoded(".jpg", *pictures))
    part = {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{parts}"}}
    response = server.chat([part, text("What is it?")])
    assert answer_of(response)
    assert response.json()["retake"]["video"]["n_frames"] == len(pictures)


@pytest.mark.process
def test_the_server_itself_decodes_nothing():
    """The modules of the server load neither OpenCV's nor FFmpeg's decoders to take images."""
    code = (
        "import sys, retake_edge.server.images, retake_edge.server.sources;"
        "print('cv2' in sys.modules, 'av' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "False"]
