"""Each control of explosion, weaker and stronger, on one small network: what it changes, and what it leaves alone.

Smoothness, penalty, decay and projection steer the training of H2; damping is part of the network, so it is shown on a
deep H1-J1 with the weights it starts with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hdnn_dist.analysis.effects import effects
from hdnn_dist.exchange.world import World
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.training.build import build
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.loop import Trainer

SAMPLES = 8  # inputs at which the BSM is looked at
TRAINED = (
    "dtype=float64",
    "epochs=20",
    "network.layers=16",
    "data.name=double_moons",
    "data.samples=1000",
    "penalties.smoothness=0.0",
    "penalties.readout=0.0",
)
RANDOM = (
    "dtype=float64",
    "epochs=0",
    "network.architecture=H1-J1",
    "network.layers=256",
    "network.initial=scaled",
    "data.samples=100",
)


@dataclass(frozen=True)
class Control:
    """``key`` of the config and its values, from weak to strong; ``settings``: of the network that they are set on."""

    name: str
    key: str
    strengths: tuple[float, ...]
    settings: tuple[str, ...] = TRAINED

    @property
    def network(self) -> str:
        """What it is set on, in words."""
        config = load_config(None, self.settings)
        state = "trained" if config.epochs else "random"
        return f"{config.network.architecture}, {config.network.layers} layers, {state}"


CONTROLS = (
    Control("smoothness, times h", "penalties.smoothness", (0.001, 0.01, 0.1)),
    Control(
        "smoothness, over h",
        "penalties.smoothness",
        (0.001, 0.01, 0.1),
        (*TRAINED, "penalties.smoothness_scale=divide"),
    ),
    Control("weights penalty", "penalties.weights", (0.001, 0.003, 0.01)),
    Control("weight decay", "optimizer.weight_decay", (0.01, 0.1, 1.0), (*TRAINED, "optimizer.name=adamw")),
    Control("projection", "penalties.bound", (1000.0, 100.0, 10.0)),
    Control("damping", "network.damping", (0.1, 0.2, 0.5), RANDOM),
)


def measure(control: Control, world: World) -> list[dict[str, Any]]:
    """A row without the control, its ``strength`` None, and one for each of its strengths; every rank has to call it.

    ``test_accuracy``: what the control costs; None where nothing is trained.
    """
    return [_row(control, strength, world) for strength in (None, *control.strengths)]


def _row(control: Control, strength: float | None, world: World) -> dict[str, Any]:
    chosen = [] if strength is None else [f"{control.key}={strength}"]
    config = load_config(None, [*control.settings, *chosen])
    job = build(config, CommunicationGraph.parse(config.graph), world)
    epochs = Trainer(job).run(lambda epoch, step: None, lambda row: None).epochs
    return {
        "control": control.name,
        "strength": strength,
        **effects(job.net, job.test.inputs[:SAMPLES]),
        "test_accuracy": epochs[-1].test_accuracy if epochs else None,
    }
