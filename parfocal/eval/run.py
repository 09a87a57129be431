"""Run a benchmark: ask, write `predictions.jsonl`, score, write `report.json` with its protocol.

Answers are written as they come, and scores are computed from the file, as `rescore` does.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parfocal import __version__
from parfocal.data.outputs import make_folder
from parfocal.errors import ConfigError, DataError
from parfocal.eval.benchmarks import get_benchmark
from parfocal.eval.predictions import Prediction, numbered, read_predictions, write_predictions

if TYPE_CHECKING:
    from parfocal.predict import Predictor

logger = logging.getLogger(__name__)

PREDICTIONS = "predictions.jsonl"
REPORT = "report.json"
_MODEL = ("model", "dialect", "finder", "device", "dtype", "decoding")  # what rescoring keeps
_LIBRARIES = ("torch", "torchvision", "transformers", "numpy", "pillow")


def run_benchmark(
    name: str,
    predictor: Predictor,
    out: Path,
    limit: int | None = None,
    batch_size: int = 16,
    on_progress: Callable[[int, int], object] = lambda done, total: None,
    *,
    data: Path | None = None,
) -> dict[str, Any]:
    """Ask a predictor a whole benchmark and score its answers.

    Args:
        name: a key of `BENCHMARKS`.
        predictor: what `parfocal.load` returns.
        out: folder for `predictions.jsonl` and `report.json`; made if missing. Those of an earlier
            run get a number.
        limit: only the first so many pictures or videos.
        batch_size: pictures and questions at a time; answers do not depend on it.
        on_progress: called with (pictures done, pictures in all).
        data: the folder of a benchmark that is not bundled.

    Returns:
        The report as it was written.

    Raises:
        ConfigError: for an unknown benchmark, a batch size or limit below 1, or a data folder that
            is missing or not wanted.
        DataError: if the benchmark's data is missing or broken.

    Example:
        >>> report = run_benchmark("scenes", mini, Path("out"), limit=5)  # doctest: +SKIP
    """
    if batch_size < 1:
        raise ConfigError(f"the batch size is {batch_size}; it must be at least 1.")
    benchmark = get_benchmark(name)
    split = benchmark.load(limit, data)
    total = benchmark.size(split)
    done = 0

    def on_image() -> None:
        nonlocal done
        done += 1
        on_progress(done, total)

    make_folder(out)
    _keep_older(out)
    asked = benchmark.predict(predictor, split, batch_size, on_image)
    count = write_predictions(asked, out / PREDICTIONS)
    predictions = list(read_predictions(out / PREDICTIONS))
    logger.info("%s: %d predictions on %d pictures in %s", name, count, total, out)
    return _write_report(name, split, predictions, out, batch_size, _describe_model(predictor))


def _keep_older(out: Path) -> None:
    """Give a finished run that is in the folder other names, so that nothing is written over."""
    older = [path for path in (out / PREDICTIONS, out / REPORT) if path.exists()]
    for path in older:
        os.replace(path, numbered(path))
    if older:
        logger.warning("%s held a run; its files have a number now", out)


def rescore(
    name: str, out: Path, limit: int | None = None, data: Path | None = None
) -> dict[str, Any]:
    """Score a finished run again from its `predictions.jsonl`, without any model.

    Args:
        name: of the benchmark.
        out: the folder of the run; its report is replaced.
        limit: the limit that the run had.
        data: the data folder that the run had.

    Returns:
        The new report. Model and batch size are taken from the old report, if there is one.
    """
    benchmark = get_benchmark(name)
    predictions = list(read_predictions(out / PREDICTIONS))
    old: dict[str, Any] = {}
    if (out / REPORT).is_file():
        try:
            old = json.loads((out / REPORT).read_text(encoding="utf-8"))["protocol"]
        except (ValueError, KeyError, TypeError) as err:
            raise DataError(
                f"{out / REPORT} is not a report. Move it away and score again."
            ) from err
    split = benchmark.load(limit, data)
    model = {key: old.get(key) for key in _MODEL}
    return _write_report(name, split, predictions, out, old.get("batch_size"), model)


def _write_report(
    name: str,
    split: Any,
    predictions: Sequence[Prediction],
    out: Path,
    batch_size: int | None,
    model: dict[str, Any],
) -> dict[str, Any]:
    benchmark = get_benchmark(name)
    protocol = {
        "benchmark": name,
        "version": benchmark.version,
        **model,
        **benchmark.protocol(split),
        "predictions": len(predictions),
        "prompt_examples": _prompt_examples(predictions),
        "batch_size": batch_size,
        "libraries": {"parfocal": __version__} | {name: _version(name) for name in _LIBRARIES},
    }
    scores = benchmark.score(predictions, split)
    benchmark.export(predictions, split, out)
    report = {"schema": "parfocal.report/1", "benchmark": name, **scores, "protocol": protocol}
    (out / REPORT).write_text(
        json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="ascii"
    )
    return report


def _describe_model(predictor: Predictor) -> dict[str, Any]:
    """The values of `_MODEL`, as far as the predictor states them.

    `finder` is what the boxes that nobody gave depend on, apart from the pictures; None where the
    model is shown none.
    """
    inner, own = getattr(predictor, "model", None), getattr(predictor, "processor", None)
    dialect = getattr(predictor, "dialect", None) or getattr(own, "dialect", None)
    finder = getattr(predictor, "finder", None)
    values = (
        predictor.name,
        getattr(dialect, "name", None),
        None if finder is None else getattr(finder, "identity", type(finder).__name__),
        str(getattr(inner, "device", "unknown")),
        str(getattr(inner, "dtype", "unknown")),
        getattr(predictor, "decoding", "the predictor's defaults"),
    )
    return dict(zip(_MODEL, values, strict=True))


def _prompt_examples(predictions: Sequence[Prediction]) -> dict[str, str]:
    """The first wording that each task sent to the model."""
    examples: dict[str, str] = {}
    for prediction in predictions:
        if prediction.prompt:
            examples.setdefault(prediction.task, prediction.prompt)
    return examples


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
