"""An audit as text and as JSON."""

from __future__ import annotations

from typing import Any

from hdnn_dist.analysis.audit.audit import NO_SUM, Audit
from hdnn_dist.analysis.audit.pairs import Pair, Seen, all_pairs
from hdnn_dist.support.markdown import Row, padded_table

MOST_LISTED = 100  # rows of the edges; JSON has all
# What no look from outside can see, whatever is found.
NEVER_SEEN = (
    "memory of GPUs, RDMA, files on disk and pipes; what processes hold that a rank has started; reading another "
    "process's memory (process_vm_readv), which leaves no trace"
)
SUM = "Layers and readout, each run alone, add up to the whole pass, edge by edge."
MPI_CHANGED = (
    "MPI's own shared memory is turned off for the audit, since it cannot be told which pairs use it; MPI connects all "
    "ranks at its start, so its connections are judged by the bytes that they carry in the steps"
)


def as_text(audit: Audit) -> str:
    """Tables in Markdown, padded, and lines."""
    found = audit.accounts
    return "\n".join(
        [
            f"{found.graph.name}, {_ranks(audit)}, {audit.about}, {found.number} steps on one batch",
            "\nThe ledger, one step:\n",
            padded_table(found.totals()),
            _sum_line(audit),
            "\nThe ledger, by edge and direction, each part once:\n",
            *_edges(audit),
            f"\nThe operating system, pairs of ranks, {found.number} steps:\n",
            padded_table(_pairs(audit)),
            *_beside(audit),
            *_notes(audit),
            _verdict(audit),
        ]
    )


def as_json(audit: Audit) -> dict[str, Any]:
    """The same, all of it."""
    found, seen = audit.accounts, audit.observed
    return {
        "graph": found.graph.name,
        "ranks": audit.ranks,
        "replicas": len(audit.accounts.each),
        "transport": audit.plan.transport,
        "links": audit.plan.links,
        "steps": found.number,
        "owner": audit.owner,
        "ledger": {"parts": found.totals(), "edges": found.edges(), "add_up": found.add_up, "wire": found.wire},
        "between_replicas": found.copied,
        "pairs": [{**row, "segments": list(seen.pairs.get(pair, Seen()).segments)} for pair, row in _rows(audit)],
        "meeting": [{"ranks": pair, "TCP": at.tcp, "bytes": at.carried} for pair, at in seen.meeting.items()],
        "beside": [{"rank": rank, "with": whom, "connections": n} for (rank, whom), n in sorted(seen.beside.items())],
        "not_judged": [*seen.not_judged, NEVER_SEEN],
        "off_graph": audit.failures,
    }


def _ranks(audit: Audit) -> str:
    replicas = len(audit.accounts.each)
    return f"{audit.ranks} ranks{f' in {replicas} replicas' if replicas > 1 else ''}"


def _sum_line(audit: Audit) -> str:
    return SUM if audit.accounts.add_up else NO_SUM


def _edges(audit: Audit) -> list[str]:
    rows = audit.accounts.edges()
    if not rows:
        return ["no message"]
    more = [f"... and {len(rows) - MOST_LISTED} more: --json has all"] * (len(rows) > MOST_LISTED)
    return [padded_table(rows[:MOST_LISTED]), *more]


def _pairs(audit: Audit) -> list[Row]:
    rows = [row for pair, row in _rows(audit) if not _idle(audit, pair)]
    return rows or [{"ranks": "one alone"}]


def _rows(audit: Audit) -> list[tuple[Pair, Row]]:
    """Of every pair that is on the graph or is seen to have anything, with the counts of all steps."""
    seen = audit.observed.pairs
    shown = [pair for pair in all_pairs(audit.ranks) if pair in audit.edges or pair in audit.copies or pair in seen]
    return [(pair, _row(audit, pair, seen.get(pair, Seen()))) for pair in shown]


def _row(audit: Audit, pair: Pair, seen: Seen) -> Row:
    messages, bytes_ = audit.accounts.between(audit.owner, pair)
    return {
        "ranks": f"{pair[0]} - {pair[1]}",
        "on_the_graph": "yes" if pair in audit.edges else "copies" if pair in audit.copies else "no",
        "edges": audit.edges.get(pair, 0),
        "link": audit.links.get(pair),
        "ledger_messages": messages,
        "ledger_bytes": bytes_,
        "TCP": seen.tcp,
        "bytes_on_TCP": seen.carried,
        "unix_sockets": seen.unix,
        "shared_segments": len(seen.segments),
    }


def _beside(audit: Audit) -> list[str]:
    """Lines on what is no edge: connections that MPI makes at its start, where ranks meet, and other processes."""
    idle, seen = [pair for pair, _ in _rows(audit) if _idle(audit, pair)], audit.observed
    met = sum(at.tcp for at in seen.meeting.values())
    carried = sum(at.carried or 0 for at in seen.meeting.values())
    lines = [f"where torchrun's ranks meet, {met} TCP, {carried} bytes in the steps"] * bool(met)
    lines += [f"pairs off the graph that MPI connects at its start, {len(idle)}, 0 bytes in the steps"] * bool(idle)
    lines += [f"rank {rank} with {whom}, {number} connections" for (rank, whom), number in sorted(seen.beside.items())]
    return ["", *(f"no edge: {line}" for line in lines)]


def _idle(audit: Audit, pair: Pair) -> bool:
    """Whether a pair off the graph has nothing but connections over which nothing comes, as MPI makes them."""
    seen = audit.observed.pairs.get(pair, Seen())
    silent = seen.carried == 0 and not seen.unix and not seen.segments
    near = pair in audit.edges or pair in audit.copies
    return audit.plan.transport == "mpi" and not near and silent


def _notes(audit: Audit) -> list[str]:
    messages, sent = audit.accounts.wire
    seen = audit.observed.pairs
    arrived = sum(at.carried or 0 for pair, at in seen.items() if pair not in audit.copies)
    more = f", {(arrived - sent) / messages:.3g} a message more" if messages and arrived > sent else ""
    lines = [
        f"The ledger has seen {messages:,} messages of {sent:,} bytes leave the ranks (a block that several agents of "
        f"a rank read goes once). {arrived:,} bytes came by TCP{more}."
    ]
    if audit.copies:
        summed = sum(seen[pair].carried or 0 for pair in audit.copies if pair in seen)
        lines.append(
            f"Ranks gave {audit.accounts.copied:,} bytes into sums with their copies in other replicas; between these "
            f"{summed:,} bytes came by TCP."
        )
    lines += [f"note: {MPI_CHANGED}"] * (audit.plan.transport == "mpi")
    return [*lines, *(f"not judged: {line}" for line in (*audit.observed.not_judged, NEVER_SEEN))]


def _verdict(audit: Audit) -> str:
    return "\n".join(audit.failures) or "nothing is off the graph"
