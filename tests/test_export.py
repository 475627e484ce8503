"""A network as one file: the loader of docs/export.md reads every architecture, and a run comes back bit for bit."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from battery import ALONE, UNEVEN
from problems import CUSTOM_VALUE
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor

import hdnn_dist
from hdnn_dist import HDNN, CommunicationGraph, Pattern, Readout, activations, place
from hdnn_dist.data.columns import Columns
from hdnn_dist.data.source import Description
from hdnn_dist.model.agent_readouts import AgentReadouts
from hdnn_dist.model.lift import ConvolutionalLift
from hdnn_dist.propagation.activations import ACTIVATIONS
from hdnn_dist.propagation.architectures import ARCHITECTURES
from hdnn_dist.runs import plain
from hdnn_dist.runs.dense_file import dense_tensors, facts, read_dense, write_dense
from hdnn_dist.runs.export import PROGRAM, export_run, fill, import_run, write_program
from hdnn_dist.runs.opened import read_run
from hdnn_dist.runs.saved import SavedRun
from hdnn_dist.training.config import Config
from hdnn_dist.training.config_files import dump_config

PAGE = Path(__file__).parents[1] / "docs" / "export.md"
GRAPH = CommunicationGraph.erdos_renyi(9, 0.4, seed=2)
N, COLUMNS = sum(UNEVEN), 7
NOBODY: dict[int, int] = {}
TOLERANCE = 1e-6  # of float32, beside the largest logit


def block(word: str) -> str:
    """The block of Python on the page that holds a word."""
    (found,) = [text for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if word in text]
    return found


def loader() -> Any:
    """The class of the page, in a room of its own."""
    room: dict[str, Any] = {}
    exec(block("class Network"), room)
    return room["Network"]


def saved(
    seed: int = 0, graph: CommunicationGraph = GRAPH, targets: dict[int, int] = NOBODY, **options: Any
) -> SavedRun:
    """A network of three layers with random weights everywhere, seven columns that enter at four agents."""
    net = HDNN(place(graph, ALONE), UNEVEN, 3, 0.3, seed=seed, **{"kernel": "torch", **options})
    head = AgentReadouts(net.agents, net, targets) if targets else Readout(net.agents, net, 3, at=(2, 6, 7), root=6)
    with torch.no_grad():
        torch.manual_seed(seed)
        for parameter in [*net.parameters(), *head.parameters()]:
            parameter.add_(0.3 * torch.randn_like(parameter))
    entered = Columns.from_mapping({1: [3, -1, 0], 3: [5], 6: [-1, 1, 2, 6], 8: [4]}, COLUMNS, UNEVEN)
    return SavedRun(Config(), Description("made", COLUMNS, 3, 100), net, head, entered)


def samples(columns: int = COLUMNS) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((6, columns)).astype(np.float32)


def per_layer() -> dict[str, Any]:
    graphs = [CommunicationGraph.path(9), CommunicationGraph.star(9), CommunicationGraph.path(9)]
    whole = CommunicationGraph.from_edges({tuple(edge) for graph in graphs for edge in graph.edges.tolist()})
    return {"graph": whole, "graphs": graphs}


def skew(n: int, graph: CommunicationGraph, layers: int = 1) -> Tensor:
    """J for each layer, on the blocks of a graph, agent after agent."""
    A = torch.as_tensor(np.random.default_rng(3).standard_normal((layers, n, n)))
    mask = torch.as_tensor(GRAPH.pattern(None).mask(np.array(UNEVEN)))
    return (A - A.mT) * mask


CASES: dict[str, dict[str, Any]] = {
    **{name: {"architecture": name} for name in ARCHITECTURES if name != "H1"},
    **{f"{name}, euler": {"architecture": name, "scheme": "euler"} for name in ("H2", "MS1", "MS3")},
    **{name: {"activation": name} for name in ACTIVATIONS},
    "J trained": {"architecture": "H1", "coupling": "trained", "damping": 0.1},
    "J given, for each layer": {"architecture": "H1", "coupling": skew(N, GRAPH, 3)},
    "J1, damped": {"architecture": "H1", "coupling": "J1", "damping": 0.2},
    "X trained": {"coupling": "trained"},
    "targets at agents": {"targets": {1: 2, 4: 1, 6: 3}},
    "a pattern": {"pattern": Pattern.diagonal(9)},
    "a pattern for each layer": {"pattern": [Pattern.diagonal(9), GRAPH.pattern(None), Pattern.diagonal(9)]},
    "a graph for each layer": per_layer(),
    "a graph for each layer, J2": {**per_layer(), "architecture": "H1-J2"},
    "a graph for each layer, skew": {**per_layer(), "architecture": "MS2"},
}


@pytest.mark.parametrize("case", CASES)
def test_the_loader_of_the_page_gives_the_same_logits(case: str, tmp_path: Path) -> None:
    run, file = saved(**CASES[case]), tmp_path / "model.safetensors"
    write_dense(file, dense_tensors(run), facts(run))
    expected = run.logits(samples())
    given = loader()(str(file))(torch.as_tensor(samples()))
    assert (given - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp_min(1)


@pytest.mark.parametrize("case", CASES)
def test_weights_come_back_bit_for_bit(case: str, tmp_path: Path) -> None:
    """Of skew matrices too, whose dense view has the difference only, and with the sign of a zero."""
    run, other, file = saved(**CASES[case]), saved(1, **CASES[case]), tmp_path / "model.safetensors"
    with torch.no_grad():
        run.net.weights.flatten()[3] = -0.0
        run.head.bias[0] = -0.0
    write_dense(file, dense_tensors(run), facts(run))
    fill(other, read_dense(file)[0], file)
    check_same_bits(run, other)


def check_same_bits(one: SavedRun, other: SavedRun) -> None:
    modules = [[run.net, *run.others] for run in (one, other)]
    parts = [[part.view(part.parameter) for module in each for part in module.trained()] for each in modules]
    for expected, given in zip(*parts, strict=True):
        assert torch.equal(given.contiguous().view(torch.int32), expected.contiguous().view(torch.int32))


def test_a_lift(tmp_path: Path) -> None:
    """Whole images at every agent, layers at every pixel, a readout of every pixel."""
    config = Config.model_validate({"network": {"lift": "convolution"}})
    net = HDNN(place(GRAPH, ALONE), UNEVEN, 2, kernel="torch")
    about = Description("images", 20, 3, 100, image=(4, 5))
    head = Readout(net.agents, net, classes=3, positions=(4, 5))
    run = SavedRun(config, about, net, head, None, ConvolutionalLift(net))
    expected, file = run.logits(samples(20)), tmp_path / "model.safetensors"
    write_dense(file, dense_tensors(run), facts(run))
    given = loader()(str(file))(torch.as_tensor(samples(20)))
    assert (given - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp_min(1)
    strange = HDNN(net.agents, UNEVEN, 2, seed=1, kernel="torch")
    other_head = Readout(net.agents, strange, classes=3, positions=(4, 5))
    other = SavedRun(config, about, strange, other_head, None, ConvolutionalLift(strange))
    fill(other, read_dense(file)[0], file)
    check_same_bits(run, other)


@pytest.mark.parametrize("case", ["H2", "MS2", "a graph for each layer, J2"])
def test_a_program_gives_the_same_logits_for_any_number_of_samples(case: str, tmp_path: Path) -> None:
    run, file = saved(**CASES[case]), tmp_path / "model.pt2"
    write_program(file, dense_tensors(run), facts(run))
    program = torch.export.load(file).module()
    for count in (1, 2, 6):
        expected = run.logits(samples()[:count])
        given = program(torch.as_tensor(samples()[:count]))
        assert (given - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp_min(1)


def test_the_page_has_the_loader_of_the_package() -> None:
    source = Path(plain.__file__).read_text()
    assert source[source.index("import json") :] == block("class Network")


def test_the_loader_needs_torch_and_safetensors_alone(trained: Path, tmp_path: Path) -> None:
    """The blocks of the page in a process that cannot import this package; the program beside it."""
    export_run(read_run(trained), tmp_path / "circles.safetensors")
    export_run(read_run(trained), tmp_path / "circles.pt2", PROGRAM)
    head = "import sys\nsys.modules['hdnn_dist'] = sys.modules['numba'] = None\n"
    show = "print(logits.tolist())\n"
    blocks = (block(part) for part in ("network = Network", "def of_h2", "torch.export.load"))
    script = head + block("class Network") + show.join((*blocks, ""))
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    expected = hdnn_dist.load(trained).logits([[0.1, -0.4], [0.8, 0.3]])
    told = done.stdout.splitlines()
    assert len(told) == 3
    for line in told:
        assert torch.allclose(torch.tensor(eval(line)), expected, atol=1e-6)


def test_a_run_comes_back(trained: Path, tmp_path: Path) -> None:
    file, again = tmp_path / "model.safetensors", tmp_path / "again"
    export_run(read_run(trained), file)
    import_run(file, again)
    check_same_bits(hdnn_dist.load(trained), hdnn_dist.load(again))
    for name in ("summary.json", "config.toml", "data.json"):
        assert (again / name).read_text() == (trained / name).read_text()


def test_the_graph_of_a_file_comes_back_without_it(trained_on_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    export_run(read_run(trained_on_file), file)
    import_run(file, tmp_path / "again")
    assert read_run(tmp_path / "again").graph == read_run(trained_on_file).graph
    assert read_run(tmp_path / "again").graph.labels == ("north", "east", "south", "west")


class TestRefused:
    """One line that names the file, and nothing is written."""

    @pytest.fixture
    def file(self, trained: Path, tmp_path: Path) -> Path:
        return export_run(read_run(trained), tmp_path / "model.safetensors")

    def refuse(self, file: Path, words: str) -> None:
        with pytest.raises(ValueError, match=words) as refused:
            import_run(file, file.parent / "again")
        assert "\n" not in str(refused.value)
        assert str(file) in str(refused.value)
        assert not (file.parent / "again").exists()

    def rewrite(self, file: Path, **changed: str) -> None:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata()
        save_file(load_file(file), file, metadata={**metadata, **changed})

    def test_a_flipped_byte(self, file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[-5] ^= 1
        file.write_bytes(content)
        self.refuse(file, "is damaged: its tensors do not have the checksum")

    def test_a_part_of_a_file(self, file: Path) -> None:
        file.write_bytes(file.read_bytes()[:-5])
        self.refuse(file, "cannot be read as safetensors")

    def test_no_file(self, tmp_path: Path) -> None:
        self.refuse(tmp_path / "model.safetensors", "cannot be read as safetensors")

    def test_another_file(self, file: Path) -> None:
        save_file({"K": torch.zeros(2)}, file)
        self.refuse(file, "is not a file of 'hdnn-dist export'")

    @pytest.mark.parametrize(
        ("key", "value", "words"),
        [
            ("network.architecture", "MS3", "weights for architecture H2, but this network has architecture MS3"),
            ("network.step", "0.2", r"weights for step 0\.1, but this network has step 0\.2"),
            ("network.features", "4", r"J in .* has shape \(16, 16\), but the network .* needs \(32, 32\)"),
            ("network.layers", "3", r"K in .* has shape \(2, 16, 16\)"),
        ],
    )
    def test_a_config_of_another_network(self, trained: Path, tmp_path: Path, key: str, value: str, words: str) -> None:
        file, other = tmp_path / "model.safetensors", read_run(trained, [f"{key}={value}"])
        export_run(read_run(trained), file)
        self.rewrite(file, config=json.dumps(dump_config(other.config)))
        self.refuse(file, words)

    def test_a_network_without_a_run(self, tmp_path: Path) -> None:
        run, file = saved(), tmp_path / "model.safetensors"
        write_dense(file, dense_tensors(run), facts(run))
        self.refuse(file, "has no config, it was not exported from a run folder")

    def test_a_function_of_ones_own(self) -> None:
        own = activations.custom(CUSTOM_VALUE, lambda z: (1 + z.square()) ** -1.5, "own")
        with pytest.raises(ValueError, match="activation 'own' is a function of your own, which no file holds"):
            facts(saved(activation=own))

    def test_a_folder_that_is_there(self, file: Path, trained: Path) -> None:
        before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
        with pytest.raises(ValueError, match="holds a finished run: choose another --run-dir, or pass --overwrite"):
            import_run(file, trained)
        assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before
