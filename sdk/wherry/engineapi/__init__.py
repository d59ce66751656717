"""
The documents of Docker's Engine API 1.51: each described once, for the daemon that serves them and the engine elsewhere
that is asked for them.

A class is named as the API's description names it, with the fields in snake_case. `document` brings them from and to
JSON. Only what is told of processes' use of the machine (`wherry.stats`) and events are passed on as they come.
"""
