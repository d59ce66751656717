"""
`Client(host=…)`: the same SDK on an engine that speaks Docker's Engine API, wherry's daemon or another.

What only the engine of this process can do (a socket into a container, owner-bound containers, …) raises Unsupported.
"""
