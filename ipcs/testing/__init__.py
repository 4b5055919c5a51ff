"""Memory networks, fault-injecting stores and conformance suites that anyone may run against their own parts."""
