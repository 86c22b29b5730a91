"""A mesh's settings as istioctl takes them: profiles, IstioOperator and values files, `--set`.

Words: a *setting* is one path with a value and the place where the user wrote it; the *operator* is the merged IstioOperator
(profile < files in order < `--set` in order); *effective settings* are what devmesh does because of it.
"""
