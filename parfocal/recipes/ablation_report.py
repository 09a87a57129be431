"""The table of an ablation beside what the papers say, as JSON and as Markdown."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parfocal.recipes.ablation import BUDGETS, Comparison, distinct_arms
from parfocal.recipes.ablation_score import METRICS, Spread, ranking
from parfocal.train.record import run_record

SCHEMA = "parfocal.ablation/1"

Entries = Sequence[Mapping[str, Any]]  # one a seed: scores, code, parameters, ...


def write_report(
    out: Path,
    comparisons: Mapping[str, Comparison],
    budget: str,
    scored: Mapping[str, Entries],
    command: str,
) -> None:
    """Write OUT/ablation.json and OUT/ablation.md.

    Args:
        out: the folder.
        comparisons: what was asked.
        budget: key of `parfocal.recipes.ablation.BUDGETS`.
        scored: name of an arm -> what was found so far, an entry a seed.
        command: that made it.
    """
    report = build_report(comparisons, budget, scored, command)
    text = json.dumps(report, indent=2, allow_nan=False) + "\n"
    (out / "ablation.json").write_text(text, encoding="utf-8")
    (out / "ablation.md").write_text(render(report), encoding="utf-8")


def build_report(
    comparisons: Mapping[str, Comparison],
    budget: str,
    scored: Mapping[str, Entries],
    command: str,
) -> dict[str, Any]:
    """Return the report as plain JSON values; the arguments are those of `write_report`."""
    found = {
        name: _comparison(
            item, {label: scored[arm.name] for label, arm in item.arms.items() if scored[arm.name]}
        )
        for name, item in comparisons.items()
    }
    distinct = distinct_arms(comparisons)
    return {
        "schema": SCHEMA,
        "command": command,
        "budget": {"name": budget, **dataclasses.asdict(BUDGETS[budget])},
        "hours": _hours([scored[arm.name] for arm in distinct]),
        "runs": sum(len(scored[arm.name]) for arm in distinct),
        "whole_runs": sum(len(_whole(scored[arm.name])) for arm in distinct),
        "made_with": run_record({}),
        "code_of_runs": _code([row for arm in distinct for row in scored[arm.name]]),
        "metrics": dict(METRICS),
        "comparisons": found,
    }


def _comparison(item: Comparison, scored: Mapping[str, Entries]) -> dict[str, Any]:
    spreads = {arm: _spreads(rows) for arm, rows in scored.items()}
    orders = {
        metric: ranking({arm: found[metric] for arm, found in spreads.items() if metric in found})
        for metric in item.metrics
    }
    return {
        "question": item.question,
        "papers": {"direction": item.direction, "source": item.source},
        "deviates": item.deviates,
        "here": orders,
        "hours": _hours(list(scored.values())),
        "arms": {
            arm: {
                "seeds": [row["seed"] for row in rows],
                "parameters": rows[0]["parameters"],
                "trained": rows[0]["trained"],
                "minutes": _minutes(rows),
                "scores": {name: dataclasses.asdict(found) for name, found in spreads[arm].items()},
            }
            for arm, rows in scored.items()
        },
    }


def _code(rows: Entries) -> dict[str, int]:
    """On which commit how many runs began, most of them first."""
    return dict(Counter(_state(row["code"]) for row in rows).most_common())


def _state(code: Mapping[str, Any] | None) -> str:
    """A commit, and whether files were other than in it."""
    if code is None:
        return "unknown"
    return f"{code['commit'][:12]}{' (changed)' if code['changed'] else ''}"


def _hours(scored: Sequence[Entries]) -> float:
    """What training and scoring took, of the runs that nothing stopped."""
    whole = [row for rows in scored for row in _whole(rows)]
    return round(sum(row["train_seconds"] + row["score_seconds"] for row in whole) / 3600, 3)


def _minutes(rows: Entries) -> float | None:
    """What training took, on average; None if every seed was stopped and gone on with."""
    seconds = [row["train_seconds"] for row in _whole(rows)]
    return round(sum(seconds) / len(seconds) / 60, 2) if seconds else None


def _whole(rows: Entries) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["train_seconds"] is not None]


def _spreads(rows: Entries) -> dict[str, Spread]:
    """Every score over the seeds that have it."""
    values = {
        name: [row["scores"][name] for row in rows if name in row["scores"]] for name in METRICS
    }
    return {name: Spread.of(found) for name, found in values.items() if found}


def render(report: Mapping[str, Any]) -> str:
    """Write a report of `build_report` as Markdown: a summary, then a table a comparison."""
    comparisons = report["comparisons"]
    lines = ["# Ablations at small scale", "", *_made(report), ""]
    lines += ["| comparison | metric | papers | here |", "|---|---|---|---|"]
    for name, item in comparisons.items():
        metric = next(iter(item["here"]))
        here = item["here"][metric] or "-"
        lines.append(f"| {name} | {metric} | {item['papers']['direction']} | {here} |")
    lines += ["", "`~`: the means differ by no more than the larger of the two sds."]
    for name, item in comparisons.items():
        lines += ["", f"## {name}", "", item["question"], "", *_table(item), ""]
        lines.append(f"- papers: {item['papers']['direction']} ({item['papers']['source']})")
        lines += [f"- here, by {metric}: {order or '-'}" for metric, order in item["here"].items()]
        lines.append(f"- not as in the papers: {item['deviates']}")
    lines += ["", "## Metrics", ""]
    lines += [f"- `{name}`: {words}, percent" for name, words in report["metrics"].items()]
    return "\n".join(lines) + "\n"


def _made(report: Mapping[str, Any]) -> list[str]:
    """Say how the numbers came about."""
    made, budget = report["made_with"], report["budget"]
    versions = ", ".join(f"{name} {value}" for name, value in made["libraries"].items() if value)
    code = ", ".join(f"{state}: {count}" for state, count in report["code_of_runs"].items())
    arms = [arm for item in report["comparisons"].values() for arm in item["arms"].values()]
    seeds = sorted({seed for arm in arms for seed in arm["seeds"]})
    fewest, most = budget["num_objects"]
    return [
        f"- command: `{report['command']}`",
        f"- budget `{budget['name']}`: {budget['language']:,} pictures an arm in steps of "
        f"{budget['language_batch']}, {budget['perception']:,} for a shared tower; scored on "
        f"{budget['scenes']} validation scenes",
        f"- first tower and proposer: {budget['sight'] or 'a shared run'}; kinds of objects in "
        f"scenes: {budget['kinds'] or 'all'}, {fewest} to {most} objects in one",
        f"- seeds: {', '.join(map(str, seeds)) or '-'}; mean +- sd over them (n - 1)",
        f"- hours, training and scoring, without the shared runs: {report['hours']}, of the "
        f"{report['whole_runs']} of {report['runs']} runs that nothing stopped; minutes are theirs",
        f"- commits that runs began on, and how many: {code or '-'}; it was written by "
        f"{_state(made['code'])}",
        f"- Python {made['python']}, {versions}; {made['platform']}",
    ]


def _table(item: Mapping[str, Any]) -> list[str]:
    """One row an arm."""
    metrics = list(item["here"])
    columns = ["arm", *metrics, "parameters", "trained", "minutes", "seeds"]
    lines = [f"| {' | '.join(columns)} |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    for arm, found in item["arms"].items():
        cells = [
            str(Spread(**found["scores"][name])) if name in found["scores"] else "-"
            for name in metrics
        ]
        counts = [f"{found[name]:,}" for name in ("parameters", "trained")]
        minutes = "-" if found["minutes"] is None else f"{found['minutes']:.1f}"
        cells += [*counts, minutes, str(len(found["seeds"]))]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return lines
