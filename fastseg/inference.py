"""What `Predictor` runs: a network, deployed anew when it was trained further, or an exported file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

from fastseg.deploy import DeployedModel
from fastseg.deploy.model import PRECISIONS
from fastseg.edges import edge_model
from fastseg.errors import CheckpointError, ConfigError, DataError, printable
from fastseg.exported import ExportedModel
from fastseg.memory_budget import MemoryBudget
from fastseg.ops import upsample_argmax
from fastseg.types import SegModel
from fastseg.views import mean_edges, mean_labels, views

Versions = tuple[tuple[int, int], ...]
COMPILERS = ("torch._dynamo", "torch._inductor", "torch._functorch")
SCALES = (0.01, 100)  # the smallest and the largest factor
INSTEAD = "predict with the network itself"


class Found(NamedTuple):
    """Labels uint8 (N,H,W) and, where they were asked for, their probabilities float32 (N,H,W)."""

    labels: np.ndarray
    confidence: np.ndarray | None


class FileInference:
    """Runs an exported file."""

    def __init__(self, model: ExportedModel) -> None:
        self.model = model

    def check(self, *, edges: bool = False, confidence: bool = False, scale: float = 1.0) -> None:
        """Raises ConfigError for anything but labels at the scale that the file has built in."""
        if scale != 1:
            raise ConfigError(f"{printable(self.model.path)} is an exported file, whose scale is built in; {INSTEAD}")
        if confidence:
            raise ConfigError(f"{printable(self.model.path)} is an exported file, which gives no confidence; {INSTEAD}")
        if edges:
            raise ConfigError(f"{printable(self.model.path)} is an exported file, which finds no edges; {INSTEAD}")

    def labels(self, images: Sequence[np.ndarray], name: str, *, confidence: bool = False, scale: float = 1.0) -> Found:
        """Images uint8 (H,W,3) of one size -> their labels.

        Raises ConfigError for `confidence` and for another `scale` than 1, otherwise as `ExportedModel.labels`.
        """
        self.check(confidence=confidence, scale=scale)
        return Found(self.model.labels(np.stack(images)), None)

    def edges(self, image: np.ndarray, name: str) -> NoReturn:
        """Raises ConfigError: files give labels only."""
        self.check(edges=True)
        raise AssertionError("a file finds no edges")


class NetworkInference:
    """Runs the deployed form of `model`, which follows it: changed weights or statistics are deployed anew.

    Changes are seen by the version that PyTorch counts for every tensor; one made behind its back
    (`weight.data[0] = 1`, or through NumPy) asks for a new predictor. With `compiled` the network goes through
    torch.compile: for the first size, then for what has changed since (height, width or batch) as a variable, so that
    a handful of compilations serves every size. With `cuda_graphs`, images of a shape that comes again on a GPU are
    played from a CUDA graph, one view each. With `max_bytes`, images that would take more memory are computed in
    bands of rows, exactly (see `MemoryBudget`), at scale 1, one view each; edges are not found then.
    """

    def __init__(
        self,
        model: SegModel,
        device: torch.device,
        *,
        precision: str = "fp32",
        compiled: bool = False,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        cuda_graphs: bool = True,
        max_bytes: int | None = None,
    ) -> None:
        self.model = model
        self.device = device
        self.precision = precision
        self.compiled = compiled
        self.scales = tuple(scales)
        self.flip = flip
        self.cuda_graphs = cuda_graphs
        self.max_bytes = max_bytes
        self._deployed: DeployedModel | None = None
        self._whole: Callable[[Tensor], Tensor]  # uint8 images -> logits, of the deployed network
        self._budget: MemoryBudget | None = None
        self._versions: Versions = ()

    def check(self, *, edges: bool = False, confidence: bool = False, scale: float = 1.0) -> None:
        """Raises ConfigError for what this network, or any network within a memory budget, does not give."""
        check_scales([scale])
        if edges:
            edge_model(self.model)
        if self.max_bytes is not None and edges:
            raise ConfigError("max_mem holds for labels, not for edges; leave edges (--edges) or max_mem out")
        if self.max_bytes is not None and scale != 1:
            raise ConfigError(f"max_mem holds at scale 1, and the scale is {scale:g}; leave scale or max_mem out")

    @property
    def deployed(self) -> DeployedModel:
        """The network for inference, as the model is now."""
        versions = _versions(self.model)
        if self._deployed is None or versions != self._versions:
            with torch.inference_mode(False), torch.no_grad():  # its weights serve in every mode
                self._deployed, self._versions = self.model.deploy(precision=self.precision), versions
            if self.max_bytes is not None:
                self._budget = MemoryBudget(self._deployed, self.max_bytes, self.device)
            if self.compiled:
                self._deployed.network.compile(options={"freezing": True})
            self._whole = self._deployed
            if self.cuda_graphs and self.device.type == "cuda":
                from fastseg.deploy.cuda_graph import CudaGraphs

                self._whole = CudaGraphs(self._deployed)
        return self._deployed

    @torch.inference_mode()
    def labels(self, images: Sequence[np.ndarray], name: str, *, confidence: bool = False, scale: float = 1.0) -> Found:
        """Images uint8 (H,W,3) of one size -> their labels, of inputs that are `scale` times as large as otherwise.

        `name` is what messages call the images.

        Raises CheckpointError for a network that gives NaN, ConfigError for one that overflows in its precision or that
        cannot be compiled and for another scale than 1 within `max_bytes`, DataError for images that need more memory
        than there is.
        """
        self.check(confidence=confidence, scale=scale)
        with self._ready_for(images, name, scale) as stacked:
            labels, shares = self._labels(stacked, name, confidence, scale)
            return Found(labels.cpu().numpy(), None if shares is None else shares.cpu().numpy())

    @torch.inference_mode()
    def edges(self, image: np.ndarray, name: str) -> np.ndarray:
        """Image uint8 (H,W,3) -> edge probabilities float32 (H,W).

        Raises ConfigError for a network that finds none, and with `max_bytes`.
        """
        self.check(edges=True)
        model = edge_model(self.model)
        dtype = PRECISIONS[self.precision]

        def maps(images: Tensor) -> Iterator[Tensor]:
            for x, flipped in views(images, self.model.preprocessing, self.scales, self.flip):
                with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
                    found = model.predict_edges(x).amax(dim=1, keepdim=True).float()
                check_finite(found, name, self.precision)
                yield found.flip(-1) if flipped else found

        with self._ready_for([image], name) as images:
            return mean_edges(maps(images), (image.shape[0], image.shape[1]))[0].cpu().numpy()

    def _labels(self, images: Tensor, name: str, confidence: bool, scale: float) -> tuple[Tensor, Tensor | None]:
        deployed, size = self.deployed, (images.shape[1], images.shape[2])
        scales = [scale * each for each in self.scales]
        if len(scales) > 1 or self.flip:
            logits_of_views = self._views_logits(deployed, images, scales, name)
            labels, shares = mean_labels(logits_of_views, size, align_corners=deployed.align_corners)
            return labels, shares if confidence else None
        if scales == [1.0]:
            network = self._whole if self._budget is None else self._budget.network(images, self._whole)
            logits = self._checked(network, images, name)
        else:
            logits = next(self._views_logits(deployed, images, scales, name))
        if confidence:
            return upsample_argmax(logits, size, align_corners=deployed.align_corners, confidence=True)
        return upsample_argmax(logits, size, align_corners=deployed.align_corners), None

    def _views_logits(
        self, deployed: DeployedModel, images: Tensor, scales: Sequence[float], name: str
    ) -> Iterator[Tensor]:
        for x, flipped in views(images, deployed.preprocessing, scales, self.flip):
            logits = self._checked(deployed.logits, x, name)
            yield logits.flip(-1) if flipped else logits

    def _checked(self, network: Callable[[Tensor], Tensor], x: Tensor, name: str) -> Tensor:
        """The logits that the network gives, if they are numbers."""
        try:
            logits = network(x)
        except Exception as error:
            if self.compiled and any(kind.__module__.startswith(COMPILERS) for kind in type(error).__mro__):
                reason = str(error).strip().splitlines()[0]
                raise ConfigError(f"torch.compile fails here ({reason}); leave compile (--compile) out") from error
            raise
        check_finite(logits, name, self.precision)
        return logits

    @contextmanager
    def _ready_for(self, images: Sequence[np.ndarray], name: str, scale: float = 1.0) -> Iterator[Tensor]:
        """Images on the device, uint8 (N,H,W,3), and the network in eval mode; too little memory is a DataError."""
        self.model.eval()  # the caller may have trained it since: batch statistics must be neither used nor changed
        try:
            yield _on_device(images, self.device)
        except RuntimeError as error:
            # CUDA has its own class for it; the CPU allocator raises a plain RuntimeError.
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                height, width = images[0].shape[:2]
                largest = scale * max(self.scales)
                seen = f" and seen at scale {largest:g}" if largest > 1 else ""
                elsewhere = "" if self.device.type == "cpu" else ", or device='cpu'"
                raise DataError(
                    f"{name} is {width}x{height}{seen}, too large for the memory of {self.device}; "
                    f"make it smaller, use fewer or smaller scales, a smaller batch{elsewhere}"
                ) from error
            raise


def check_scales(scales: Sequence[float]) -> None:
    """Raises ConfigError for no scale, or for one at which no image is worth a look."""
    smallest, largest = SCALES
    if not scales or not all(smallest <= scale <= largest for scale in scales):  # NaN is refused, too
        raise ConfigError(
            f"scales is {tuple(scales)}; give one or more factors from {smallest} to {largest}, such as 0.75 1 1.25"
        )


def check_finite(values: Tensor, name: str, precision: str) -> None:
    """Raises CheckpointError for NaN or infinity in float32, ConfigError in a precision that may be to blame."""
    # a sum is quicker than a look at each value; it may overflow where none of them is infinite
    if torch.isfinite(values.sum()) or torch.isfinite(values).all():
        return
    if precision == "fp32":
        raise CheckpointError(f"the network gives NaN or infinity for {name}; its weights are damaged")
    raise ConfigError(f"the network overflows in {precision} for {name}; use precision fp32")


def _on_device(images: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Images of one size as one tensor uint8 (N,H,W,3) on the device."""
    if len(images) > 1:
        stacked = torch.from_numpy(np.stack(images))
    else:
        image = images[0]
        stacked = torch.from_numpy(image if image.flags.writeable else image.copy())[None]  # else from_numpy warns
    if device.type == "cuda":  # from pinned memory the copy goes on beside what the GPU does
        return stacked.pin_memory().to(device, non_blocking=True)
    return stacked.to(device)


def _versions(model: SegModel) -> Versions:
    """What changes when a parameter or buffer does, in place or by another taking its place."""
    tensors = (*model.parameters(), *model.buffers())
    # tensors made under inference_mode have no version
    return tuple((tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors)
