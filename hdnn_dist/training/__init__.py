"""From a config file to a trained network and a run folder."""
