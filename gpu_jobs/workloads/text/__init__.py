"""Language models and encoders over texts."""
