//! What is typed at the console: bytes for the guest, and a way out.

/// Ctrl-A, which begins a command.
const ESCAPE: u8 = 1;

/// What is printed at Ctrl-A h.
pub(super) const HELP: &str =
    "\nCtrl-A x ends the machine, Ctrl-A Ctrl-A sends Ctrl-A to the guest, Ctrl-A h shows this\n";

/// What a byte from the keyboard means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A byte for the guest.
    Byte(u8),
    /// End the machine.
    Quit,
    /// Show what there is.
    Help,
}

/// Reads commands out of what is typed, as QEMU's `-nographic` has them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Keys {
    escaped: bool,
}

impl Keys {
    /// What `byte` means; `None` if the next one decides.
    pub(super) fn press(&mut self, byte: u8) -> Option<Key> {
        let escaped = std::mem::replace(&mut self.escaped, false);
        match (escaped, byte) {
            (false, ESCAPE) => {
                self.escaped = true;
                None
            }
            (true, b'x' | b'X') => Some(Key::Quit),
            (true, b'h' | b'?') => Some(Key::Help),
            (true, b'a' | ESCAPE) => Some(Key::Byte(ESCAPE)),
            // An unknown command is nothing, as in QEMU.
            (true, _) => None,
            (false, byte) => Some(Key::Byte(byte)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_leads_out_and_is_no_byte_unless_doubled() {
        let mut keys = Keys::default();
        let mut typed = |bytes: &[u8]| bytes.iter().filter_map(|byte| keys.press(*byte)).collect::<Vec<_>>();
        assert_eq!(typed(b"a\x03"), [Key::Byte(b'a'), Key::Byte(3)]);
        assert_eq!(typed(b"x\x01"), [Key::Byte(b'x')]);
        assert_eq!(typed(b"x"), [Key::Quit], "the prefix may come alone");
        assert_eq!(typed(b"\x01\x01x\x01ax"), [1, b'x', 1, b'x'].map(Key::Byte));
        assert_eq!(typed(b"\x01h\x01zx"), [Key::Help, Key::Byte(b'x')]);
    }
}
