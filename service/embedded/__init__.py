"""Everything on one machine: real Postgres, a real Redis-protocol server, API, workers and beat, started by
`foretune up`.
"""
