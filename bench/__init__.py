"""lonc beside other brokers of the same behaviour: ``python -m bench [--quick]``.

    __main__.py     the comparison: rounds, counts, start-up and memory; table and JSON
    growth.py       CPU time a request against clients, queue, hosts and timers, with plots
    workloads.py    what is asked of a broker
    contenders.py   the brokers, and how each is started
    harness.py      processors, processes, the C programs
    running.py      one broker that runs, and what is measured of it
    targets.py      what lonc is to reach
    report.py       medians, and how they are printed
    plot.py         line charts as SVG
    c/              load generator, peer, and the C broker that is the limit
    brokers/        the other brokers

README.md tells how the numbers come about and what they mean.
"""
