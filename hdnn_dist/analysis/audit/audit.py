"""``hdnn-dist audit``: start the ranks of a config, look at them from outside, and lay their ledger beside it."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any

from hdnn_dist.analysis.audit.ledger import Accounts, accounts
from hdnn_dist.analysis.audit.meeting import STEPPED, TOLD, WARM, Meeting
from hdnn_dist.analysis.audit.pairs import Judge, Look, Observed, Pair, copies_of, look, neighbours
from hdnn_dist.exchange.agreement import RankError
from hdnn_dist.exchange.placement import owners
from hdnn_dist.exchange.replicas import refuse_rest
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.support.arguments import one_line, unknown
from hdnn_dist.support.ranks import GRACE, command, started
from hdnn_dist.support.sockets import ancestors
from hdnn_dist.training.config import Config
from hdnn_dist.training.config_files import dump_config

MOST_RANKS = 4  # that are started unless a number is given
TRANSPORTS, LINKS = ("c10d", "mpi"), ("auto", "network")
PLAN, CONFIG, ERRORS = "plan.json", "config.toml", "errors.txt"
SAID = "hdnn-dist: "
NO_SUM = "NO SUM: the layers and the readout, each run alone, do not add up to a whole pass"
# So that MPI talks by sockets alone: what its ranks share in memory cannot be told apart by pairs.
SOCKETS_ALONE = {
    "MPIR_CVAR_NOLOCAL": "1",
    "UCX_TLS": "tcp,self",
    "UCX_KEEPALIVE_INTERVAL": "inf",
    "FI_PROVIDER": "tcp",
    "OMPI_MCA_pml": "ob1",
    "OMPI_MCA_btl": "self,tcp",
}


@dataclass(frozen=True)
class Plan:
    """What every rank of an audit is told, beside the config."""

    transport: str
    links: str
    steps: int

    @staticmethod
    def read(folder: Path) -> Plan:
        """The plan that the auditor has written there."""
        return Plan(**json.loads((folder / PLAN).read_text()))

    def check(self) -> None:
        """``ValueError`` for what cannot be, and where there is no /proc to look into."""
        if not sys.platform.startswith("linux"):
            raise ValueError(f"audit reads /proc, which Linux has and {sys.platform} has not: run it on Linux")
        if self.transport not in TRANSPORTS:
            raise unknown("transport", self.transport, TRANSPORTS)
        if self.links not in LINKS:
            raise unknown("links", self.links, LINKS)


@dataclass(frozen=True)
class Audit:
    """``accounts``: what the ledger says; ``observed``: what is seen; ``links``, ``edges``: of each pair of ranks.

    ``owner``: of each agent, the rank in its replica; ``copies``: the pairs of ranks with copies of the same agents.
    """

    plan: Plan
    accounts: Accounts
    observed: Observed
    owner: list[int]
    links: dict[Pair, str]
    edges: dict[Pair, int]
    copies: list[Pair]
    about: str

    @property
    def ranks(self) -> int:
        """Of all replicas."""
        return self.accounts.each.shape[0] * len(set(self.owner))

    @property
    def failures(self) -> list[str]:
        """A line for each thing that is off the graph or does not add up."""
        asked = self.accounts.off_graph_messages
        found = [f"OFF THE GRAPH: {line}" for line in self.observed.off_graph]
        found += [f"OFF THE GRAPH: {asked} messages were asked for, and refused"] * bool(asked)
        return found + [NO_SUM] * (not self.accounts.add_up)


def ranks_for(config: Config, graph: CommunicationGraph) -> int:
    """How many ranks are started unless a number is given: those that the placement names, or a few."""
    given, replicas = config.placement, config.replicas
    if isinstance(given, str):
        return replicas * min(graph.agents, max(MOST_RANKS // replicas, 1))
    return replicas * (1 + max(given.values() if isinstance(given, dict) else given, default=0))


def audit(config: Config, graph: CommunicationGraph, ranks: int, plan: Plan) -> Audit:
    """Run the steps of the plan on so many ranks.

    ``ValueError`` for what the ranks refuse, ``RankError`` where one fails, ``TimeoutError`` where one does not come.
    """
    plan.check()
    refuse_rest(config.replicas, ranks)
    owners(graph, ranks // config.replicas, config.placement)  # refused before anything is started
    with tempfile.TemporaryDirectory(prefix="hdnn-dist-audit-") as name:
        folder = Path(name)
        (folder / CONFIG).write_text(dump_config(config), encoding="utf-8")
        (folder / PLAN).write_text(json.dumps(asdict(plan)))
        line = command(plan.transport, ranks, ["hdnn_dist", "audit-rank", name], folder)
        environment = SOCKETS_ALONE if plan.transport == "mpi" else {}
        with started(line, environment, folder / ERRORS) as launcher:
            return _Auditor(Meeting(folder, config.timeout), launcher, ranks, plan).watch(graph)


class _Auditor:
    def __init__(self, meeting: Meeting, launcher: Popen[bytes], ranks: int, plan: Plan) -> None:
        self._meeting, self._launcher, self._ranks, self._plan = meeting, launcher, ranks, plan

    def watch(self, graph: CommunicationGraph) -> Audit:
        """Both looks are taken while all ranks wait, with nothing on its way."""
        about = self._heard(WARM)
        processes = [own["process"] for own in about]
        warm = self._look(WARM, processes)
        stepped = self._heard(STEPPED)
        after = self._look(STEPPED, processes)
        told = self._heard(TOLD)
        self._meeting.go_on(TOLD)
        with suppress(TimeoutExpired):  # all is told; the end of the block ends who stays
            self._launcher.wait(GRACE)
        owner, replicas = about[0]["owner"], about[0]["replicas"]
        edges, copies = neighbours(owner, graph.edges.tolist(), replicas), copies_of(owner, replicas)
        judge = Judge(processes, [*edges, *copies], self._plan.transport == "mpi", about[0]["meeting_port"])
        return Audit(
            self._plan,
            accounts(graph, self._plan.steps, stepped, told, replicas),
            judge.observed(warm, after),
            owner,
            _links(about),
            dict(edges),
            copies,
            f"{about[0]['transport']}, kernel {about[0]['kernel']}",
        )

    def _heard(self, stage: str) -> list[Any]:
        return self._meeting.heard(stage, self._ranks, self._refuse_end)

    def _look(self, stage: str, processes: Sequence[int]) -> Look:
        launchers = {other for process in processes for other in ancestors(process, os.getpid())}
        seen = look(processes, sorted(launchers))
        self._meeting.go_on(stage)
        return seen

    def _refuse_end(self) -> None:
        """Raise what the first rank has said, where the launcher has ended before its ranks were heard."""
        if self._launcher.poll() is None:
            return
        lines = (self._meeting.folder / ERRORS).read_text(errors="replace").splitlines()
        said = [line.partition(SAID)[2] for line in lines if SAID in line]
        wrong = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
        if wrong:
            raise ValueError(wrong[0])
        failed = [line.removeprefix("failed: ") for line in said if line.startswith("failed: ")]
        raise RankError([*failed, f"the ranks have ended: {_last_words(lines)}"][0])


def _last_words(lines: Sequence[str]) -> str:
    """Of a launcher, whose ranks have said nothing: the line that names a signal, or the last one."""
    named = [line for line in lines if re.search(r"signal \d+", line, re.IGNORECASE)]
    return one_line([*named, *lines[-1:], "nothing was said"][0])


def _links(about: Sequence[Any]) -> dict[Pair, str]:
    """Of each pair, by what its lower rank says."""
    each = [(rank, int(peer), link) for rank, own in enumerate(about) for peer, link in own["links"].items()]
    return {(rank, peer): link for rank, peer, link in each if rank < peer}
