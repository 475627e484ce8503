"""What a user holds: the network, the lift before it, the readout with its loss behind it."""
