"""A Pyro model and guide as a problem: what stands between programs of sample statements and the protocol."""
