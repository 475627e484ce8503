"""The portable pass through the layers, the reference that every kernel is checked against."""
