//! [`Fault`]: why an instruction or access did not complete.

use rootmode_arch::event::{Exception, ExceptionSource, GuestPhysicalAccess};
use rootmode_arch::record::Stop;
use rootmode_arch::{Linear, vector};

/// Why an instruction, or an access on its behalf, did not complete. Nothing of it was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An exception to raise.
    Exception(Exception),
    /// The second stage refused an access; the engine offers it to the extension.
    SecondStage(GuestPhysicalAccess),
    /// The page-modification log has no room for a page that the access would make dirty.
    LogFull,
    /// The extension already left the guest: the processor is in host mode, nothing more happens.
    Left,
    /// The machine stops.
    Stop(Stop),
}

/// What the semantic functions answer.
pub type Result<T = (), E = Fault> = core::result::Result<T, E>;

impl Fault {
    /// A hardware exception without an error code.
    pub const fn exception(vector: u8) -> Self {
        Self::Exception(hardware(vector, None, 0))
    }
    /// A hardware exception with an error code.
    pub const fn with_code(vector: u8, code: u32) -> Self {
        Self::Exception(hardware(vector, Some(code), 0))
    }
    /// A hardware exception that an extension wants, with error code `code` if `vector` has one.
    pub(crate) const fn instead(vector: u8, code: u32) -> Self {
        match vector {
            vector::DF | vector::TS..=vector::GP | vector::AC | vector::VC => Self::with_code(vector, code),
            _ => Self::exception(vector),
        }
    }
    /// #UD.
    pub const UD: Self = Self::exception(vector::UD);
    /// #GP(0).
    pub const GP0: Self = Self::with_code(vector::GP, 0);
    /// #PF with `code` at `linear`.
    pub const fn page(linear: Linear, code: u32) -> Self {
        Self::Exception(hardware(vector::PF, Some(code), linear.0))
    }
}

const fn hardware(vector: u8, error_code: Option<u32>, detail: u64) -> Exception {
    Exception { vector, error_code, detail, source: ExceptionSource::Hardware, instruction_length: 0 }
}
