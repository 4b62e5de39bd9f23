"""Results to figures, tables, claims and a report, without torch. Serves notebooks 07 and 08.

- `results` - the result files of an experiment that are fresh, read
- `published_scores` - the authors' released scores as result files of ours
- `loss_steps` - whether a training loss falls in steps at the ends of epochs
- `looks` - colour and marker of every model
- `figures` - one module per figure
- `tables` - the tables, their captions, and how they are written
- `report` - claims, judged on the tables, and the page that shows everything
"""
