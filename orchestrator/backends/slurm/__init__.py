"""Slurm as a backend: `backend` is what the loop talks to, the others are its parts.

commands    running sbatch, squeue, sacct, scontrol and scancel, with a time limit
options     resources and pool -> what sbatch is told
ticket      what was asked of Slurm for an attempt, written before it is asked
submission  pickles, script and sbatch, through submitit
entry       what the job runs first, on the node
finding     a job whose id was never written down
queue       squeue's text -> rows
accounting  sacct's text -> rows
states      rows -> the state of one attempt
in_place    another attempt under the id of one that is over
cluster     what the cluster says of itself
checkup     what doctor looks at
"""
