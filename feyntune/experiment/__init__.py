"""What is studied: an experiment as typed settings, with datasets, flavours and variants as data.

Every notebook begins by loading one.

- `recipes` - what a dataset, a flavour and a variant is, and those of the paper
- `trials` - runs with other settings, kept apart from their experiment's
- `sections` - the sections of an experiment: every setting with its type and range
- `sources` - what an experiment takes from outside: repositories, versions, files
- `endpoints` - the section on commercial models
- `schema` - a whole experiment and what follows from it
- `load` - from a YAML file to an experiment, with every mistake named
- `files` - writing files whole, removing them, and the hash of a value
"""
