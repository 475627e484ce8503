"""Machine code by numba: how functions are compiled and cached, vectors, and memory that processes share."""
