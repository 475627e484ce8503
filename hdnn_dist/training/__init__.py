"""From a config file to a trained network."""
