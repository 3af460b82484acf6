"""`chat bench`: how much a server carries on this machine, measured from outside by clients in processes of their own.

`workload` says what is to be done, `scratch` starts a server for it, `worker` is a process of clients (on `wire`), `run` conducts,
`stages` tells where the server's time goes, `report` prints and draws. Nothing here is shared with the server's or the client's
delivery: what was lost, doubled or reordered is counted from the bytes that arrive.
"""
