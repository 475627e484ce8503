"""The theory as tools: conditions on graph and patterns, sensitivity matrices, their bounds, the counterexample."""
