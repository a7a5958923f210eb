"""The platform `runpod`: GPU workers in pods, or as jobs of serverless endpoints."""
