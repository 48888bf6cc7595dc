//! Processor state, decoding, execution, exceptions, and the board around it.
