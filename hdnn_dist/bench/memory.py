"""``bench memory``: peak memory of a training step beyond parameters and their gradient, each in a fresh process."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from hdnn_dist.bench import baseline
from hdnn_dist.bench.cases import MEMORY, STORED, Case, Options
from hdnn_dist.bench.probe import DENSE, Peak, Probe, measure
from hdnn_dist.bench.report import Report, Row, Tell
from hdnn_dist.kernels.block_tables import TILE
from hdnn_dist.propagation.architectures import architecture

LARGEST_BYTES = 2**30
STATES_OF_A_DENSE_LAYER = 3  # autograd keeps, for each half: what enters, s, and a s
STORE_EVERY = (1, 4, 16, 64)


def memory(options: Options, tell: Tell) -> Report:
    """H2 from shallow to deep; its dense baseline, which stores all; H1-J1 that stores every k-th state.

    The last against the formula of the compiled kernel: ceil(N / k) states, and k of one tile of the batch.
    """
    every = STORE_EVERY[:2] if options.quick else STORE_EVERY
    rebuilt = [Probe(case, "H2", 1, options.threads) for case in options.cases(MEMORY)]
    stored = [Probe(case, "H1-J1", k, options.threads) for case in options.cases(STORED) for k in every]
    dense = [
        Probe(case, DENSE, 1, options.threads) for case in options.cases(MEMORY) if dense_bytes(case) <= LARGEST_BYTES
    ]
    rows = [row for probes in (rebuilt, dense, stored) for row in _against_first(probes, tell)]
    return Report(rows, left_out(options.cases(MEMORY)))


def _against_first(probes: list[Probe], tell: Tell) -> list[Row]:
    peaks = [_told(probe, tell) for probe in probes]
    return [_row(probe, peak, peaks[0]) for probe, peak in zip(probes, peaks, strict=True)]


def _told(probe: Probe, tell: Tell) -> Peak:
    tell(f"memory {probe.case} of {probe.architecture}, store_every={probe.store_every}")
    return measure(probe)


def _row(probe: Probe, peak: Peak, first: Peak) -> Row:
    """``formula_megabytes``: of the states to keep; what is measured beyond them are buffers of a fixed size."""
    states = stored_states(probe)
    formula = None if states is None else states * state_bytes(probe.case) / 1e6
    peak_megabytes = peak.bytes / 1e6
    return {
        **probe.case.columns(probe.threads),
        "architecture": probe.architecture,
        "store_every": probe.store_every if states else None,
        "peak_megabytes": peak_megabytes,
        "ratio": peak.bytes / first.bytes,
        "stored_states": states,
        "formula_megabytes": formula,
        "beyond_formula_megabytes": None if formula is None else peak_megabytes - formula,
        "kernel": peak.kernel,
    }


def stored_states(probe: Probe) -> float | None:
    """States that the backward pass keeps, of the architectures that do not rebuild them; the formula is of these."""
    if probe.architecture == DENSE or not architecture(probe.architecture).simultaneous:
        return None
    return ceil(probe.case.layers / probe.store_every) + probe.store_every * min(1.0, TILE / probe.case.batch)


def dense_bytes(case: Case) -> int:
    """About what the dense baseline keeps: states and weights, masked and not."""
    return STATES_OF_A_DENSE_LAYER * case.layers * state_bytes(case) + 2 * baseline.dense_bytes(case)


def left_out(cases: Sequence[Case]) -> list[str]:
    """A line for every case whose dense baseline is not measured."""
    return [
        f"no dense baseline for {case}: it would take about {dense_bytes(case) / 2**20:.0f} MiB, "
        f"more than the limit of {LARGEST_BYTES / 2**20:.0f}"
        for case in cases
        if dense_bytes(case) > LARGEST_BYTES
    ]


def state_bytes(case: Case) -> int:
    """Of one state in float32."""
    return case.agents * case.features * case.batch * 4
