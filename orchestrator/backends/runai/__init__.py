"""NVIDIA Run:ai as a backend, over its REST API: `backend` is what the loop talks to, the others are its parts.

settings    the sweep file and the environment -> what is known before anybody is asked
token       client credentials -> a bearer token
client      requests with time limits; what may be repeated is, what may not is not
faults      what an answer that is no success means
directory   project, cluster and node pools by name
listing     pages of workloads whose boundaries move
workload    what an attempt asks for -> the body of a workload
script      what a container runs
ticket      what was asked for an attempt, written before it is asked; and the phases that were seen
finding     a workload whose id was never written down, and one that a listing lacks
rows        many workloads by one listing
folder      what the attempt folder shows
phases      Run:ai's words -> stages
lasting     for how long a workload has been as it is
observation a workload and its attempt folder -> the state of the attempt
words       what Run:ai says about a workload, for people
logs        what a container prints, over the cluster's own endpoint
unverified  what no document settles, and how each is checked
checkup     what doctor looks at
trial       the job of a minute that checks what is unverified
"""
