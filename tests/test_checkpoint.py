"""Checkpoints: what was written is read back bit for bit, on any number of ranks, and nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from battery import ALONE, UNEVEN
from safetensors.torch import load_file, save_file

from hdnn_dist import HDNN, CommunicationGraph, Readout, place
from hdnn_dist.runs.checkpoint import load_statistics, load_weights, remove_weights, save_weights
from hdnn_dist.runs.index import CheckpointIndex, read_index, step_folder, write_index

GRAPH = CommunicationGraph.erdos_renyi(9, 0.4, seed=2)


def parts(seed: int, architecture: str = "H2", layers: int = 3, **options: Any) -> tuple[HDNN, Readout]:
    agents = place(GRAPH, ALONE)
    net = HDNN(agents, UNEVEN, layers, architecture=architecture, seed=seed, **options)
    return net, Readout(agents, net, classes=3, at=(2, 6, 7), root=6)


@pytest.mark.parametrize("architecture", ["H2", "H1-J2", "MS1", "MS2", "MS3", "MLP"])
def test_what_was_written_is_read_back(tmp_path: Path, architecture: str) -> None:
    """Bit for bit, into a network that started from another seed; uneven blocks mix the order of the agents."""
    written, head = parts(1, architecture)
    torch.nn.init.normal_(head.bias)
    save_weights(written, [head], tmp_path)
    read, other = parts(2, architecture)
    assert not torch.equal(read.weights, written.weights)
    load_weights(read, [other], tmp_path)
    for given, expected in zip([*read.parameters(), *other.parameters()], written.parameters(), strict=False):
        assert torch.equal(given, expected)
    assert torch.equal(other.weights, head.weights)
    assert torch.equal(other.bias, head.bias)


@pytest.mark.parametrize("architecture", ["H1", "H2"])
def test_a_trained_coupling_is_part_of_it(tmp_path: Path, architecture: str) -> None:
    written, head = parts(1, architecture, coupling="trained")
    torch.nn.init.normal_(written.coupling)
    save_weights(written, [head], tmp_path)
    read, other = parts(2, architecture, coupling="trained")
    load_weights(read, [other], tmp_path)
    assert torch.equal(read.coupling, written.coupling)


def test_a_graph_per_layer(tmp_path: Path) -> None:
    """Blocks of different shapes in every layer."""
    graphs = [CommunicationGraph.path(9), CommunicationGraph.star(9), CommunicationGraph.path(9)]
    whole = CommunicationGraph.from_edges({tuple(edge) for graph in graphs for edge in graph.edges.tolist()})
    nets = [HDNN(place(whole, ALONE), UNEVEN, 3, seed=seed, graphs=graphs) for seed in (1, 2)]
    heads = [Readout(net.agents, net) for net in nets]
    save_weights(nets[0], heads[:1], tmp_path)
    load_weights(nets[1], heads[1:], tmp_path)
    assert torch.equal(nets[0].weights, nets[1].weights)


def test_a_tensor_is_the_block_its_name_says(tmp_path: Path) -> None:
    """agent.3.K against the dense K: rows of agent 3, columns of what it reads."""
    net, head = parts(1)
    file = load_file(save_weights(net, [head], tmp_path))
    half = net.features // 2
    start = half.cumsum() - half
    Kp = net.dense().K[:, : half.sum(), : half.sum()]
    columns = [c for k in net.pattern.reads(3) for c in range(start[k], start[k] + half[k])]
    expected = Kp[:, start[3] : start[3] + half[3]][:, :, columns]
    assert torch.equal(file["agent.3.K"][:, 0], expected)


def test_numbers_are_converted(tmp_path: Path) -> None:
    """A run in float32 can be analysed in float64."""
    written, head = parts(1)
    save_weights(written, [head], tmp_path)
    read, other = parts(2, dtype=torch.float64)
    load_weights(read, [other], tmp_path)
    assert torch.equal(read.weights, written.weights.double())


def test_statistics_lie_beside_the_weights(tmp_path: Path) -> None:
    """By agent, and no part of what a network has to have."""
    net, head = parts(1)
    given = {2: {"mean": torch.tensor([1.0, 2.0]), "std": torch.tensor([3.0, 4.0])}, 0: {"mean": torch.zeros(1)}}
    save_weights(net, [head], tmp_path, given)
    found = load_statistics(tmp_path)
    assert {agent: sorted(own) for agent, own in found.items()} == {0: ["mean"], 2: ["mean", "std"]}
    assert torch.equal(found[2]["std"], given[2]["std"])
    load_weights(*(lambda net, head: (net, [head]))(*parts(2)), tmp_path)


def blank(step: int) -> CheckpointIndex:
    return CheckpointIndex(step, 0, step, 1, [0], {}, {}, {}, {}, [], {})


def test_the_weights_of_a_run_that_was_not_finished(tmp_path: Path) -> None:
    """The newest checkpoint that has an index; then those of the last epoch, once they are there."""
    nets = {step: parts(step) for step in (1, 2, 3, 4)}
    for step in (1, 2, 3):
        save_weights(nets[step][0], [nets[step][1]], step_folder(tmp_path, step))
    for step in (1, 2):
        write_index(step_folder(tmp_path, step), blank(step))
    read, head = parts(9)
    load_weights(read, [head], tmp_path)
    assert torch.equal(read.weights, nets[2][0].weights)
    save_weights(nets[4][0], [nets[4][1]], tmp_path)
    load_weights(read, [head], tmp_path)
    assert torch.equal(read.weights, nets[4][0].weights)


def test_a_flipped_byte_of_an_index(tmp_path: Path) -> None:
    path = write_index(tmp_path, blank(7))
    assert read_index(tmp_path) == blank(7)
    content = path.read_bytes()
    for at in range(0, len(content) - 2, 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(ValueError, match=r"index\.json (is damaged|cannot be read) \("):
            read_index(tmp_path)


class TestRefused:
    """One line, and the network is as it was."""

    @pytest.fixture
    def saved(self, tmp_path: Path) -> Path:
        net, head = parts(1)
        save_weights(net, [head], tmp_path)
        return tmp_path

    def refuse(self, folder: Path, match: str, **options: Any) -> None:
        net, head = parts(2, **options)
        before = net.weights.clone(), head.weights.clone()
        with pytest.raises(ValueError, match=match) as refused:
            load_weights(net, [head], folder)
        assert "\n" not in str(refused.value)
        assert torch.equal(net.weights, before[0])
        assert torch.equal(head.weights, before[1])

    def test_no_file(self, tmp_path: Path) -> None:
        self.refuse(tmp_path / "checkpoints", "holds no weights")

    def test_another_depth(self, saved: Path) -> None:
        self.refuse(saved, r"agent\.\d\.K in .* has shape \(3, 2, .*needs \(4, 2, ", layers=4)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"architecture": "MS2"}, "architecture H2, but this network has architecture MS2"),
            ({"architecture": "MS3"}, "architecture H2, but this network has architecture MS3"),  # of equal shapes
            ({"activation": "relu"}, "activation tanh, but this network has activation relu"),
            ({"step": 0.2}, r"step 0\.1, but this network has step 0\.2"),
        ],
        ids=str,
    )
    def test_another_network(self, saved: Path, options: dict[str, Any], words: str) -> None:
        self.refuse(saved, f"holds weights for {words}: load them into a network like", **options)

    @pytest.mark.parametrize("other", [{"architecture": "MS3"}, {"step": 0.2}, {"activation": "relu"}], ids=str)
    def test_the_state_of_another_network(self, other: dict[str, Any]) -> None:
        """Shapes fit, and torch alone would say that all keys match."""
        (net, head), (strange, _) = parts(1), parts(2, **other)
        with pytest.raises(ValueError, match="this state holds weights for"):
            strange.load_state_dict(net.state_dict())
        twin, other_head = parts(2)
        twin.load_state_dict(net.state_dict())
        other_head.load_state_dict(head.state_dict())
        assert torch.equal(twin.weights, net.weights)

    def test_a_coupling_that_was_not_trained(self, saved: Path) -> None:
        self.refuse(saved, r"has no agent\.\d\.C", coupling="trained")

    def test_a_damaged_file(self, saved: Path) -> None:
        file = saved / "rank-0.safetensors"
        file.write_bytes(file.read_bytes()[:-10])
        self.refuse(saved, "cannot be read as safetensors")

    def test_a_flipped_byte(self, saved: Path) -> None:
        file = saved / "rank-0.safetensors"
        content = bytearray(file.read_bytes())
        content[-7] ^= 4
        file.write_bytes(content)
        self.refuse(saved, r"rank-0\.safetensors is damaged: \S+ in it does not have its checksum")

    def test_a_missing_rank(self, saved: Path) -> None:
        file = saved / "rank-0.safetensors"
        save_file(load_file(file), file, metadata={"ranks": "2"})
        self.refuse(saved, r"holds 1 files, but rank-0\.safetensors was written by one of 2 ranks")

    def test_files_of_two_runs(self, saved: Path) -> None:
        tensors = load_file(saved / "rank-0.safetensors")
        for rank in (0, 1):
            save_file(tensors, saved / f"rank-{rank}.safetensors", metadata={"ranks": "2"})
        self.refuse(saved, "both hold agent")

    def test_another_graph(self, saved: Path) -> None:
        tensors = load_file(saved / "rank-0.safetensors")
        kept = {name: part for name, part in tensors.items() if not name.startswith("agent.8.")}
        save_file(kept, saved / "rank-0.safetensors", metadata={"ranks": "1"})
        self.refuse(saved, r"has no agent\.8\.K, which")

    def test_a_readout_at_other_agents(self, saved: Path) -> None:
        tensors = load_file(saved / "rank-0.safetensors")
        tensors["agent.4.readout"] = tensors["agent.2.readout"].clone()
        save_file(tensors, saved / "rank-0.safetensors", metadata={"ranks": "1"})
        self.refuse(saved, r"has agent\.4\.readout, which this network has not")


def test_a_later_run_leaves_no_file_of_an_earlier_one(tmp_path: Path) -> None:
    net, head = parts(1)
    save_weights(net, [head], tmp_path)
    remove_weights(tmp_path)
    assert list(tmp_path.iterdir()) == []
