"""Fine-tuning: a gang of processes that train one model, and the GPU worker's side that starts and watches them.

`rank` and `callbacks` run in the gang's processes and import torch; everything else runs beside it and does not.
"""
