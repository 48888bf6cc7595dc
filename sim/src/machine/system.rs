//! [`System`]: what runs an image, the bare machine or the model of KVM.

use rootmode_cpu::board::Stopped;

use super::Machine;

/// Something that runs an image.
pub trait System {
    /// Time, in ticks.
    fn now(&self) -> u64;
    /// Runs until time reaches `limit`, or something stops it.
    fn run(&mut self, limit: u64) -> Stopped;
    /// What the guest printed since the last call: the serial port, then the debug console.
    fn take_output(&mut self) -> (Vec<u8>, Vec<u8>);
    /// Bytes for the guest's serial port, from outside.
    fn serial_input(&mut self, bytes: &[u8]);
    /// The fingerprint of its state.
    fn digest(&self) -> u128;
    /// How often it left its guests, if it is a hypervisor.
    fn exits(&self) -> Option<u64>;
    /// What a stop does not tell: why a hypervisor could not go on.
    fn trouble(&self) -> Option<&str>;
}

impl System for Machine {
    fn now(&self) -> u64 {
        self.board.now()
    }
    fn run(&mut self, limit: u64) -> Stopped {
        self.run(limit)
    }
    fn take_output(&mut self) -> (Vec<u8>, Vec<u8>) {
        self.take_output()
    }
    fn serial_input(&mut self, bytes: &[u8]) {
        self.serial_input(bytes);
    }
    fn digest(&self) -> u128 {
        self.board.digest()
    }
    fn exits(&self) -> Option<u64> {
        None
    }
    fn trouble(&self) -> Option<&str> {
        None
    }
}
