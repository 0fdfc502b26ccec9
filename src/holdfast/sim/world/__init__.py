"""A deterministic world around the production machines (DESIGN §2 "Why pure machines").

Nothing in here decides anything about the fleet. Headquarters is `logic.fleet.Fleet`, every server
runs `logic.fleet.observer.Observer`, clients run `logic.pool` and `logic.trust.adoption`, joins are
ruled by `logic.trust.join`: the same objects that production drives, fed by a world in which time,
chance, networks, disks, clocks and clouds are simulated.

    schedule   a heap of things to come, a virtual clock, and the trace hash over all that happens
    chance     every draw, out of one seeded generator, recorded in the trace
    network    loss, delay, partitions (symmetric, asymmetric, partial), clogged paths
    disks      lost, torn and rotten bytes, full disks
    clouds     slow, failing, lying, gone
    servers    one machine of a provider: its observer, its probes, its clock
    hq         headquarters as a driver: persist before send, crash, restart from rows alone
    cohorts    users, singly or as one cohort for each slot
    fleet      all of it together, and the levers of the faults
    judges     what must hold, told from the world's own truth and never from HQ's

Same seed, same trace hash: the hash covers every event that is taken off the heap, every effect of
a machine and every draw, so it also covers the order in which they came. TigerBeetle's VOPR and
FoundationDB's simulator are the models.
"""
