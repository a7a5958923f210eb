"""The platform `cloud_run`: GPU workers as tasks of Google Cloud Run Jobs."""
