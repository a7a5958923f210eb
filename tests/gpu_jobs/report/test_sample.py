"""The sample of results, on the page and for a terminal."""

import polars as pl
import pytest

from gpu_jobs.report import formats, sample_text


def test_shots_are_shown_with_times_labels_and_pictures(made, video_rows):
    """Each shot has its begin and end, its labels with probabilities, and its first frame."""
    page = made.page(made.manifest(video_rows()))
    assert "0.mp4 3 shots" in page.words
    assert "00:04.0 \N{EN DASH} 00:08.0 label 1 50% thing <1%" in page.words
    assert page.count("img") == 3 + 2


def test_shots_that_look_alike_are_paired(made, video_rows):
    """Shots 0 and 2 have the same embedding: one pair, earlier first."""
    page = made.page(made.manifest(video_rows()))
    assert "Similar shots 1 pair" in page.words
    assert "00:02.0 0.mp4 00:10.0 0.mp4 similarity 1.000, 1 frame" in page.words


def test_frames_without_shots_are_listed(made, video_rows):
    """With the analysis `frames` alone the sample lists frames, without pictures."""
    page = made.page(made.manifest(video_rows().filter(analysis="frame").drop("thumbnail")))
    assert "0.mp4 3 frames 00:02.0 label 0 50%" in page.words


def test_the_terminal_gets_the_shots_of_each_video(made, video_rows):
    """Times to a tenth of a second, labels, and how many more there are."""
    text = sample_text(made.store, made.manifest(video_rows(2, 3)), 4)
    assert text.splitlines() == [
        "0.mp4: 3 shots",
        "  00:00.0 - 00:04.0  label 0 50%, thing <1%",
        "  00:04.0 - 00:08.0  label 1 50%, thing <1%",
        "  and 1 more",
        "1.mp4: 3 shots",
        "  00:00.0 - 00:04.0  label 0 50%, thing <1%",
        "  00:04.0 - 00:08.0  label 1 50%, thing <1%",
        "  and 1 more",
    ]


def test_a_sample_cannot_steer_the_terminal(made, video_rows):
    """Escape sequences in names and values arrive as harmless text."""
    for rows in (
        pl.DataFrame({"item": ["\x1b[31mred\x07"], "text\x1b": ["two\nlines"]}),
        video_rows().with_columns(video=pl.lit("\x1b]0;title\x07.mp4")),
    ):
        text = sample_text(made.store, made.manifest(rows), 5)
        assert not set(text) & {"\x1b", "\x07", "\r"}


@pytest.mark.parametrize(
    ("at_s", "words"), [(0, "00:00.0"), (59.96, "01:00.0"), (61.24, "01:01.2"), (3599.99, "1:00:00.0")]
)
def test_positions_carry_their_rounding(at_s, words):
    """59.96 s is one minute, not sixty seconds."""
    assert formats.position(at_s) == words
