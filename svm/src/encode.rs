//! What an exit writes into the VMCB: exit codes and the EXITINFO fields, put together and taken apart.

mod avic;
mod exit_code;
mod ioio;
mod npf;
mod registers;
mod task_switch;

pub use avic::{IncompleteIpi, IpiFailure, NoAcceleration};
pub use exit_code::{EXIT_CODES, ExitCode, ExitCodeRow};
pub use ioio::IoioInfo;
pub use npf::NpfInfo;
pub use registers::{MovCr, MovDr, SmiInfo};
pub use task_switch::TaskSwitchInfo;
