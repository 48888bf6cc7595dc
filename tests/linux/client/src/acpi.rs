//! ACPI tables of the second Linux's machine: processors, an I/O APIC, power-off by a port
//! (ACPI 6.5, "Root System Description Pointer", "Fixed ACPI Description Table", "Multiple APIC Description Table").

use crate::kvm::Mapping;

/// Where the tables lie, and how much room they have.
pub(crate) const ADDRESS: u64 = 0xe_0000;
/// PM1's event block: the status, then the enables.
pub(crate) const EVENTS: std::ops::Range<u16> = 0x600..0x604;
/// PM1's enables, which Linux reads back.
pub(crate) const ENABLES: u16 = 0x602;
/// PM1's control register.
pub(crate) const CONTROL: u16 = 0x604;
/// Its value that asks for state S5 of the table below: SLP_EN and SLP_TYP.
pub(crate) const OFF: u32 = 1 << 13 | 5 << 10;

const XSDT: u64 = ADDRESS + 0x40;
const FADT: u64 = ADDRESS + 0x100;
const MADT: u64 = ADDRESS + 0x300;
const DSDT: u64 = ADDRESS + 0x600;
const FACS: u64 = ADDRESS + 0x700;
/// The header before each table's own fields.
const HEADER: usize = 36;

/// Writes all of them, for `count` processors.
pub(crate) fn write(memory: &Mapping, count: u8) {
    let put = |address: u64, table: &[u8]| memory.write(address as usize, table);
    let mut pointer = b"RSD PTR \0CLIENT\x02".to_vec();
    pointer.extend([0; 4]);
    pointer.extend(36_u32.to_le_bytes());
    pointer.extend(XSDT.to_le_bytes());
    pointer.extend([0; 4]);
    pointer[8] = checksum(&pointer[..20]);
    pointer[32] = checksum(&pointer);
    put(ADDRESS, &pointer);
    let tables: Vec<u8> = [FADT, MADT].iter().flat_map(|address| address.to_le_bytes()).collect();
    put(XSDT, &table(b"XSDT", 1, &tables));
    put(FADT, &table(b"FACP", 3, &fixed()));
    put(MADT, &table(b"APIC", 3, &interrupts(count)));
    // Name (_S5, Package () {5, 5, 0, 0})
    put(DSDT, &table(b"DSDT", 2, b"\x08_S5_\x12\x08\x04\x0a\x05\x0a\x05\x00\x00"));
    let mut facs = b"FACS".to_vec();
    facs.extend(64_u32.to_le_bytes());
    facs.resize(64, 0);
    put(FACS, &facs);
}

fn table(signature: &[u8; 4], revision: u8, fields: &[u8]) -> Vec<u8> {
    let mut bytes = signature.to_vec();
    bytes.extend(((HEADER + fields.len()) as u32).to_le_bytes());
    bytes.extend([revision, 0]);
    bytes.extend(b"CLIENTROOTMODE");
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(b"ROOT");
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(fields);
    bytes[9] = checksum(&bytes);
    bytes
}

/// The FADT without its header.
fn fixed() -> Vec<u8> {
    let mut bytes = vec![0; 244 - HEADER];
    let mut put =
        |offset: usize, value: &[u8]| bytes[offset - HEADER..][..value.len()].copy_from_slice(value);
    put(36, &(FACS as u32).to_le_bytes());
    put(40, &(DSDT as u32).to_le_bytes());
    // SCI_INT.
    put(46, &[9]);
    put(56, &EVENTS.start.to_le_bytes());
    put(64, &CONTROL.to_le_bytes());
    put(88, &[4, 2]);
    // No C2, no C3.
    put(96, &[0xff; 4]);
    // IAPC_BOOT_ARCH: legacy devices, no VGA, no clock in CMOS; no 8042 either.
    put(109, &[1 << 0 | 1 << 2 | 1 << 5]);
    // WBINVD works, C1 works; buttons are not fixed hardware.
    put(112, &[1 << 0 | 1 << 2 | 1 << 4 | 1 << 5]);
    bytes
}

/// The MADT without its header.
fn interrupts(count: u8) -> Vec<u8> {
    let mut bytes = 0xfee0_0000_u32.to_le_bytes().to_vec();
    // PCAT_COMPAT.
    bytes.extend([1, 0, 0, 0]);
    for id in 0..count {
        bytes.extend([0, 8, id, id, 1, 0, 0, 0]);
    }
    bytes.extend([1, 12, count, 0]);
    bytes.extend(0xfec0_0000_u32.to_le_bytes());
    bytes.extend([0; 4]);
    // NMI at LINT1 of all.
    bytes.extend([4, 6, 0xff, 0, 0, 1]);
    bytes
}

/// What makes the sum of `bytes` 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte))
}
