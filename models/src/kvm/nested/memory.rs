//! [`GuestMemory`]: L1's memory, as L0 reads its maps.

/// L1's memory does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("guest-physical address {address:#x} cannot be read")]
pub struct Unreadable {
    /// Guest-physical address of the read.
    pub address: u64,
}

/// Reads L1's memory. An implementation may count and check the addresses.
pub trait GuestMemory {
    /// Copies from guest-physical `address` on.
    ///
    /// # Errors
    /// [`Unreadable`] if not all of it can be read; then `buffer` holds nothing of use.
    fn read(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), Unreadable>;
}
