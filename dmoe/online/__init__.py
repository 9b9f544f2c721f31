"""Online training on a growing log: windows, ledger, ids that change over time, published versions, and alarms.

`command` is the command; `loop` runs the stages of a window; `source` chooses the files of a window; `ledger` records the used files; `ids`
assigns table rows to tokens; `prepared` makes the rows of a window; `watch` raises alarms; `publish` makes versions; `status` reports.
"""
