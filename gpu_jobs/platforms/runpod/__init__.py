"""RunPod pods and serverless endpoints."""
