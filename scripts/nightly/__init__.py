"""The long tests: `./run nightly`.

What CI does in a minute goes on here for as long as it is given: random calls against plain Hugging
Face and against a model that is computed by hand, faults, damaged files, fuzzing, threads, soaks,
sanitizers, valgrind, coverage, mutants. `stages.py` is the list; `page.py` writes what came of it.
"""
