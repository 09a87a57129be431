"""Evaluation: benchmarks ask a predictor, pure metrics score what it answered.

    pictures and questions -> Predictor -> predictions.jsonl -> score -> report.json

`run.run_benchmark` does all of it. Asking and scoring are separate: a score is a pure function of
the predictions, so an old file can be scored again offline. A benchmark is a file in `benchmarks`;
a metric is a file in `metrics` and never imports torch.
"""
