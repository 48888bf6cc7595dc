//! Traces and the text that Linux prints: formats, readers, writers.
