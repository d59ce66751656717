"""
Containers of an ordinary user.

All of what root does happens in a user namespace of the user's own, in which the user is root, with mounts and a
network of its own (`holder`). Nobody enters it from a process with several threads (setns(2)), and wherry is a guest in
its user's process; so that process keeps to what needs no namespace (the database, the files of shims, their sockets),
and a `worker` that it starts at the first need does the rest: it enters, and runs the very engine that root runs. The
two talk over a `line`; `engine` says what goes over it.

A worker and its shims stay in the host's network: images come from there, and ports are published there. Only what
makes and uses bridges is done in the holder's network.
"""
