"""A model that follows a log which grows: windows, the ledger of what was used, ids that come and go, versions, alarms.

`command` is the program; `loop` the stages of a window; `source` which files a window has, `ledger` which were used; `ids` which token has
which row; `prepared` a window's rows; `figures` and `watch` what is measured and judged; `publish` versions; `status` what people see.
"""
