"""Slurm as a backend: `backend` is what the loop talks to, the others are its parts, the pure ones without I/O.

commands    running sbatch, squeue, sacct, scontrol, scancel with a time limit
options     resources and pool -> what sbatch is told
ticket      what was asked of Slurm for an attempt, written before it is asked
submission  pickles, script and sbatch, through submitit
entry       what the job runs first, on the node
queue       squeue's text -> rows
accounting  sacct's text -> rows
verdicts    rows -> the state of one attempt
in_place    another attempt under the id of one that is over
cluster     what the cluster says of itself
"""
