"""What single frames show, and which look alike."""

import json

import av
import numpy as np
import polars as pl
import pytest
import transformers

from gpu_jobs.errors import WorkloadImportError
from gpu_jobs.workloads.batch_size import Batches, BatchSize
from gpu_jobs.workloads.video.duplicates import near_duplicates
from gpu_jobs.workloads.video.frames import FrameModel
from gpu_jobs.workloads.video.picture import Picture


@pytest.fixture(params=["classifier", "encoder"])
def tiny_model(request, tmp_path):
    """A folder with a randomly initialised ViT: it proves the plumbing, its guesses mean nothing."""
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        num_labels=3, id2label={0: "red", 1: "green", 2: "blue"}, label2id={"red": 0, "green": 1, "blue": 2},
    )  # fmt: skip
    import torch

    torch.manual_seed(0)
    kind = transformers.ViTForImageClassification if request.param == "classifier" else transformers.ViTModel
    kind(config).save_pretrained(tmp_path)
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}  # as hubs have it
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    return request.param, str(tmp_path)


def picture(seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    return Picture(av.VideoFrame.from_ndarray(pixels))


def test_any_transformers_model_can_look_at_frames(tiny_model):
    """A classifier gives labels and embeddings, an encoder embeddings alone."""
    kind, folder = tiny_model
    model = FrameModel(folder, "cpu", top_k=2)

    seen = model.predict([model.prepare(picture(seed)) for seed in range(5)])

    assert [len(one.labels) for one in seen] == [2 if kind == "classifier" else 0] * 5
    assert all(one.labels == sorted(one.labels, key=lambda each: -each["score"]) for one in seen)
    assert [len(one.embedding) for one in seen] == [16] * 5
    assert np.allclose([np.linalg.norm(one.embedding) for one in seen], 1, atol=1e-5)


def test_model_that_is_not_there_is_the_images_fault(tmp_path):
    with pytest.raises(WorkloadImportError, match="is no folder here"):
        FrameModel(f"{tmp_path}/no/such/model", "cpu", top_k=1)


def test_out_of_memory_halves_the_batch_for_good():
    calls = []

    def double(inputs):
        calls.append(len(inputs))
        if len(inputs) > 2:
            import torch

            raise torch.OutOfMemoryError
        return [2 * each for each in inputs]

    batches = Batches(BatchSize(8))

    assert batches.run(double, list(range(7))) == [0, 2, 4, 6, 8, 10, 12]
    assert calls == [7, 4, 2, 2, 2, 1]
    assert batches.size.value == 2


def frames(*found):
    schema = {"analysis": pl.String, "video": pl.String, "frame": pl.Int64, "embedding": pl.List(pl.Float32)}
    return pl.DataFrame(found, schema=schema, orient="row").with_columns(start_s=pl.col("frame") / 25)


EAST, NORTH = [1.0, 0.0], [0.0, 1.0]


def test_near_duplicates_pair_each_frame_with_its_most_similar_earlier_one():
    found = near_duplicates(
        frames(
            ("frame", "a", 0, EAST),
            ("frame", "a", 250, NORTH),
            ("frame", "b", 0, [0.6, 0.8]),
            ("frame", "b", 500, [0.99, 0.1]),
        ),
        threshold=0.9,
    )

    assert found.select("video", "frame", "other_video", "other_frame").rows() == [("b", 500, "a", 0)]
    assert found["similarity"][0] == pytest.approx(0.99 / np.hypot(0.99, 0.1))


@pytest.mark.parametrize(
    ("rows", "pairs"),
    [
        pytest.param([("frame", "a", 0, EAST), ("frame", "a", 100, EAST)], 0, id="seconds apart"),
        pytest.param([("frame", "a", 0, EAST), ("frame", "b", 100, EAST)], 1, id="another video"),
        pytest.param([("shot", "a", 0, None), ("frame", "a", 0, EAST), ("frame", "a", 500, EAST)], 0, id="one shot"),
        pytest.param(
            [("shot", "a", 0, None), ("shot", "a", 9, None), ("frame", "a", 0, EAST), ("frame", "a", 500, EAST)],
            1,
            id="two shots",
        ),
        pytest.param([("shot", "a", 0, None)], 0, id="no frames"),
    ],
)
def test_what_is_trivially_alike_is_no_near_duplicate(rows, pairs):
    assert near_duplicates(frames(*rows)).height == pairs


def test_near_duplicates_agree_with_a_plain_search_across_blocks(monkeypatch):
    """Each frame against each, in blocks of 16 and one by one."""
    monkeypatch.setattr("gpu_jobs.workloads.video.duplicates._BLOCK_ROWS", 16)
    vectors = np.random.default_rng(0).normal(size=(70, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [("frame", f"v{at:02}", 0, vector.tolist()) for at, vector in enumerate(vectors)]

    found = near_duplicates(frames(*rows), threshold=0.95).sort("video")

    cosines = np.tril(vectors @ vectors.T, k=-1)
    expected = [(f"v{at:02}", f"v{row.argmax():02}") for at, row in enumerate(cosines) if row.max() >= 0.95]
    assert len(expected) > 20
    assert found.select("video", "other_video").rows() == expected
