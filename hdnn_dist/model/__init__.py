"""What a user holds: the network, the lift before it, the readout with its loss behind it."""

from hdnn_dist.model.agent_readouts import AgentReadouts
from hdnn_dist.model.lift import ConvolutionalLift
from hdnn_dist.model.network import HDNN
from hdnn_dist.model.propagation import DriftWarning
from hdnn_dist.model.readout import Readout
from hdnn_dist.model.trained import Trained, TrainedModule

__all__ = ["HDNN", "AgentReadouts", "ConvolutionalLift", "DriftWarning", "Readout", "Trained", "TrainedModule"]
