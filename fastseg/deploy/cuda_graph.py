"""CUDA graphs: what a network asks of the GPU, recorded once per input shape and started again by one call."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, cuda

logger = logging.getLogger(__name__)

WARMUP = 3  # calls before recording: cuDNN chooses its algorithms in them, Triton compiles and libraries take memory
SEEN = 64  # shapes that are remembered while they wait for another call

Key = tuple[torch.Size, tuple[int, ...], torch.dtype, torch.device]


class Recording(NamedTuple):
    """A graph, and the memory that it reads from and writes to."""

    graph: cuda.CUDAGraph
    source: Tensor
    result: Tensor


class CudaGraphs:
    """`function`, such as `DeployedModel.labels`, played from CUDA graphs for inputs of shapes that come again.

    A shape's first `after` calls are ordinary ones; the next records a graph. The `limit` shapes used last are kept,
    all in one pool of memory. `function` takes one tensor and gives one, and does the same work for all inputs of a
    shape; changes of weights in place are seen, other weights are not. What cannot be recorded runs as before, which is
    said once, and `works` is then False. Results are the caller's own. Not for several threads at once.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], *, limit: int = 4, after: int = 1) -> None:
        self.function = function
        self.limit = limit
        self.after = after
        self._recordings: OrderedDict[Key, Recording] = OrderedDict()
        self._seen: OrderedDict[Key, int] = OrderedDict()
        self._pool: Any = None  # graphs share it
        self.works = True

    def __call__(self, x: Tensor) -> Tensor:
        """The function's result; `x` of another device than CUDA is an ordinary call."""
        key = (x.shape, x.stride(), x.dtype, x.device)
        if not self.works or x.device.type != "cuda" or (key not in self._recordings and self._is_new(key)):
            return self.function(x)
        with cuda.device(x.device):
            if key not in self._recordings and not self._record(key, x):
                return self.function(x)
            self._recordings.move_to_end(key)
            recording = self._recordings[key]
            recording.source.copy_(x, non_blocking=True)
            recording.graph.replay()
            return recording.result.clone()  # the next replay writes over it

    def _is_new(self, key: Key) -> bool:
        """Whether this is one of a shape's first calls; counts it then."""
        calls = self._seen.pop(key, 0)
        if calls >= self.after:
            return False
        self._seen[key] = calls + 1
        if len(self._seen) > SEEN:
            self._seen.popitem(last=False)
        return True

    def _record(self, key: Key, x: Tensor) -> bool:
        """Add the graph of a shape, the oldest one giving way. False if that fails."""
        with torch.inference_mode(False), torch.no_grad():
            source = torch.empty_like(x)  # written to in every mode
            source.copy_(x)
        here, aside = cuda.current_stream(), cuda.Stream()
        aside.wait_stream(here)
        with cuda.stream(aside):
            for _ in range(WARMUP):
                self.function(source)
        here.wait_stream(aside)
        while len(self._recordings) >= self.limit:
            self._recordings.popitem(last=False)
        graph = cuda.CUDAGraph()
        try:
            with cuda.graph(graph, pool=self._pool):
                result = self.function(source)
        except RuntimeError as error:
            self.works = False
            self._recordings.clear()
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            logger.warning("no CUDA graph can be made of this network (%s); it runs without", reason)
            return False
        self._pool = graph.pool()  # graphs that never run at the same time share their memory
        self._recordings[key] = Recording(graph, source, result)
        return True
