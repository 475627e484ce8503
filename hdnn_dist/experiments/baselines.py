"""What one computer could do that sees all inputs: a plain multilayer perceptron."""

from __future__ import annotations

import torch
from torch import Tensor, nn

HIDDEN, EPOCHS, RATE = 256, 100, 3e-3  # RATE: the peak of the cycle


def centralised(inputs: Tensor, targets: Tensor, test: Tensor, seed: int, batch_size: int = 100) -> Tensor:
    """Train two hidden layers of 256 ReLU with Adam on a one-cycle schedule for 100 epochs; (test samples, outputs).

    inputs: (samples, columns) and targets: (samples, outputs), standardised, all on one process.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _perceptron(inputs.shape[1], targets.shape[1])
        _fit(net, inputs, targets, batch_size)
    with torch.no_grad():
        predicted: Tensor = net(test)
    return predicted


def _perceptron(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs)
    )


def _fit(net: nn.Module, inputs: Tensor, targets: Tensor, batch_size: int) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE, fused=True)
    steps = EPOCHS * -(-len(inputs) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + 1, cycle_momentum=False)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(inputs)).split(batch_size):
            optimizer.zero_grad()
            nn.functional.mse_loss(net(inputs[index]), targets[index]).backward()
            optimizer.step()
            schedule.step()
