"""The architectures as half-steps, and the portable pass through them: what every kernel is checked against."""
