//! What an exit writes into the VMCB: exit codes and the EXITINFO fields, put together and taken apart.

mod exit_code;

pub use exit_code::{EXIT_CODES, ExitCode, ExitCodeRow};
