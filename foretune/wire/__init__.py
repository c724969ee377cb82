"""What crosses HTTP, as Pydantic models: one file a noun, shared by the API and the client.

Requests refuse unknown fields; answers ignore them on the client's side, so that a newer service can say more.
"""
