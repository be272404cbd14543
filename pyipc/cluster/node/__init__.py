"""Node's own channel between a parent and its child, spoken from either end.

A Node program can be a worker of a cluster here, and a program of pyipc the child, or the cluster worker, of a Node
program. What is said over the channel is what Node 20 says and expects; no package is needed over there.
"""
