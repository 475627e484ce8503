"""The theory as tools: sensitivity matrices, their bounds, symplecticity, and the counterexample."""
