"""What the bytes mean: dialects, the dialogue that opens a connection, requests, encryption.

Nothing here reads, writes, waits or knows the time: bytes come in as arguments and go out as
results. From the bottom up:

    dialects   the states of a connection, and one table for each dialect
    cipher     IDEA, from a library of the system
    envelope   the session key, and sealing and opening a line with it
    dialogue   the state machine that takes a fresh connection to IDLE by its dialect's table
    requests   a client's line taken apart, and put together again for the peer
"""
