"""Video analysis: shots and sampled frames."""
