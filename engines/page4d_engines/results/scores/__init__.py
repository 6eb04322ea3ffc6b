"""How good a run is in the task's own numbers: against a truth, or against another run."""
