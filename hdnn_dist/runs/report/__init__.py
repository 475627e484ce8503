"""A run, and several beside each other, as pages that need nothing else."""
