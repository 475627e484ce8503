"""The pass compiled for this machine's processor."""
