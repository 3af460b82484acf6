"""The wire protocol, sans-IO, shared by server and clients. README.md beside this file documents every message."""
