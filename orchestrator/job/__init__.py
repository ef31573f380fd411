"""What runs on the node: `python -m orchestrator.job ATTEMPT_DIR`, the wrapper that every backend starts.

It needs the standard library, psutil, nvidia-ml-py and `trainer_ext.records` alone: a node may have nothing else.
"""
