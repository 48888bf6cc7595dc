//! The linker script that tells firmware where to put tables and which fields to patch (QEMU's `etc/table-loader`).

/// Bytes of one command.
const COMMAND: usize = 128;
/// Bytes of a file name, with its closing zero.
const NAME: usize = 56;

/// A script under construction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    bytes: Vec<u8>,
}

impl Script {
    fn command(&mut self, number: u32, fields: &[&[u8]]) {
        let end = self.bytes.len() + COMMAND;
        self.bytes.extend(number.to_le_bytes());
        for field in fields {
            self.bytes.extend(*field);
        }
        self.bytes.resize(end, 0);
    }

    /// Allocates memory for `file`, in the area that is searched for the RSDP (`low`) or anywhere high, and loads it.
    pub fn allocate(&mut self, file: &str, alignment: u32, low: bool) {
        self.command(1, &[&name(file), &alignment.to_le_bytes(), &[if low { 2 } else { 1 }]]);
    }

    /// Adds the address of `target` to the field of `size` bytes at `offset` in `file`.
    pub fn add_pointer(&mut self, file: &str, target: &str, offset: u32, size: u8) {
        self.command(2, &[&name(file), &name(target), &offset.to_le_bytes(), &[size]]);
    }

    /// Makes the bytes from `start` on sum up to zero by the byte at `offset`.
    pub fn add_checksum(&mut self, file: &str, offset: u32, start: u32, length: u32) {
        self.command(3, &[&name(file), &offset.to_le_bytes(), &start.to_le_bytes(), &length.to_le_bytes()]);
    }

    /// The file.
    pub fn bytes(self) -> Vec<u8> {
        self.bytes
    }
}

fn name(file: &str) -> [u8; NAME] {
    let mut name = [0; NAME];
    let length = file.len().min(NAME - 1);
    name[..length].copy_from_slice(&file.as_bytes()[..length]);
    name
}
