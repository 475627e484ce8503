"""The theory as tools: sensitivity matrices exact and estimated, symplecticity, bounds, and what is drawn of them."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from battery import ALONE
from problems import TOLERANCE, Problem, dense_answer, relative_error
from torch import Tensor
from typer.testing import CliRunner

import hdnn_dist.analysis.bounds as bounds_file
import hdnn_dist.analysis.table as table_file
import hdnn_dist.plots.sensitivity as sensitivity_plots
from hdnn_dist import HDNN, CommunicationGraph, cli, place
from hdnn_dist.analysis import analyze as analysing
from hdnn_dist.analysis.bounds import bounds
from hdnn_dist.analysis.controls import CONTROLS, measure
from hdnn_dist.analysis.counterexample import solve
from hdnn_dist.analysis.effects import effects
from hdnn_dist.analysis.lanczos import extremes
from hdnn_dist.analysis.sensitivity import exact, forward_exact, single_layers, spread
from hdnn_dist.analysis.symplectic import canonical, is_symplectic, layer_structure_matrices, residual, structure_matrix
from hdnn_dist.analysis.table import depth_sweep, layer_residuals, sensitivity_table
from hdnn_dist.plots.sensitivity import draw_gradient_norms
from hdnn_dist.runs.checkpoint import save_weights

ALL = ("H2", "H1-J1", "H1-J2", "MS1", "MS2", "MS3", "MLP")
RING = CommunicationGraph.ring(4)
DEEP = 4096


def network(architecture: str, layers: int = 16, seed: int = 0, **options: Any) -> HDNN:
    options = {"initial": "normal", "step": 0.1, **options}
    return HDNN(place(RING, ALONE), 2, layers, architecture=architecture, seed=seed, dtype=torch.float64, **options)


def sample(seed: int = 0) -> Tensor:
    return torch.randn(1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def norm(M: Tensor) -> float:
    return float(torch.linalg.matrix_norm(M, 2))


class TestExact:
    @pytest.mark.parametrize("architecture", ALL)
    def test_they_are_the_jacobians_of_the_oracle(self, architecture: str) -> None:
        """torch's own Jacobian of the formulas, in the dense order, on uneven blocks; the last of 20 layers, and all:
        more than are undone at a time."""
        problem = Problem(CommunicationGraph.star(4), (2, 4, 2, 6), architecture, layers=20)
        net = problem.network(problem.agents(ALONE))
        x, dense = problem.inputs()[:1], net.dense()
        order = torch.as_tensor(net.architecture.dense_rows(net.features))

        def after(first: int, x: Tensor) -> Tensor:
            return dense_answer(problem, dense.K[first:], dense.b[first:], dense.J, x.unsqueeze(0))[0]

        found = dict(exact(net, x, [7, 20]))
        assert list(found) == [7, 20]
        for j, M in found.items():
            at = net(x, layers=slice(0, 20 - j)).detach()[0]
            jacobian = torch.autograd.functional.jacobian(lambda x, first=20 - j: after(first, x), at)
            assert relative_error(M, jacobian[order][:, order]) < TOLERANCE

    @pytest.mark.parametrize("architecture", ["H2", "H1-J1", "MLP"])
    def test_forward_and_backward_agree(self, architecture: str) -> None:
        """Tangents of the first N layers, against cotangents of the network of these layers alone."""
        net = network(architecture, 40)
        for depth, M in forward_exact(net, sample(), [8, 40]):
            ((_, expected),) = exact(network(architecture, depth), sample(), [depth])
            assert relative_error(M, expected) < TOLERANCE

    @pytest.mark.parametrize("j", [0, 17])
    def test_a_distance_outside_the_network_is_refused(self, j: int) -> None:
        with pytest.raises(ValueError, match=f"j is {j}: the network has 16 layers"):
            list(exact(network("H2"), sample(), [j]))

    def test_only_one_sample(self) -> None:
        net, batch = network("H2"), sample().expand(3, -1)
        for look in (
            lambda: list(exact(net, batch, [1])),
            lambda: list(forward_exact(net, batch, [1])),
            lambda: list(single_layers(net, batch)),
            lambda: extremes(net, batch, 1),
        ):
            with pytest.raises(ValueError, match=r"x has shape \(3, 8\): a BSM is that of one sample.*pass x\[:1\]"):
                look()

    @pytest.mark.parametrize("function", [exact, forward_exact])
    def test_no_distance_is_refused(self, function: Any) -> None:
        with pytest.raises(ValueError, match=r"no j was given: .* such as \[1, 16\]"):
            list(function(network("H2"), sample(), []))

    def test_a_spread_goes_from_one_to_all(self) -> None:
        assert spread(1) == [1]
        assert spread(3) == [1, 2, 3]
        assert (spread(4096)[0], spread(4096)[-1]) == (1, 4096)


class TestEstimated:
    @pytest.mark.parametrize("architecture", ALL)
    @pytest.mark.parametrize("j", [1, 16])
    def test_they_agree_with_the_exact_ones(self, architecture: str, j: int) -> None:
        """Of 16 layers of an MLP the smallest value is lost in rounding, however it is computed."""
        net = network(architecture)
        ((_, M),) = exact(net, sample(), [j])
        values = torch.linalg.svdvals(M)
        found = extremes(net, sample(), j)
        assert found.norm == pytest.approx(float(values[0]), rel=1e-3)
        if values[-1] > 1e-12 * values[0]:
            assert found.smallest == pytest.approx(float(values[-1]), rel=1e-3)
        else:
            assert (architecture, j) == ("MLP", 16)

    def test_a_larger_network_takes_fewer_steps_than_it_has_features(self) -> None:
        net = HDNN(place(CommunicationGraph.grid(6, 6), ALONE), 4, 8, 0.2, seed=1, dtype=torch.float64)
        x = torch.randn(1, 144, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        ((_, M),) = exact(net, x, [8])
        found = extremes(net, x, 8, smallest=False)
        assert found.steps < 72
        assert found.norm == pytest.approx(norm(M), rel=1e-3)

    def test_a_network_that_forgets_everything_has_norm_zero(self) -> None:
        net = network("MLP", activation="relu")
        with torch.no_grad():
            net.weights[:, :, net.layout.entries :] = -1e3  # biases that switch every unit off
        assert extremes(net, sample(), 16)[:2] == (0.0, 0.0)

    @pytest.mark.parametrize("most", [0, -1])
    def test_it_needs_a_step(self, most: int) -> None:
        with pytest.raises(ValueError, match=f"most is {most}: expected at least 1 Lanczos step"):
            extremes(network("H2"), sample(), 1, most=most)

    def test_too_few_steps_are_an_error(self) -> None:
        with pytest.raises(ValueError, match="has not converged after 2 Lanczos steps"):
            extremes(network("H2", 64), sample(), 64, most=2)


class TestSymplectic:
    @pytest.mark.parametrize("architecture", ["H2", "MS3"])
    def test_h2_and_ms3_are(self, architecture: str) -> None:
        """Every single layer of 64, and every product of them up to the output, 20 seeds."""
        for seed in range(20):
            net = network(architecture, 64, seed, step=0.5)
            J, products = structure_matrix(net), dict(exact(net, sample(seed), range(1, 65)))
            assert len(products) == 64
            assert max(residual(M, J) for M in products.values()) <= 1e-12
            singles = layer_residuals(net, sample(seed))
            assert len(singles) == 64
            assert max(singles) <= 1e-12

    @pytest.mark.parametrize("architecture", ["H2", "MS3", "H1-J1", "MLP"])
    def test_the_layers_multiply_to_the_products(self, architecture: str) -> None:
        """So that the residuals of single layers are those of the layers where they act."""
        net = network(architecture, 5)
        layers, product = list(single_layers(net, sample())), torch.eye(8, dtype=torch.float64)
        for j, M in exact(net, sample(), range(1, 6)):
            product = product @ layers[-j]
            assert relative_error(product, M) < TOLERANCE

    def test_h2_is_with_an_X_that_is_not_orthogonal(self) -> None:
        X = torch.eye(4, dtype=torch.float64) + 0.3 * torch.diag(torch.ones(3, dtype=torch.float64), 1)
        net = network("H2", coupling=X)
        J = structure_matrix(net)
        assert max(residual(M, J) for _, M in exact(net, sample(), [1, 16])) <= 1e-14
        assert max(residual(M, canonical(8, J)) for _, M in exact(net, sample(), [1, 16])) > 1e-4

    def test_with_an_X_per_layer_each_layer_is_and_their_products_are_not(self) -> None:
        """Each layer keeps a J of its own; all keep volumes, which is why no product has a norm below 1."""
        eye, generator = torch.eye(4, dtype=torch.float64), torch.Generator().manual_seed(3)
        ring = torch.as_tensor(RING.matrix(), dtype=torch.float64)
        X = eye + 0.5 * ring * torch.randn(16, 4, 4, dtype=torch.float64, generator=generator)
        net = network("H2", coupling=X)
        assert max(layer_residuals(net, sample())) <= 1e-12
        products = dict(exact(net, sample(), range(1, 17)))
        assert not is_symplectic(net)
        assert max(residual(products[16], J) for J in layer_structure_matrices(net)) > 1e-2
        assert all(torch.linalg.det(M).item() == pytest.approx(1) for M in products.values())
        assert bounds(net).lower == 1
        assert min(map(norm, products.values())) >= 1

    def test_damping_is_no_part_of_the_form(self) -> None:
        J = structure_matrix(network("H1-J1", damping=0.5))
        assert torch.equal(J, structure_matrix(network("H1-J1")))

    @pytest.mark.parametrize("architecture", ["H1-J1", "MS1", "MS2", "MLP"])
    def test_the_others_are_not(self, architecture: str) -> None:
        for seed in range(5):
            net = network(architecture, 64, seed, step=0.5)
            J = structure_matrix(net)
            assert max(residual(M, J) for _, M in exact(net, sample(seed), [1, 64])) > 1e-3

    def test_forward_euler_spoils_it(self) -> None:
        net = network("H2", scheme="euler", step=0.5)
        ((_, M),) = exact(net, sample(), [1])
        assert residual(M, structure_matrix(net)) > 1e-3


def smallest_norm(architecture: str, seed: int) -> float:
    """Over j = 32, 64, ..., 4096 of the norm of the BSM."""
    net = network(architecture, DEEP, seed, initial="scaled")
    return min(norm(M) for _, M in exact(net, sample(seed), range(32, DEEP + 1, 32)))


class TestDepth:
    def test_gradients_of_h2_do_not_vanish_and_those_of_an_mlp_do(self) -> None:
        assert smallest_norm("H2", 0) >= 1 - 1e-6
        assert depth_sweep(network("MLP", DEEP, initial="scaled"), sample(), [DEEP])[0] < 1e-10

    @pytest.mark.slow
    @pytest.mark.parametrize("seed", range(20))
    def test_for_20_seeds(self, seed: int) -> None:
        assert smallest_norm("H2", seed) >= 1 - 1e-6
        assert smallest_norm("MLP", seed) < 1e-10

    def test_a_sweep_takes_the_first_layers(self) -> None:
        net = network("H2", 12)
        assert depth_sweep(net, sample(), [4, 12]) == pytest.approx(
            [norm(M) for _, M in forward_exact(net, sample(), [4, 12])]
        )


class TestBounds:
    @pytest.mark.parametrize("scheme", [None, "euler"])
    @pytest.mark.parametrize("architecture", ALL)
    def test_the_norm_lies_between_them(self, architecture: str, scheme: str | None) -> None:
        for seed in range(3):
            net = network(architecture, 8, seed, scheme=scheme, step=0.4)
            limits = bounds(net)
            for j, M in exact(net, sample(seed), [1, 3, 8]):
                assert math.log(norm(M)) <= limits.log_upper(j) + 1e-12
                assert limits.lower is None or norm(M) >= limits.lower - 1e-12

    def test_the_upper_one_is_the_product_of_the_theory(self) -> None:
        """Written out from the dense matrices, with an X."""
        X = torch.eye(4, dtype=torch.float64) + 0.3 * torch.diag(torch.ones(3, dtype=torch.float64), 1)
        net = network("H2", 5, coupling=X)
        K = net.dense().K
        expected = 1.0
        for layer in (2, 3, 4):
            for half in (slice(0, 4), slice(4, 8)):
                expected *= 1 + 0.1 * norm(X) * norm(K[layer, half, half]) ** 2
        assert math.exp(bounds(net).log_upper(3)) == pytest.approx(expected)

    def test_they_are_reached(self) -> None:
        """One layer of an MLP with s(z) = z."""
        net = network("MLP", 1, activation="identity")
        ((_, M),) = exact(net, sample(), [1])
        assert bounds(net).log_upper(1) == pytest.approx(math.log(norm(M)))

    def test_they_do_not_overflow(self) -> None:
        assert bounds(network("H2", 1024, step=1.0)).log_upper(1024) > 710

    def test_the_one_of_continuous_time_bounds_a_fine_discretisation(self) -> None:
        net = network("H1-J1", 400, step=0.001)
        ((_, M),) = exact(net, sample(), [400])
        limits = bounds(net)
        assert math.log(norm(M)) <= limits.log_continuous(400)
        assert limits.log_continuous(400) == pytest.approx(400 * 0.001 * limits.rate)

    @pytest.mark.parametrize("architecture", ALL)
    @pytest.mark.parametrize("coupling", [None, "trained"])
    def test_those_of_large_networks_are_looser(
        self, architecture: str, coupling: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The norms found by neighbours, which need no dense matrix, are at least the spectral ones."""
        if coupling and not architecture.startswith("H"):
            pytest.skip("takes no coupling")
        net = network("H1" if coupling and architecture != "H2" else architecture, 6, coupling=coupling)
        spectral = bounds(net)
        monkeypatch.setattr(bounds_file, "MOST_DENSE_FEATURES", 4)
        looser = bounds(net)
        assert (spectral.spectral, looser.spectral) == (True, False)
        assert (looser.log_factors >= spectral.log_factors).all()


def test_a_large_network_gets_the_same_table_from_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network("H1-J1")
    rows = sensitivity_table(net, sample(), [2, 16])
    monkeypatch.setattr(table_file, "MOST_EXACT_FEATURES", 4)
    for given, expected in zip(sensitivity_table(net, sample(), [16, 2]), rows, strict=True):
        for key in ("j", "norm", "smallest_singular_value", "log10_upper_bound"):
            assert given[key] == pytest.approx(expected[key], rel=1e-3)
        assert given["singular_values"] is None


@pytest.fixture(scope="module")
def measured() -> dict[str, list[dict[str, Any]]]:
    """The rows of every control: without it, then weak to strong."""
    return {control.name: measure(control, ALONE) for control in CONTROLS}


def column(rows: list[dict[str, Any]], key: str) -> list[float]:
    return [row[key] for row in rows]


def falls(values: list[float]) -> bool:
    return all(later < before for before, later in pairwise(values))


class TestControls:
    """Each control does what it says, by the figures of the analysis."""

    def test_the_figures_are_their_formulas(self) -> None:
        net = network("H1-J1", 5)
        K, b, _ = net.dense()
        found = effects(net, torch.cat([sample(0), sample(1)]))
        assert found["differences"] == pytest.approx(float(K.diff(dim=0).square().sum() + b.diff(dim=0).square().sum()))
        assert found["weights"] == pytest.approx(float(K.square().sum() + b.square().sum()))
        norms = [norm(M) for seed in (0, 1) for _, M in exact(net, sample(seed), [5])]
        assert found["norm"] == pytest.approx(max(norms))
        assert found["norm"] < 10 ** found["log10_upper_bound"]

    @pytest.mark.parametrize("name", ["smoothness, times h", "smoothness, over h"])
    def test_smoothness_brings_neighbouring_layers_together(
        self, name: str, measured: dict[str, list[dict[str, Any]]]
    ) -> None:
        """More than it shrinks them, which all others do alike."""
        rows = measured[name]
        relative = [row["differences"] / row["weights"] for row in rows]
        assert falls(column(rows, "differences"))
        assert falls(relative)
        assert relative[-1] < 0.2 * relative[0]

    def test_smoothness_over_h_is_that_times_h_by_the_square_of_h(
        self, measured: dict[str, list[dict[str, Any]]]
    ) -> None:
        """h is 0.1."""
        (*_, times), (_, over, *_) = measured["smoothness, times h"], measured["smoothness, over h"]
        assert times["strength"] == 100 * over["strength"]
        assert times["differences"] == pytest.approx(over["differences"], rel=1e-6)

    @pytest.mark.parametrize("name", ["weights penalty", "weight decay"])
    def test_penalty_and_decay_lower_the_weights_and_the_bound(
        self, name: str, measured: dict[str, list[dict[str, Any]]]
    ) -> None:
        assert falls(column(measured[name], "weights"))
        assert falls(column(measured[name], "log10_upper_bound"))

    def test_the_projection_keeps_the_bound_under_the_value_that_is_set(
        self, measured: dict[str, list[dict[str, Any]]]
    ) -> None:
        free, *held = measured["projection"]
        assert free["log10_upper_bound"] > 9
        for row in held:
            assert row["log10_upper_bound"] <= math.log10(row["strength"])
            assert row["norm"] <= row["strength"]

    def test_damping_contracts_where_it_is_strong(self, measured: dict[str, list[dict[str, Any]]]) -> None:
        """A weak one need not, and the bound, which knows norms of K alone, does not show it."""
        rows = measured["damping"]
        assert falls(column(rows, "norm"))
        assert rows[1]["norm"] > 1
        assert rows[-1]["norm"] < 1e-3
        assert falls([-row["log10_upper_bound"] for row in rows])


class TestRounding:
    """Singular values of an MLP fall by decades a layer, below what float64 tells from 0."""

    def test_values_below_rounding_are_not_told(self) -> None:
        rows = sensitivity_table(network("MLP", 32), sample(), [1, 32])
        assert rows[0]["smallest_singular_value"] == rows[0]["singular_values"][-1] > 0
        assert rows[1]["smallest_singular_value"] is rows[1]["singular_values"][-1] is None
        told = [value for value in rows[1]["singular_values"] if value is not None]
        assert told[0] == rows[1]["norm"]
        assert min(told) >= 8 * 2**-52 * rows[1]["norm"]

    def test_nor_are_those_of_lanczos(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(table_file, "MOST_EXACT_FEATURES", 4)
        (row,) = sensitivity_table(network("MLP", 32), sample(), [32])
        assert row["smallest_singular_value"] is None
        assert row["norm"] > 0

    def test_the_small_values_of_h2_are_reciprocals(self) -> None:
        """However large the norm: those are known without being computed."""
        (row,) = sensitivity_table(network("H2", 1024, step=0.5), sample(), [1024])
        assert row["singular_values"][-1] is None
        assert row["smallest_singular_value"] == 1 / row["norm"]

    def test_a_map_to_zero_has_exact_zeros(self) -> None:
        net = network("MLP", activation="relu")
        with torch.no_grad():
            net.weights[:, :, net.layout.entries :] = -1e3
        (row,) = sensitivity_table(net, sample(), [16])
        assert row["singular_values"] == [0.0] * 8


def bound_rows(**changed: Any) -> list[dict[str, Any]]:
    row = {"j": 1, "norm": 2.0, "lower_bound": 1.0, "log10_upper_bound": 1.0, "log10_continuous_bound": None}
    return [{**row, **changed}, {**row, **changed, "j": 8}]


class TestPictures:
    def test_a_bound_is_named_with_its_digits_where_it_is_small(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        axes = drawn_norms(bound_rows(log10_upper_bound=math.log10(18.3)), tmp_path, monkeypatch)
        assert "upper bound, 18.3 at j = 8" in axes.get_legend_handles_labels()[1]
        axes = drawn_norms(bound_rows(log10_upper_bound=47.0), tmp_path, monkeypatch)
        assert "upper bound, 1e47 at j = 8 (\u25b2 beyond the picture)" in axes.get_legend_handles_labels()[1]

    def test_it_ends_above_a_bound_that_is_near(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        near = drawn_norms(bound_rows(log10_upper_bound=math.log10(50.0)), tmp_path, monkeypatch)
        assert 50 < near.get_ylim()[1] <= 150
        far = drawn_norms(bound_rows(log10_upper_bound=400.0), tmp_path, monkeypatch)
        assert far.get_ylim()[1] == pytest.approx(2e2)


def drawn_norms(rows: list[dict[str, Any]], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The axes of a picture that was drawn."""
    figures: list[Any] = []
    monkeypatch.setattr(sensitivity_plots, "save", lambda figure, path: figures.append(figure) or path)
    sensitivity_plots.draw_norms(rows, folder / "n.png")
    return figures[0].axes[0]


class TestCounterexample:
    def test_the_state_stays_and_all_four_entries_grow(self) -> None:
        """In proportion to t: twice the time, twice the entries. y stays on log cosh y_1 + log cosh y_2 = H."""
        found = solve(steps=10_000)
        H = np.log(np.cosh(found.y)).sum(axis=1)
        assert np.abs(H - H[0]).max() < 1e-6
        assert np.abs(found.y).max() < 1.2
        entries = np.abs(found.bsm).reshape(-1, 4)
        half = entries[: len(entries) // 2].max(axis=0)
        assert half.min() > 10
        assert entries.max(axis=0) / half == pytest.approx(np.full(4, 2.0), rel=0.1)

    def test_on_an_axis_the_other_column_stays(self) -> None:
        """grad H = tanh(y(0)) is 0 there, which is why the picture does not start on one."""
        found = solve(start=(1.0, 0.0), steps=10_000)
        assert np.abs(found.bsm[:, :, 0]).max() > 40
        assert np.abs(found.bsm[:, :, 1]).max() < 2

    def test_the_matrix_is_the_derivative_of_the_state(self) -> None:
        """By central differences; and it keeps areas."""
        found, eps = solve(until=100, steps=1000), 1e-6
        for column in range(2):
            ahead, behind = (
                solve(start=tuple(np.array([1.0, 0.5]) + sign * eps * np.eye(2)[column]), until=100, steps=1000)
                for sign in (1, -1)
            )
            assert np.abs((ahead.y - behind.y) / (2 * eps) - found.bsm[:, :, column]).max() < 1e-6
        assert np.linalg.det(found.bsm) == pytest.approx(1, abs=1e-6)

    def test_its_numbers_must_be_positive(self) -> None:
        with pytest.raises(ValueError, match="steps 0: expected numbers greater than 0"):
            solve(steps=0)


STEPS = 2  # of an epoch: 200 samples in batches of 125
SMALL = ("epochs=2", "network.layers=4", "data.samples=400", "record_gradients=true")


def command(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    return result.exit_code, result.stderr


def shown(*arguments: str) -> list[str]:
    """The lines that an analysis prints."""
    result = CliRunner().invoke(cli.app, ("analyze", *arguments), catch_exceptions=False)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout.splitlines()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that recorded its gradients, and its analysis."""
    folder = tmp_path_factory.mktemp("run")
    options = [argument for pair in SMALL for argument in ("--set", pair)]
    assert command("train", *options, "--run-dir", str(folder)) == (0, "")
    assert command("analyze", str(folder)) == (0, "")
    return folder


class TestCommand:
    def test_a_run_gets_a_table_and_its_pictures(self, run: Path) -> None:
        assert {"bsm_norm.png", "singular_values.png", "gradient_norms.png"} <= {path.name for path in run.iterdir()}
        analysis = json.loads((run / "analysis.json").read_text())
        table = analysis["table"]
        assert len(analysis["layer_residuals"]) == 4
        assert max(analysis["layer_residuals"]) < 1e-14
        assert [row["j"] for row in table] == [1, 2, 3, 4]
        for row in table:
            assert 1 <= row["norm"] <= 10 ** row["log10_upper_bound"]
            assert row["symplectic_residual"] < 1e-14
            assert row["smallest_singular_value"] * row["norm"] == pytest.approx(1)

    def test_the_table_is_printed(self, run: Path) -> None:
        """With the figures of analysis.json, the residual of single layers, and the files."""
        head, _, *body, layers = [line for line in shown(str(run)) if not line.startswith("/")]
        names = ["j", "norm", "smallest singular value", "lower bound", "log10 upper bound", "symplectic residual"]
        assert [cell.strip() for cell in head.strip("|").split("|")] == names
        for line, row in zip(body, json.loads((run / "analysis.json").read_text())["table"], strict=True):
            cells = [float(cell) for cell in line.strip("|").split("|")]
            assert cells == pytest.approx([row[name.replace(" ", "_")] for name in names], rel=0.01)
        assert layers.startswith("symplectic residual of single layers: at most")
        assert sum(Path(line).is_file() for line in shown(str(run))) == 4

    def test_a_deep_run_gets_a_short_table(self) -> None:
        assert len(spread(4096, analysing.MOST_ROWS)) == 12

    def test_the_table_is_that_of_the_trained_weights(self, run: Path) -> None:
        """Not of those at the start: training changed the norms."""
        job = analysing._trained(run, ALONE)
        rows = json.loads((run / "analysis.json").read_text())["table"]
        again = sensitivity_table(job.net, job.test.inputs[:1], [4])
        assert again[0]["norm"] == pytest.approx(rows[-1]["norm"])
        start = HDNN(job.agents, 2, 4, initial="normal", dtype=torch.float64)
        assert sensitivity_table(start, job.test.inputs[:1], [4])[0]["norm"] != pytest.approx(rows[-1]["norm"])

    def test_gradient_norms_were_recorded_for_every_layer_and_step(self, run: Path) -> None:
        rows = [json.loads(line) for line in (run / "gradients.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == list(range(1, 2 * STEPS + 1))
        assert {len(row["norms"]) for row in rows} == {4}
        assert min(min(row["norms"]) for row in rows) > 0
        assert "norms" not in (run / "metrics.jsonl").read_text()

    def test_the_controls_are_drawn(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(analysing, "CONTROLS", CONTROLS[-2:])
        lines = shown("controls", "--run-dir", str(tmp_path))
        assert {path.name for path in tmp_path.iterdir()} == {"controls.json", "controls.png"}
        assert [line.split("|")[1].strip() for line in lines[2:10]] == ["projection"] * 4 + ["damping"] * 4
        assert "damping: network.damping, H1-J1, 256 layers, random" in lines
        content = json.loads((tmp_path / "controls.json").read_text())["controls"]
        assert [row["strength"] for row in content[0]["rows"]] == [None, 1000.0, 100.0, 10.0]

    def test_the_counterexample_and_the_sweep_are_drawn(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(analysing, "DEPTHS", (4, 8))
        for what in ("counterexample", "depth"):
            assert command("analyze", what, "--run-dir", str(tmp_path / what)) == (0, "")
            assert {path.name for path in (tmp_path / what).iterdir()} == {f"{what}.json", f"{what}.png"}
        assert json.loads((tmp_path / "depth" / "depth.json").read_text())["norms"].keys() == {"H2", "H1-J1", "MLP"}

    def test_what_is_no_run_is_refused(self, tmp_path: Path, run: Path) -> None:
        for arguments, words in (
            ((str(tmp_path / "none"),), "is no run folder, it has no config.toml"),
            ((str(run), "--run-dir", str(tmp_path)), "the analysis of a run is written into its own folder"),
        ):
            status, errors = command("analyze", *arguments)
            assert (status, errors.count("\n")) == (2, 1)
            assert words in errors
        assert list(tmp_path.iterdir()) == []

    def test_a_run_without_weights_is_refused(self, tmp_path: Path, run: Path) -> None:
        (tmp_path / "config.toml").write_text((run / "config.toml").read_text())
        status, errors = command("analyze", str(tmp_path))
        assert (status, errors.count("\n")) == (2, 1)
        assert "holds no weights" in errors
        assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]

    def test_a_job_without_steps_is_analysed_too(self, tmp_path: Path, run: Path) -> None:
        """Without records of gradients: no heat map."""
        (tmp_path / "config.toml").write_text((run / "config.toml").read_text())
        job = analysing._trained(run, ALONE)
        save_weights(job.net, job.others, tmp_path / "checkpoints")
        hints = [line for line in shown(str(tmp_path)) if "heat map" in line]
        assert len(hints) == 1
        assert "--set record_gradients=true" in hints[0]
        assert not (tmp_path / "gradient_norms.png").exists()


@pytest.mark.parametrize("shape", [(0, 4), (3,), (2, 4)])
def test_a_heat_map_needs_steps_and_layers(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"steps \(3,\): expected \(steps, layers\)"):
        draw_gradient_norms([1, 2, 3], np.zeros(shape), tmp_path / "g.png")
