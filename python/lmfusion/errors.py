"""Errors of the Python side of lmfusion; the core's own errors come from `lmfusion._core`."""


class ExportError(RuntimeError):
    """A model cannot be exported exactly; the text says why and what can be done."""
