"""An edge between two ranks of one host, carried by memory that they share and nobody else."""
