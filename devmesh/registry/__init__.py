"""The registry: Consul's HTTP API as devmesh uses it, from the client's side and, in `embedded`, from the server's.

*registration* (a workload as an agent service with one TTL check), *instance* (what the catalogue says of it),
*pair* (a KV key and its value), *index* (Consul's counter: hand it back to wait for the next change),
*generation* (the uuid of the last applied set of resources).
"""
