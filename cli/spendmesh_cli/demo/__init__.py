"""`spendmesh demo`: the whole product on one machine, with stand-in providers and a slice of real traffic."""
