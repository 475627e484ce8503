"""What a head holds: weights of each agent that is read, or those that all of them share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.exchange.common_facts import told
from hdnn_dist.model.affine import Affine, SharedAffine
from hdnn_dist.model.identity import packed, refuse_other_weights, unpacked
from hdnn_dist.model.losses import Loss
from hdnn_dist.model.network import HDNN
from hdnn_dist.support.arguments import require_type
from hdnn_dist.weights.initial import draw_readout


class HeadWeights(Affine):
    """W (outputs, features of an agent times positions) and c (outputs,) of each agent that is read, or of all."""

    criterion: Loss

    def _share(self, given: bool | SharedAffine, net: HDNN, widths: np.ndarray, outputs: int, loss: str) -> None:
        """One for all agents that are read, of ``widths`` (readers,), new or of another head.

        ``ValueError`` for different widths, and for a head that predicts something else.
        """
        width = int(widths[0])
        if (widths != width).any():
            raise ValueError(
                f"agents that are read have {sorted(set(widths.tolist()))} features, but a shared readout is one for "
                "all: give the network one number of features, or leave shared out"
            )
        facts = told({"outputs": outputs, "features of an agent": width, "loss": loss})
        if isinstance(given, SharedAffine):
            refuse_other_weights("shared", given.facts, facts)
            self.shared = given
            return
        drawn = draw_readout(np.array([0]), np.array([width]), outputs, net.seed, width)
        self.shared = SharedAffine(
            torch.as_tensor(drawn).to(net.trained_weights.detach()), facts, net.layers, ("readout", "readout.bias")
        )

    def get_extra_state(self) -> Tensor:
        """(bytes,) for ``state_dict``: the loss, and whose the weights are unless they are shared."""
        return packed(told({**(self._of_agents() if self.shared is None else {}), "loss": self.criterion.name}))

    def set_extra_state(self, state: Tensor) -> None:
        """``ValueError`` for the state of another readout; (bytes,) as ``get_extra_state``."""
        refuse_other_weights("this state", unpacked(state), unpacked(self.get_extra_state()))

    def _of_agents(self) -> dict[str, object]:
        """Whose weights they are."""
        raise NotImplementedError


def check_shared(shared: object) -> None:
    """``TypeError`` unless it is True, False, or what another head shares."""
    require_type("shared", shared, (bool, SharedAffine), "True, False or the shared readout of another head")


def told_shared(shared: bool | SharedAffine) -> object:
    """As a fact that ranks have to have in common."""
    return shared if isinstance(shared, bool) else sorted(shared.facts.items())
