"""What must come out, what did, and the page that says so. Serves notebook 08.

- `expectations` - claims as data: `experiments/<name>.expected.yaml`
- `claims` - each claim beside what was found: met, missed, undecided, or not run and why
- `verify` - `feyntune verify`: hashes, claims and released rows checked again
- `html` - the report: one page, the verdicts for scripts, the executed notebooks
- `templates` - the pages' HTML and style
"""
