"""The half-step and its reverse, for all agents of a rank at once."""
