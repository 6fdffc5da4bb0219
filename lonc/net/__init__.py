"""Sockets, made and handed out: the listening ones for clients, the connected ones to a peer.

listening  Unix sockets that appear whole, and directories that strangers may not write
resolver   names to addresses, without blocking the reactor
connector  TCP connections to one peer, address after address
"""
