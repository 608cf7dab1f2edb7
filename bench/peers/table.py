"""From what was measured to the rows of the report, and its Markdown and picture."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from peers.calls import Call
from peers.limit import ModelSize, seconds_of, work_of
from peers.systems import REFERENCE, SYSTEMS
from peers.worker import Round

Row = dict[str, object]
TIE = 1e-4  # nats; candidates this close are equally good


def row_of(name: str, setting: str, rounds: Sequence[Round], quality: Round,
           calls: Sequence[Call], quality_calls: Sequence[Call]) -> Row:
    """What one system did, without comparison to others. Times are medians over the rounds."""
    per_call = np.median([one.call_seconds for one in rounds], axis=0) * 1e3
    p50, p95, p99 = (float(value) for value in np.percentile(per_call, (50, 95, 99)))
    totals = [sum(one.call_seconds) for one in rounds]
    return {"system": name, "status": "measured", "setting": setting,
            "question": SYSTEMS[name].question if name in SYSTEMS else "",
            "seconds": statistics.median(totals), "seconds_each": totals,
            "call_milliseconds": {"p50": p50, "p95": p95, "p99": p99, "each": per_call.tolist()},
            "tail": tail(per_call.tolist(), [step.tokens for step in work_of(calls)]),
            "tokens_computed": rounds[0].tokens_computed, "forwards": rounds[0].forwards,
            "nats_per_token": _nats_per_token(quality, quality_calls),
            "requests_nats_per_token": _nats_per_token(rounds[0], calls),
            "weight_bytes": quality.weight_bytes,
            "peak_memory_bytes": max(one.peak_bytes for one in (*rounds, quality))}


def tail(milliseconds: Sequence[float], tokens: Sequence[int]) -> float | None:
    """How many times what its own new tokens cost at the median speed the p99 call takes.

    milliseconds, tokens: of each call. None where no call has new tokens.
    """
    costs = [time / count for time, count in zip(milliseconds, tokens, strict=True) if count > 0]
    slowest = int(np.argsort(milliseconds)[math.ceil(0.99 * len(milliseconds)) - 1])
    if not costs or tokens[slowest] == 0:
        return None
    return milliseconds[slowest] / tokens[slowest] / statistics.median(costs)


def compare(calls: Sequence[Call], scores: Sequence[Sequence[float]],
            reference: Sequence[Sequence[float]]) -> Row:
    """How far scores are from those of the reference, and how often the same candidate is best."""
    differences, per_token, agree, contests = [0.0], [0.0], 0, 0
    for call, ours, theirs in zip(calls, scores, reference, strict=True):
        for a, b, tokens in zip(ours, theirs, call.scored_tokens(), strict=True):
            if a == -math.inf:  # not asked for
                continue
            differences.append(abs(a - b))
            per_token.append(abs(a - b) / max(tokens, 1))
        begin, base = 0, np.array(call.request.get("base_scores", [0.0] * len(theirs)))
        for size in call.group_sizes:
            own, group = (np.array(scores[begin:begin + size]) + base[begin:begin + size]
                          for scores in (ours, theirs))
            if size > 1:
                contests += 1
                agree += int(group[int(np.argmax(own))] >= group.max() - TIE)
            begin += size
    return {"largest_difference": max(differences),
            "largest_difference_per_token": max(per_token),
            "mean_difference": sum(differences) / max(len(differences) - 1, 1),
            "rank1_agreement": agree / contests if contests else None}


def add_limit(row: Row, calls: Sequence[Call], size: ModelSize,
              machine: Mapping[str, object]) -> None:
    """The least time for the same requests at the row's type, and the fraction of it reached."""
    system = SYSTEMS[str(row["system"])]
    if system.peak not in machine or "bandwidth" not in machine:
        row["limit_seconds"] = row["fraction_of_limit"] = None
        return
    bytes_per_weight = system.bytes_per_weight
    if row.get("weight_bytes"):  # held in fewer bytes where that loses nothing
        held = float(row["weight_bytes"]) / (size.body + size.head)
        bytes_per_weight = min(bytes_per_weight, held)
    # Where a type has no instructions, its products may be float32's.
    peak = max(float(machine[system.peak]), float(machine.get("float32", 0)))
    row["limit_seconds"] = seconds_of(
        work_of(calls), size, bytes_per_weight=bytes_per_weight,
        bandwidth=float(machine["bandwidth"]), peak=peak)
    row["fraction_of_limit"] = row["limit_seconds"] / float(row["seconds"])


def markdown(report: Mapping[str, object]) -> str:
    """The report as text: a table, and what it was measured with."""
    machine, limit = report["machine"], report["limit"]
    requests = report["requests"]
    capped = "" if machine["capped_at"] == "best" else f", none above {machine['capped_at']} used"
    lines = [
        f"# {requests['calls']} calls, {requests['candidates']} candidates of {requests['file']}",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads used; "
        f"instruction sets {', '.join(machine['instruction_sets'])}{capped}; "
        f"load average at the start {machine['load_average']}. "
        f"Median of {report['rounds']} rounds, systems in turn; one utterance at a time, "
        "caches empty at the start of every utterance.",
        "", "| system | seconds | x faster than " + REFERENCE + " | p50 / p95 / p99 ms | tail | "
        "tokens computed | forwards | largest difference, nats (per token) | rank-1 | nats/token | "
        "memory MB | limit s | of limit |", "|" + "---|" * 13]
    reference = next((row.get("seconds") for row in report["rows"]
                      if row["system"] == REFERENCE), None)
    lines += [_line(row, reference) for row in report["rows"]]
    speeds = ", ".join(f"{name} {_spread(limit, name)} G{unit} ({limit['by'][name]})"
                       for name, unit in (("bandwidth", "B/s"), ("float32", "flop/s"),
                                          ("bfloat16", "flop/s"), ("int8", "op/s"))
                       if name in limit)
    lines += ["", f"The limit: {limit['tokens']} tokens in {limit['forwards']} forward passes; "
              f"measured in this run: {speeds}.",
              "", "Settings: " + "; ".join(f"{row['system']}: {row['setting']}"
                                           for row in report["rows"] if row.get("setting")) + ".",
              "", "Versions: " + ", ".join(f"{name} {version}" for name, version
                                           in report["versions"].items()) + ".",
              "", f"Command: `{report['command']}`", ""]
    return "\n".join(lines)


def _spread(limit: Mapping[str, object], name: str) -> str:
    """The reading that counts, in 10^9 a second; where the rounds' jump, how they spread."""
    chosen = float(limit[name]) / 1e9
    readings = [float(reading) / 1e9 for reading, _ in limit.get("readings", {}).get(name, ())]
    if not readings or min(readings) > 0.95 * max(readings):
        return f"{chosen:.0f}"
    return f"{chosen:.0f} of {min(readings):.0f} to {max(readings):.0f}"


def picture(report: Mapping[str, object], path: Path) -> None:
    """Seconds of every system that ran, on a logarithmic axis, with the limits of each type."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    rows = sorted((row for row in report["rows"] if row["status"] == "measured"),
                  key=lambda row: -float(row["seconds"]))
    if not rows:
        return
    figure, axes = pyplot.subplots(figsize=(9, 0.45 * len(rows) + 1.5))
    names = [str(row["system"]) for row in rows]
    seconds = [float(row["seconds"]) for row in rows]
    colours = ["tab:blue" if name.startswith("lmfusion") else "tab:gray" for name in names]
    bars = axes.barh(names, seconds, color=colours)
    axes.bar_label(bars, [f"{value:.3g} s" for value in seconds], padding=3)
    limits = [(index, float(row["limit_seconds"])) for index, row in enumerate(rows)
              if row.get("limit_seconds")]
    axes.scatter([value for _, value in limits], [index for index, _ in limits], marker="|",
                 s=200, color="tab:red", zorder=3, label="limit of the machine for this type")
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel(f"seconds for {report['requests']['calls']} calls, "
                    f"{report['machine']['threads']} threads, {report['machine']['cpu']}")
    axes.legend(loc="upper right")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _nats_per_token(one: Round, calls: Sequence[Call]) -> float:
    scored = [(score, tokens) for scores, call in zip(one.scores, calls)
              for score, tokens in zip(scores, call.scored_tokens()) if score != -math.inf]
    return -sum(score for score, _ in scored) / max(sum(tokens for _, tokens in scored), 1)


def _line(row: Row, reference: object) -> str:
    if row["status"] != "measured":
        why = " ".join(str(row["status"]).split()).replace("|", "/")
        return f"| {row['system']} | {why} |" + " |" * 11
    milliseconds = row["call_milliseconds"]
    only = f" (answers only: {row['question']})" if row.get("question") else ""
    cells = [
        f"{row['system']}{only}", f"{row['seconds']:.2f}",
        f"{float(reference) / row['seconds']:.2f}" if reference else "",
        " / ".join(f"{milliseconds[name]:.1f}" for name in ("p50", "p95", "p99")),
        f"{row['tail']:.2f}" if row.get("tail") is not None else "",
        row["tokens_computed"], row["forwards"],
        f"{row['largest_difference']:.1e} ({row['largest_difference_per_token']:.1e})"
        if "largest_difference" in row else "",
        f"{100 * row['rank1_agreement']:.1f} %" if row.get("rank1_agreement") is not None else "",
        f"{row['nats_per_token']:.3f}", f"{row['peak_memory_bytes'] / 1e6:.0f}",
        f"{row['limit_seconds']:.2f}" if row.get("limit_seconds") else "",
        f"{row['fraction_of_limit']:.2f}" if row.get("fraction_of_limit") else ""]
    return "| " + " | ".join(map(str, cells)) + " |"
