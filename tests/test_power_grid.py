"""Power flows on the IEEE cases: solved as pandapower does, each bus sees its own, kept whole or not at all."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from hdnn_dist import CommunicationGraph
from hdnn_dist.data.columns import Columns
from hdnn_dist.data.dataset import Dataset, describe, load
from hdnn_dist.data.power_cases import CASES, case_of, grid
from hdnn_dist.data.power_flow import KNOWN, SOLVED, VALUES, states
from hdnn_dist.data.power_grid import NAME, Flows, kept, standardised
from hdnn_dist.exchange.connect import connect
from hdnn_dist.experiments import EXPERIMENTS
from hdnn_dist.experiments.running import train
from hdnn_dist.training.build import build
from hdnn_dist.training.config_files import load_config

ROOT = Path(__file__).parents[1]
IEEE14 = ROOT / "topologies" / "ieee14.json"
CONFIG = ROOT / "launch" / "configs" / "power_ieee118.toml"
SAMPLES = 40

pandapower = pytest.importorskip("pandapower")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("power")


def read(folder: Path, buses: list[int], seed: int = 0, noise: float | None = None) -> Dataset:
    """The 14-bus case as a rank with these agents reads it, 3 features an agent."""
    graph = CommunicationGraph.load(IEEE14)
    about = describe(NAME, graph=graph)
    assert about.assignment is not None
    columns = Columns.from_mapping(dict(about.assignment), about.columns, [3] * 14)
    return load(
        NAME,
        seed=seed,
        index=columns.index(np.array(buses)),
        samples=SAMPLES,
        noise=noise,
        root=folder,
        targets=buses,
        graph=graph,
    )


@pytest.mark.parametrize("buses", CASES)
def test_the_shipped_graphs_are_those_of_the_cases(buses: int) -> None:
    shipped = CommunicationGraph.load(ROOT / "topologies" / f"ieee{buses}.json")
    made = grid(buses)
    assert shipped == made
    assert shipped.labels == made.labels == tuple(str(bus) for bus in range(1, buses + 1))
    assert shipped.positions is not None


def test_states_are_those_of_runpp_and_rundcpp() -> None:
    *_, state = states(14, 3, 0.6, seed=1)
    net = case_of(14)
    for table in (net.load, net.gen):
        table["p_mw"] = 0.0
    net.load["q_mvar"] = 0.0
    for table in (net.gen, net.ext_grid):
        table["vm_pu"] = state[table.bus, VALUES.index("voltage set point")]
    for bus in range(14):
        pandapower.create_load(net, bus, *state[bus, :2])
    pandapower.runpp(net)
    np.testing.assert_allclose(net.res_bus[["vm_pu", "va_degree"]], state[:, 3:5], rtol=0, atol=1e-7)
    pandapower.rundcpp(net)
    np.testing.assert_allclose(net.res_bus.va_degree, state[:, VALUES.index(SOLVED[2])], rtol=0, atol=1e-9)


def test_a_bus_knows_what_it_draws_and_its_own_set_point() -> None:
    drawn = np.array(list(states(14, 20, 0.6, seed=0)))
    loads, generators = case_of(14).load.bus, [0, *case_of(14).gen.bus]
    idle = np.setdiff1d(np.arange(14), [*loads, *generators])
    assert len(KNOWN) == 3
    assert (drawn[:, idle, :2] == 0).all()
    assert (drawn[:, 0, :2] == 0).all(), "what the slack bus gives is not known before"
    assert (drawn[:, generators, 2] > 0.9).all()
    assert (np.delete(drawn[:, :, 2], generators, axis=1) == 0).all()
    assert (drawn.std(0)[loads, 0] > 0).all()


def test_a_rank_gets_its_own_buses_standardised(folder: Path) -> None:
    whole, part = read(folder, list(range(14))), read(folder, [3, 8])
    assert (len(whole.train), len(whole.test)) == (30, 10)
    np.testing.assert_array_equal(part.train.inputs, whole.train.inputs[:, [9, 10, 11, 24, 25, 26]])
    assert list(part.train.targets) == [3, 8]
    for bus in (3, 8):
        np.testing.assert_array_equal(part.test.targets[bus], whole.test.targets[bus])
        np.testing.assert_allclose(part.train.targets[bus].mean(0), 0, atol=1e-9)
        np.testing.assert_allclose(part.train.targets[bus].std(0), 1, atol=1e-9)
    constant = whole.train.inputs.std(0) == 0
    assert constant.any()
    assert (whole.train.inputs[:, constant] == 0).all()


def test_a_magnitude_that_is_held_is_that_of_the_set_point(folder: Path) -> None:
    """And the angle of the slack bus, which never moves, is 0 when standardised."""
    held = read(folder, [0])
    np.testing.assert_allclose(held.test.targets[0][:, 0], held.test.inputs[:, 2], atol=1e-9)
    assert (held.test.targets[0][:, 1] == 0).all()


def test_states_are_solved_once_and_differ_by_seed(folder: Path) -> None:
    first = read(folder, [5], seed=3).train.inputs
    (path,) = folder.glob("ieee14_40_0.6_3.safetensors")
    written = path.stat().st_mtime_ns
    np.testing.assert_array_equal(read(folder, [5], seed=3).train.inputs, first)
    assert path.stat().st_mtime_ns == written
    assert (read(folder, [5], seed=4).train.inputs != first).any()
    assert not list(folder.glob(".*.tmp"))


def test_what_was_solved_is_read_without_pandapower(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = read(folder, [5]).train.inputs
    monkeypatch.setitem(sys.modules, "pandapower", None)
    np.testing.assert_array_equal(read(folder, [5]).train.inputs, known)
    with pytest.raises(ValueError, match=r"pip install 'hdnn-dist\[power\]'"):
        read(folder, [5], seed=77)
    assert not list(folder.glob("*_77.*"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"samples": 4}, "makes 8 samples or more"),
        ({"noise": 2.0}, "0 to below 2, not 2.0"),
    ],
)
def test_what_cannot_be_made_is_refused(folder: Path, wrong: dict, message: str) -> None:
    graph = CommunicationGraph.load(IEEE14)
    given = {"samples": SAMPLES, "root": folder, **wrong}
    with pytest.raises(ValueError, match=message):
        load(NAME, seed=0, index=np.arange(3), graph=graph, **given)


def test_a_case_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="14, 30, 57, 118 of them, but ring:8 has 8 agents"):
        describe(NAME, graph=CommunicationGraph.ring(8))
    with pytest.raises(ValueError, match="no IEEE case of 39 buses here: take one of 14, 30, 57, 118"):
        grid(39)


@pytest.mark.parametrize("harm", ["cut", "other"])
def test_a_file_that_is_not_ours_is_refused(tmp_path: Path, harm: str) -> None:
    flows = kept(14, SAMPLES, 0.6, 0, tmp_path)
    if harm == "cut":
        flows.path.write_bytes(b"half")
    else:
        save_file({"5": np.zeros((SAMPLES, 2))}, flows.path)
    with pytest.raises(ValueError, match=r"ieee14_40_0\.6_0\.safetensors .*remove it"):
        read(tmp_path, [5])


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file cannot be written \(.*\): set data\.root"):
        read(tmp_path / "file", [5])


def test_a_third_column_that_never_moves_is_zero() -> None:
    values = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [9.0, 5.0]])
    np.testing.assert_allclose(standardised(values, 3)[:3].std(0), [1, 0])
    assert Flows(Path("x"), 8).train == 6


SMALL = (
    f"graph={IEEE14}",
    f"data.samples={SAMPLES}",
    "epochs=1",
    "batch_size=10",
    "network.layers=2",
    "network.kernel=torch",
)


def test_every_bus_predicts_its_own_voltage(folder: Path) -> None:
    config = load_config(CONFIG, [*SMALL, f"data.root={folder}"])
    with connect("local") as world:
        job = build(config, CommunicationGraph.parse(config.graph), world)
    assert job.head.at.tolist() == list(range(14))
    assert job.train.labels is not None
    assert job.train.labels.shape == (30, 28)


def test_the_experiment_measures_all_methods_on_the_same_split(folder: Path) -> None:
    config = load_config(CONFIG, [*SMALL, f"data.root={folder}"])
    figures = train(config, EXPERIMENTS["power"].measure).figures
    flows = kept(14, SAMPLES, 0.6, 0, folder)
    values = np.stack([flows.bus(bus) for bus in range(14)], axis=1)[30:]
    assert figures["DC V"] == pytest.approx(np.abs(values[:, :, 3] - 1).mean())
    assert figures["DC angle"] == pytest.approx(np.abs(values[:, :, 4] - values[:, :, 5]).mean())
    assert set(figures) == {f"{name} {what}" for name in ("H2", "MLP", "DC", "mean") for what in ("V", "angle")}
    assert all(np.isfinite(error) for error in figures.values())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ieee118_meets_its_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Magnitude at most half, angle at most a third of the DC power flow's error; within 1.5 times the MLP's."""
    monkeypatch.chdir(ROOT)
    config = load_config(CONFIG, [f"data.root={tmp_path}"])
    found = train(config, EXPERIMENTS["power"].measure).figures
    assert found["H2 V"] <= found["DC V"] / 2
    assert found["H2 angle"] <= found["DC angle"] / 3
    for what in ("V", "angle"):
        assert found[f"H2 {what}"] <= 1.5 * found[f"MLP {what}"]
