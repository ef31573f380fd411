"""What a point will take before it runs: GPU memory, host memory and time, each with an interval. Pure, and without torch.

    models      shapes of decoders: a small table, and config.json
    workload    what the composed configuration of a job says about its size
    influence   bytes of the influence trace, restated from the engine
    memory      training bar, rollout bar, host
    seconds     a step's time by counts of operations
    forecast    one point on each pool, by formula
    calibrate   the same, corrected by what earlier attempts of any sweep were seen to take

Everything may be unknown, and what is unknown holds nothing up.
"""
