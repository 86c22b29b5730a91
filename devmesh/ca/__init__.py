"""Identity: *authority* (root, intermediate), *SVID* (a workload's certificate), *token* (what a new workload proves itself with), *bundle*."""
