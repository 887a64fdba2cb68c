"""What a finished job found, as plain values and as a table. What is missing is missing, with its reason."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from .schemas import pb


def label_of(spec: Message) -> str:
    """scheme[:key=value]*"""
    pairs = [f"{parameter.key}={parameter.value}" for parameter in spec.parameters]
    return ":".join([spec.scheme, *sorted([*pairs, *([f"compute={spec.compute}"] if spec.compute else [])])])


def _figures(message: Message, names: tuple[str, ...]) -> dict[str, Any]:
    """Those fields that are there."""
    return {name: getattr(message, name) for name in names if message.HasField(name)}


def _estimate(score: Message, name: str) -> dict[str, Any]:
    if not score.HasField(name):
        return {"missing": "not computed"}
    estimate = getattr(score, name)
    names = ("value", "standard_error", "interval_low", "interval_high", "n", "missing")
    return _figures(estimate, names)


def _distribution(score: Message, name: str) -> dict[str, Any]:
    if not score.HasField(name):
        return {"missing": "not computed"}
    names = (
        "mean",
        "standard_error",
        "interval_low",
        "interval_high",
        "median",
        "p90",
        "p95",
        "p99",
        "min",
        "max",
        "n",
    )
    return _figures(getattr(score, name), names)


def _result(result: Message, role: str) -> dict[str, Any]:
    score = result.score
    found = {
        "label": result.variant.label,
        "role": role,
        "variant_id": result.variant.variant_id.hex(),
        "numerics_id": score.numerics_id or None,
        "perplexity": _estimate(score, "perplexity"),
        "chunks_run": result.chunks_run,
        "chunks_cached": result.chunks_cached,
        "tokens_run": result.tokens_run,
        "compute_seconds": result.compute_us / 1e6,
        "artifact_bytes": result.artifact.artifact_bytes if result.HasField("artifact") else None,
    }
    if role == "reference":
        return found
    found.update(
        perplexity_increase_percent=_estimate(score, "perplexity_increase_percent"),
        kl_nats=_distribution(score, "kl_nats"),
        same_top1_percent=_estimate(score, "same_top1_percent"),
        delta_p_rms_percent=_estimate(score, "delta_p_rms_percent"),
        verdict=pb.name_of("Verdict", result.verdict),
        criteria=[
            {
                **_figures(criterion, ("name", "threshold", "value", "interval_low", "interval_high", "missing")),
                "verdict": pb.name_of("Verdict", criterion.verdict),
            }
            for criterion in result.criteria
        ],
    )
    return found


def report_of(job: Message) -> dict[str, Any]:
    """Figures of a Job message: the reference first, then the variants in order."""
    failure = {"failure": job.failure} if job.failure else {}
    return {
        "job_id": job.job_id.hex(),
        "state": pb.name_of("JobState", job.state),
        "verdict": pb.name_of("Verdict", job.verdict) if job.HasField("verdict") else None,
        "model": job.request.model_dir,
        "corpus": job.request.corpus_name,
        "protocol": job.request.protocol,
        "chunks": job.chunks,
        "scored_positions": job.scored_positions,
        "results": [_result(result, "variant" if i else "reference") for i, result in enumerate(job.results)],
        **failure,
    }


def _cell(figures: dict[str, Any], key: str, digits: int) -> str:
    return f"{figures[key]:.{digits}g}" if key in figures else "-"


def table_of(report: dict[str, Any]) -> str:
    """A table for a terminal; reasons for what is missing follow it."""
    rows = [("variant", "perplexity", "dPPL %", "KL nats", "same top %", "verdict", "numerics")]
    reasons = []
    for result in report["results"]:
        reference = result["role"] == "reference"
        increase, kl, same = (
            result.get(key, {}) for key in ("perplexity_increase_percent", "kl_nats", "same_top1_percent")
        )
        rows.append(
            (
                result["label"],
                _cell(result["perplexity"], "value", 7),
                _cell(increase, "value", 4),
                _cell(kl, "mean", 4),
                _cell(same, "value", 5),
                "reference" if reference else result["verdict"],
                result["numerics_id"] or "-",
            )
        )
        reasons += [
            f"{result['label']}: {key} is missing: {value['missing']}"
            for key, value in result.items()
            if isinstance(value, dict) and "missing" in value
        ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join(lines + reasons)
