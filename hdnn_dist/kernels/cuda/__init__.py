"""The pass on a GPU."""
