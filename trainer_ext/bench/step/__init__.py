"""The step benchmark: what the influence trace adds to a training step of verl, by setting.

Two ways to run the same cases, for the same table. `python -m trainer_ext.bench step` drives verl's worker itself, without Ray
and without generation: all that a rank does in an update (FSDP2, gradient checkpointing, micro-batches, the real loss, the
optimizer) and nothing that waits. `python -m trainer_ext.bench job` is one whole verl job whose steps go through the cases.
"""
