"""The mesh's certificate authority and its client.

*identity* (who a workload is), *authority* (root -> intermediate -> SVID), *token* (what proves a workload before it has an SVID),
*SVID* (X.509, one SPIFFE URI). CSRs travel from client to server, certificates back; private keys never travel.
"""
