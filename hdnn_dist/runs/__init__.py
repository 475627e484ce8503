"""What stays on the disk of a training."""
