//! The x86 architecture as types and tables: no behaviour, no_std.
