"""Registry in, xDS out. It keeps nothing of its own and can be killed at any time.

*world* (everything a compile sees), *generation* (one applied set of resources), *snapshot* (what one proxy is to have),
*sequence* (the count of snapshots a proxy was given, so that "this one or a later one" is a comparison), *mark* (what a proxy said of one).
"""
