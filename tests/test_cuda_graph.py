"""CUDA graphs are recorded once per shape that comes again, and replayed; what cannot be recorded runs without."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from fastseg.deploy import cuda_graph
from fastseg.deploy.cuda_graph import WARMUP, CudaGraphs
from fastseg.models import create_model


class Doubling:
    """A function like a network's: what it is called with is written down, and its result has memory of its own."""

    def __init__(self) -> None:
        self.calls: list[Tensor] = []
        self.memory: dict[torch.Size, Tensor] = {}

    def __call__(self, x: Tensor) -> Tensor:
        self.calls.append(x)
        return torch.mul(x, 2, out=self.memory.setdefault(x.shape, torch.empty_like(x)))


class OnCuda(torch.Tensor):
    """A tensor of the CPU that says it is on a GPU."""

    device = property(lambda self: torch.device("cuda", 0))


class Recorder:
    """Stands for torch.cuda: a graph replays by calling the function with what it was called with when recorded."""

    def __init__(self, function: Doubling) -> None:
        self.function = function
        self.graphs: list[Recorder.CUDAGraph] = []
        self.pools: list[object] = []
        self.problem: Exception | None = None

    class CUDAGraph:
        def __init__(self) -> None:
            self.replay: Callable[[], object] = lambda: None

        def pool(self) -> tuple[int, int]:
            return (0, 1)

    class Stream:
        def wait_stream(self, other: object) -> None:
            pass

    @staticmethod
    def current_stream() -> Stream:
        return Recorder.Stream()

    @staticmethod
    def stream(stream: Stream) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    @staticmethod
    def device(device: torch.device) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def graph(self, graph: CUDAGraph, pool: object) -> Iterator[None]:
        if self.problem is not None:
            raise self.problem
        yield
        source = self.function.calls[-1]
        graph.replay = lambda: self.function(source)
        self.graphs.append(graph)
        self.pools.append(pool)


@pytest.fixture
def function() -> Doubling:
    return Doubling()


@pytest.fixture
def recorder(function: Doubling, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder(function)
    monkeypatch.setattr(cuda_graph, "cuda", recorder)
    return recorder


def on_cuda(*shape: int, value: float = 1) -> Tensor:
    return torch.full(shape, value).as_subclass(OnCuda)


def values(x: Tensor) -> set[float]:
    return set(x.as_subclass(torch.Tensor).flatten().tolist())


def test_a_shape_is_recorded_when_it_comes_again_and_then_replayed(function: Doubling, recorder: Recorder) -> None:
    graphs = CudaGraphs(function)
    assert values(graphs(on_cuda(2, 3))) == {2}
    assert (len(function.calls), len(recorder.graphs)) == (1, 0)
    assert values(graphs(on_cuda(2, 3, value=2))) == {4}
    assert (len(function.calls), len(recorder.graphs)) == (1 + WARMUP + 2, 1)  # recorded, then replayed
    assert values(graphs(on_cuda(2, 3, value=3))) == {6}
    assert (len(function.calls), len(recorder.graphs)) == (1 + WARMUP + 3, 1)


def test_a_replay_reads_the_memory_that_was_recorded_and_its_result_is_the_callers(
    function: Doubling, recorder: Recorder
) -> None:
    graphs = CudaGraphs(function, after=0)
    first = graphs(on_cuda(4))
    second = graphs(on_cuda(4, value=5))
    assert len({call.data_ptr() for call in function.calls}) == 1
    assert (values(first), values(second)) == ({2}, {10})


def test_shapes_layouts_and_types_have_graphs_of_their_own(function: Doubling, recorder: Recorder) -> None:
    graphs = CudaGraphs(function, after=0)
    for x in (on_cuda(2, 3), on_cuda(3, 2), on_cuda(3, 2).t(), on_cuda(2, 3).double()):
        graphs(x)
        function.memory.clear()
    assert len(recorder.graphs) == 4


def test_the_shape_that_was_used_longest_ago_gives_way(function: Doubling, recorder: Recorder) -> None:
    graphs = CudaGraphs(function, limit=2, after=0)
    for length in (1, 2, 1, 3):
        graphs(on_cuda(length))
    assert len(recorder.graphs) == 3
    graphs(on_cuda(1))
    assert len(recorder.graphs) == 3, "used after the second shape, so still there"
    graphs(on_cuda(2))
    assert len(recorder.graphs) == 4


def test_all_graphs_share_one_pool_of_memory(function: Doubling, recorder: Recorder) -> None:
    graphs = CudaGraphs(function, after=0)
    for length in (1, 2, 3):
        graphs(on_cuda(length))
    assert recorder.pools == [None, (0, 1), (0, 1)]


def test_many_shapes_that_come_once_are_not_remembered_for_ever(function: Doubling, recorder: Recorder) -> None:
    graphs = CudaGraphs(function)
    for length in range(1, 2 * cuda_graph.SEEN):
        graphs(on_cuda(length))
    assert len(recorder.graphs) == 0
    assert len(graphs._seen) == cuda_graph.SEEN


def test_what_cannot_be_recorded_runs_without_and_says_so_once(
    function: Doubling, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.problem = RuntimeError("operation not permitted when stream is capturing\nmore")
    graphs = CudaGraphs(function, after=0)
    with caplog.at_level("WARNING"):
        assert values(graphs(on_cuda(2))) == values(graphs(on_cuda(3))) == {2}
    assert [record.getMessage() for record in caplog.records] == [
        "no CUDA graph can be made of this network (RuntimeError: operation not permitted when stream is capturing); "
        "it runs without"
    ]


def test_a_cpu_is_left_alone(function: Doubling, recorder: Recorder) -> None:
    graphs = CudaGraphs(function, after=0)
    assert values(graphs(torch.ones(2))) == values(graphs(torch.ones(2))) == {2}
    assert (len(function.calls), len(recorder.graphs)) == (2, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["fast_scnn", "bisenet_r18", "gscnn_r50"])
def test_graphs_on_a_gpu_give_the_labels_of_ordinary_calls(name: str) -> None:
    deployed = create_model(name, num_classes=19).eval().cuda().deploy(precision="fp16")
    graphs = CudaGraphs(deployed.labels, after=0)
    for height, width in ((128, 256), (96, 160), (128, 256)):
        images = torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8, device="cuda")
        with torch.inference_mode():
            assert torch.equal(graphs(images), deployed.labels(images))
    assert graphs.works
