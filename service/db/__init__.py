"""The only SQL: one file a noun. Rows stay in here; values go out."""
