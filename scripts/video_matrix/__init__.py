"""Videos of every kind that people have, made with ffmpeg, and our reader compared with ffmpeg.

    python scripts/video_matrix [NAME ...] [--out benchmarks/video-matrix.json]

`picture` draws the frames: each carries its own number, so the time on screen is known without
ffmpeg. `case` says what one file is and what must be seen in it; `cases_*` list the files.
`reference` asks ffmpeg and ffprobe, `compare` compares, `__main__` runs all and writes the table.
"""
