"""Tables and figures of RESULTS.md, README.md and docs/, made from the records in results/."""
