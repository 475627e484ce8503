"""What a user holds: the network, the readout, the lift."""
