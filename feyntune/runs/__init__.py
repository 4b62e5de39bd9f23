"""Which stages there are, what made a result, and whether it is fresh.

Nothing is computed here. Every notebook begins and finishes its run with `recording`.

- `dependencies` - the settings and files that each stage's results depend on
- `stages` - the stages as data, and a run of one
- `code` - the hash of the code that a stage runs
- `records` - run records, and the state of files
- `freshness` - fresh, stale or missing, and why; results that are committed
- `recording` - a run from its start to its record; taking results over; the table of trials
- `progress` - a training that is under way: a line, a table, a file
- `signals` - ending when asked to
"""
