"""Rooms: who is where, who may do what, and who is told. One task decides, one routes; the state itself is plain synchronous code."""
