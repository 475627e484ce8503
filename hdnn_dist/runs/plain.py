"""The network of an exported file in plain torch. What follows stands in docs/export.md too, for whoever has the file
alone.
"""

import json

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor


class Network(torch.nn.Module):
    """Samples (samples, columns) -> logits (samples, outputs), by the matrices in a file of ``hdnn-dist export``."""

    def __init__(self, path: str) -> None:
        super().__init__()
        with safe_open(path, framework="pt") as file:
            self.about, names = {name: json.loads(text) for name, text in file.metadata().items()}, file.keys()
            for name in names:
                self.register_buffer(name, file.get_tensor(name))

    def forward(self, x: Tensor) -> Tensor:
        """As above: x (samples, columns), the columns of the data set in their order."""
        about, t = self.about, dict(self.named_buffers())
        x = (x - t["mean"]) / t["std"]
        if about["lift"]:  # y: (samples, n, positions), n the features of all agents
            images = x.unflatten(1, (1, *about["image"]))
            y = F.conv2d(images, t["lift_weights"], t["lift_bias"], padding=1).flatten(2)
        else:
            y = F.pad(x, (0, 1))[:, t["columns"], None]  # column -1, the last, is zero
        special = {"identity": lambda z: z, "softplus": lambda z: F.softplus(z, threshold=40)}
        s = special.get(about["activation"]) or getattr(F, about["activation"])
        m = y.shape[1] // about["parts"]
        state, part = list(y.split(m, 1)), [slice(i * m, i * m + m) for i in range(about["parts"])]
        for K, b, J in zip(t["K"], t["b"], t["J"].expand(len(t["K"]), -1, -1), strict=True):
            read = list(state) if about["simultaneous"] else state
            for step in about["half_steps"]:
                L, target = K[part[step["rows"]], part[step["source"]]], step["target"]
                f = s(L @ read[step["source"]] + b[part[step["rows"]], None])
                f = L.T @ f if step["gradient"] else f
                f = {"C": J[-m:, :m], "CT": J[-m:, :m].T}[step["coupled"]] @ f if step["coupled"] else f
                state[target] = step["scale"] * f + (0 if step["replaces"] else state[target])
        logits = torch.cat(state, 1).flatten(1) @ t["readout"].T + t["readout_bias"]
        return logits * t["target_std"] + t["target_mean"]
