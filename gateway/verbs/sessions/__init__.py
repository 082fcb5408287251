"""`lunar sessions`: look at the transcripts, with or without a running daemon; one module a verb."""
