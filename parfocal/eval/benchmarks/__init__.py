"""Benchmarks by name, a file each.

To add one: write its file, add its line here, pin its score in a test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from parfocal.errors import ConfigError
from parfocal.eval.benchmarks.scenes import ScenesBenchmark
from parfocal.eval.benchmarks.video_qa import VideoQaBenchmark
from parfocal.eval.predictions import Prediction


class Benchmark(Protocol):
    """What `run_benchmark` needs of a benchmark; `split` is whatever `load` returned."""

    @property
    def name(self) -> str:
        """Its key in `BENCHMARKS`."""

    @property
    def version(self) -> str:
        """Raised when data, wording or scoring change."""

    @property
    def bundled(self) -> bool:
        """Whether its data comes with the package: a recipe can run it without a folder."""

    def load(self, limit: int | None = None, data: Path | None = None) -> Any:
        """Read the questions about the pictures or videos, or about the first so many.

        Args:
            limit: how many; None takes all.
            data: the folder of a benchmark that is not bundled.

        Raises:
            ConfigError: if there is a folder and none is wanted, or the other way round.
            DataError: if the data is missing or broken.
        """

    def size(self, split: Any) -> int:
        """Number of pictures or videos in the split."""

    def predict(
        self, predictor: Any, split: Any, batch_size: int, on_image: Callable[[], object]
    ) -> Iterator[Prediction]:
        """Ask everything, in a fixed order; calls `on_image` after each picture or video."""

    def score(self, predictions: Iterable[Prediction], split: Any) -> dict[str, Any]:
        """Pure function from predictions to the report's numbers."""

    def protocol(self, split: Any) -> dict[str, Any]:
        """What the numbers depend on besides the model."""

    def export(self, predictions: Sequence[Prediction], split: Any, out: Path) -> None:
        """Write the answers beside the report as the benchmark's own tools read them, if any do."""


BENCHMARKS: dict[str, Benchmark] = {
    "msrvtt_qa": VideoQaBenchmark("msrvtt_qa"),
    "msvd_qa": VideoQaBenchmark("msvd_qa"),
    "scenes": ScenesBenchmark(),
}
BUNDLED = tuple(name for name, benchmark in BENCHMARKS.items() if benchmark.bundled)


def get_benchmark(name: str) -> Benchmark:
    """The benchmark of this name.

    Raises:
        ConfigError: if there is none; the message lists the names.
    """
    if name not in BENCHMARKS:
        raise ConfigError(
            f"there is no benchmark {name!r}. The benchmarks are: {', '.join(sorted(BENCHMARKS))}."
        )
    return BENCHMARKS[name]


__all__ = ["BENCHMARKS", "BUNDLED", "Benchmark", "get_benchmark"]
