"""The prover: shows under faults that the server keeps its promises, and that it would notice if not."""
