"""Google Cloud Run Jobs."""
