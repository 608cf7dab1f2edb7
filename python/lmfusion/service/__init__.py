"""A scorer behind HTTP: `lmfusion serve`, and what `lmfusion.Client` talks to (docs/service.md).

Data flows one way: `application` takes a request, `access` says whose it is, `body` reads it
within limits, `calls` and `completions` say what it asks, `admission` gives it one of the threads
that call the scorer, and `wire` writes the numbers. Needs the extra "serve".
"""
