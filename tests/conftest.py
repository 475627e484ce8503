"""One thread for every test: the matrices are small, and other processes share the machine."""

import torch

torch.set_num_threads(1)
