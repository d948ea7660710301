"""Every option of a benchmark arrives in its settings."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from retake_edge.bench.look.run import LookSettings
from retake_edge.bench.quality.run import QualitySettings
from retake_edge.bench.sampling.run import SamplingSettings
from retake_edge.bench.speed.compare import SpeedSettings
from retake_edge.bench.still import StillSettings
from retake_edge.bench.text.needle import TextNeedleSettings
from retake_edge.cli import app
from retake_edge.config import RuntimeConfig
from retake_edge.errors import ConfigError

TEXT_MODEL = Path(__file__).parents[1] / "golden" / "tiny-f32.gguf"
RUNTIME = RuntimeConfig(n_gpu_layers=0, n_threads=3)

CASES: dict[str, tuple[str, str, Any, RuntimeConfig | None]] = {
    "quality": (
        "quality.run.run_quality",
        "--seed 5 --frames 16,24 --keep-ratio 0.7,0.3 --questions 9 --prefill-chunk-frames 8 "
        "--n-queries 12 --footage slides,camera --absent --threads 3 --n-gpu-layers 0",
        QualitySettings(5, (16, 24), (0.7, 0.3), 9, 8, 12, ("slides", "camera"), True),
        RUNTIME,
    ),
    "text-needle": (
        "text.needle.run_text_needle",
        f"--model {TEXT_MODEL} --seed 5 --documents 2 --sentences 7 --facts 3 --answers word "
        "--chunk-tokens 64 --n-queries 12 --keep-ratio 0.7,0.3 --threads 3 --n-gpu-layers 0",
        TextNeedleSettings(5, 2, 7, 3, "word", 64, 12, (0.7, 0.3)),
        RUNTIME,
    ),
    "speed": (
        "speed.compare.run_speed",
        "--frames 16,24 --keep-ratio 0.3 --kv-budget 512 --no-full --policy coverage "
        "--prefill-chunk-frames 8 --n-queries 12 --long-side 112 --predict 5 --encode-frames 6 "
        "--repeats 2 --threads 3 --n-gpu-layers 0 --batch-size 256 --ubatch-size 128 "
        "--cache-types q8_0",
        SpeedSettings(
            *((16, 24), 0.3, 512, False, "coverage", 8, 12, 112, 5, 6, 2),
            RuntimeConfig(n_gpu_layers=0, n_threads=3, n_batch=256, n_ubatch=128),
            ("q8_0",),
        ),
        None,
    ),
    "look": (
        "look.run.run_look",
        "--scenes print,repeats --seed 5 --videos 2 --seconds 64 --events 0.5,2 --fps 1 "
        "--keep-ratio 0.7,0.3 --look-again 12 --questions 9 --absent 3 --without-file --threads 3 "
        "--n-gpu-layers 0",
        LookSettings(("print", "repeats"), 5, 2, 64, (0.5, 2), 1, (0.7, 0.3), 12, 9, 3, True),
        RUNTIME,
    ),
    "still": (
        "still.run_still",
        "--seed 5 --footage slides,moving --seconds 64 --videos 2 --questions 9 --keep-ratio 0.3 "
        "--still 7 --long-side 112",
        StillSettings(5, ("slides", "moving"), 64, 2, 9, 0.3, 7, 112),
        None,
    ),
    "sampling": (
        "sampling.run.run_sampling",
        "--seed 5 --videos 2 --seconds 96 --events 4 --event 2 --max-frames 16,24 --kinds cuts "
        "--encodings vp9,mjpeg",
        SamplingSettings(5, 2, 96, 4, 2, (16, 24), ("cuts",), ("vp9", "mjpeg")),
        None,
    ),
}


class Begun(Exception):
    """A benchmark begins, with these arguments."""


@pytest.mark.parametrize("kind", CASES)
def test_every_option_of_a_benchmark_arrives_in_its_settings(kind, monkeypatch):
    runner, options, settings, runtime = CASES[kind]

    def run(*arguments, **_):
        raise Begun(*arguments)

    monkeypatch.setattr(f"retake_edge.bench.{runner}", run)
    begun = CliRunner().invoke(app, ["bench", kind, *options.split()]).exception
    assert isinstance(begun, Begun), begun
    assert settings in begun.args
    assert runtime is None or runtime in begun.args
    default = asdict(type(settings)())
    same = {name for name, value in asdict(settings).items() if value == default[name]}
    assert same <= {"frames_per_step", "fps", "size_px"}, "a setting that no option tried"


@pytest.mark.parametrize("flag", [("--keep", "7"), ("--keep=7",), ("--keep-ratio", "7")])
@pytest.mark.parametrize("kind", ["quality", "speed", "text-needle"])
def test_both_names_of_the_keep_ratio_are_read(kind, flag):
    model = ("-m", "none.gguf") if kind == "text-needle" else ()
    refused = CliRunner().invoke(app, ["bench", kind, *model, *flag]).exception
    assert isinstance(refused, ConfigError)
    assert str(refused).startswith("--keep-ratio is ") and "7" in str(refused)
