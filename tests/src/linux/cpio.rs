//! An initial RAM disk as Linux unpacks it: cpio archives of the "new ASCII" form
//! (Linux 6.12, Documentation/driver-api/early-userspace/buffer-format.rst).

const DIRECTORY: u32 = 0o040_755;
const CHARACTERS: u32 = 0o020_600;
const LINK: u32 = 0o120_777;
const PROGRAM: u32 = 0o100_755;

/// An archive that is being written. Equal calls make equal bytes: there are no times, owners or inode numbers in it.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    pub(super) fn folder(&mut self, name: &str) {
        self.entry(name, DIRECTORY, (0, 0), &[]);
    }

    pub(super) fn program(&mut self, name: &str, contents: &[u8]) {
        self.entry(name, PROGRAM, (0, 0), contents);
    }

    pub(super) fn link(&mut self, name: &str, target: &str) {
        self.entry(name, LINK, (0, 0), target.as_bytes());
    }

    pub(super) fn character_device(&mut self, name: &str, major: u32, minor: u32) {
        self.entry(name, CHARACTERS, (major, minor), &[]);
    }

    /// The archive, with its end.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.entries += 1;
        let name_size = name.len() as u32 + 1;
        // Inode, mode, owner, group, links, time, size, device, device of a special file, size of the name, no checksum.
        let fields =
            [self.entries, mode, 0, 0, 1, 0, contents.len() as u32, 0, 0, device.0, device.1, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_header_a_name_and_contents_each_padded_to_four_bytes() {
        let mut archive = Archive::default();
        archive.program("init", b"#!x\n.");
        let bytes = archive.finish();
        // 110 bytes of header, "init\0" and a byte of padding; five bytes and three of padding.
        assert_eq!(bytes[..6], *b"070701");
        assert_eq!(bytes[14..22], *b"000081ED", "a regular file that all may execute");
        assert_eq!(bytes[54..62], *b"00000005");
        assert_eq!(bytes[94..102], *b"00000005", "the name, with its end");
        assert_eq!(bytes[110..116], *b"init\0\0");
        assert_eq!(bytes[116..124], *b"#!x\n.\0\0\0");
        assert_eq!(bytes[124..130], *b"070701");
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.ends_with(b"TRAILER!!!\0\0\0\0"));
    }
}
