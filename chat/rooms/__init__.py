"""Rooms: who is where, who may do what, and who is told. One task decides, one routes; the state itself is plain synchronous code.

Here are the state and what changes it (`effects`, `state`, `decisions`, `policy`), the desk with its tables of handlers, the manager and
the router. Beside them, each with its own decisions and effects: `rules` of channels and of the server, `moderation`, `conversations`
(commands that ask and wait), and what is kept about `commands`.
"""
