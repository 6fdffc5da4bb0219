"""One host's broker: all policy about when to connect, whom to answer what, and when to give up.

broker.py     Broker: the public face, and what the exchange asks of policy
session.py    a connection to the peer: the dialogue, and what was agreed in it
special.py    requests that are not simply passed on: lonc's own, encrypted, for another host id
health.py     the budget of retries, the spacing of attempts, and when a host is DEAD
janitor.py    everything that happens because time has passed
complaints.py what is logged about clients, and how often
settings.py   the settings of a broker
host.py       which host it is
"""
