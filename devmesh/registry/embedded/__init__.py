"""The part of Consul's HTTP API that devmesh uses, in one process, journalled.

`store` decides, `journal` remembers, `views` renders, `server` answers.

A *record* is one fact with its index; everything the store knows is the sum of its records, live or replayed.
"""
