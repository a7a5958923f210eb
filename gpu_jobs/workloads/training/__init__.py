"""Fine-tuning: a gang of processes trains one model, and the GPU worker starts and supervises the gang.

`rank` and `callbacks` run in the gang's processes and import torch. All other modules run in the GPU worker's process
and do not import torch at module level.
"""
