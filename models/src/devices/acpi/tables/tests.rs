//! The oracle reads the tables as a guest does: it knows offsets from the ACPI specification only.

use super::*;

/// Memory with the tables in it, read as kernels read them.
struct Memory(Vec<u8>);

impl Memory {
    fn bytes(&self, address: u64, length: usize) -> &[u8] {
        let at = (address - LOW_MEMORY) as usize;
        &self.0[at..at + length]
    }
    fn number(&self, address: u64, size: usize) -> u64 {
        self.bytes(address, size).iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }
    fn sum(&self, address: u64, length: usize) -> u8 {
        self.bytes(address, length).iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
    }
    /// A table by signature, through the RSDT (`size` 4) or the XSDT (`size` 8), with every checksum on the way.
    fn table(&self, signature: &[u8], size: usize) -> u64 {
        let root = self.number(LOW_MEMORY + if size == 4 { 16 } else { 24 }, size);
        let length = self.number(root + 4, 4);
        assert_eq!(self.sum(root, length as usize), 0);
        let found = (root + 36..root + length)
            .step_by(size)
            .map(|at| self.number(at, size))
            .find(|table| self.bytes(*table, 4) == signature)
            .expect("the table is listed");
        assert_eq!(self.sum(found, self.number(found + 4, 4) as usize), 0);
        found
    }
}

#[test]
fn a_guest_finds_every_table_with_right_checksums() {
    let memory = Memory(in_low_memory(4));
    assert_eq!(memory.bytes(LOW_MEMORY, 8), b"RSD PTR ");
    assert_eq!((memory.sum(LOW_MEMORY, 20), memory.sum(LOW_MEMORY, 36)), (0, 0));
    for signature in [b"FACP", b"APIC", b"HPET"] {
        assert_eq!(memory.table(signature, 4), memory.table(signature, 8));
    }
}

#[test]
fn the_hpet_table_names_the_block_and_its_address() {
    let memory = Memory(in_low_memory(1));
    let hpet = memory.table(b"HPET", 8);
    assert_eq!((memory.number(hpet + 4, 4), memory.number(hpet + 36, 4)), (56, 0x8086_a201));
    assert_eq!((memory.number(hpet + 40, 1), memory.number(hpet + 44, 8)), (0, 0xfed0_0000));
}

#[test]
fn the_fadt_names_the_ports_that_exist() {
    let memory = Memory(in_low_memory(1));
    let fadt = memory.table(b"FACP", 8);
    assert_eq!(memory.number(fadt + 4, 4), 244);
    assert_eq!(memory.number(fadt + 56, 4), 0x600);
    assert_eq!(memory.number(fadt + 64, 4), 0x604);
    assert_eq!(memory.number(fadt + 76, 4), 0x608);
    assert_eq!(memory.number(fadt + 212, 8), 0x608);
    assert_eq!((memory.number(fadt + 46, 2), memory.number(fadt + 48, 4)), (9, 0xb2));
    assert_eq!((memory.number(fadt + 120, 8), memory.number(fadt + 128, 1)), (0xcf9, 0x0e));
    let facs = memory.number(fadt + 36, 4);
    assert_eq!((memory.bytes(facs, 4), facs % 64), (&b"FACS"[..], 0));
    assert_eq!(memory.number(fadt + 132, 8), facs);
    let dsdt = memory.number(fadt + 40, 4);
    assert_eq!(memory.bytes(dsdt, 4), b"DSDT");
    assert_eq!(memory.sum(dsdt, memory.number(dsdt + 4, 4) as usize), 0);
    assert_eq!(memory.number(fadt + 140, 8), dsdt);
}

#[test]
fn the_madt_lists_processors_the_io_apic_and_the_overrides() {
    let memory = Memory(in_low_memory(3));
    let madt = memory.table(b"APIC", 4);
    let end = madt + memory.number(madt + 4, 4);
    let mut at = madt + 44;
    let mut entries = Vec::new();
    while at < end {
        let length = memory.number(at + 1, 1);
        entries.push(memory.bytes(at, length as usize).to_vec());
        at += length;
    }
    assert_eq!(at, end);
    for id in 0..3 {
        assert_eq!(entries[usize::from(id)], [0, 8, id, id, 1, 0, 0, 0]);
    }
    assert_eq!(entries[3], [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
    assert_eq!(entries[4], [2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
    assert_eq!(entries[5], [2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0]);
    assert_eq!(entries[6], [4, 6, 0xff, 0, 0, 1]);
    assert_eq!(entries.len(), 7);
}

#[test]
fn the_dsdt_defines_s5_with_sleep_type_0_and_lengths_that_fit() {
    let dsdt = aml::dsdt();
    let s5 = [0x08, b'\\', b'_', b'S', b'5', b'_', 0x12, 6, 4, 0, 0, 0, 0];
    assert!(dsdt.ends_with(&s5));
    // Scope (\_SB) spans exactly up to that name.
    assert_eq!(dsdt[0], 0x10);
    assert_eq!(dsdt[1] >> 6, 1, "a package length of two bytes");
    let length = usize::from(dsdt[1] & 15) | usize::from(dsdt[2]) << 4;
    assert_eq!(1 + length + s5.len(), dsdt.len());
    // PNP0501 as QEMU, Windows and Linux know it: 0x0105d041 in little-endian order.
    assert!(dsdt.windows(5).any(|w| w == [0x0c, 0x41, 0xd0, 0x05, 0x01]));
}

/// What firmware does with the script.
fn link(files: &Files, tables_at: u64, rsdp_at: u64) -> (Vec<u8>, Vec<u8>) {
    let mut loaded = [
        ("etc/acpi/rsdp", files.rsdp.clone(), rsdp_at),
        ("etc/acpi/tables", files.tables.clone(), tables_at),
    ];
    let text = |bytes: &[u8]| String::from_utf8(bytes.split(|b| *b == 0).next().unwrap().to_vec()).unwrap();
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
    for command in files.loader.chunks(128) {
        let file = loaded.iter().position(|(name, ..)| *name == text(&command[4..60])).unwrap();
        match word(command) {
            1 => assert_eq!(loaded[file].2 % word(&command[60..]) as u64, 0),
            2 => {
                let target = loaded.iter().position(|(name, ..)| *name == text(&command[60..116])).unwrap();
                let base = loaded[target].2;
                let (at, size) = (word(&command[116..]), usize::from(command[120]));
                let mut value = [0; 8];
                value[..size].copy_from_slice(&loaded[file].1[at..at + size]);
                let value = (u64::from_le_bytes(value) + base).to_le_bytes();
                loaded[file].1[at..at + size].copy_from_slice(&value[..size]);
            }
            3 => {
                let (at, start, length) = (word(&command[60..]), word(&command[64..]), word(&command[68..]));
                assert_eq!(loaded[file].1[at], 0);
                let sum = loaded[file].1[start..start + length].iter().fold(0_u8, |s, b| s.wrapping_add(*b));
                loaded[file].1[at] = sum.wrapping_neg();
            }
            other => panic!("command {other}"),
        }
    }
    let [rsdp, tables] = loaded;
    (rsdp.1, tables.1)
}

#[test]
fn firmware_that_follows_the_script_gets_what_loaders_place() {
    let low = in_low_memory(2);
    let (rsdp, tables) = link(&files(2), LOW_MEMORY + 64, LOW_MEMORY);
    assert_eq!(rsdp, low[..36]);
    assert_eq!(tables, low[64..]);
}
