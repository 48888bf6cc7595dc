//! The tables: RSDP, RSDT, XSDT, FADT, FACS, MADT, HPET and a DSDT with `\_S5`, as bytes at their place in low memory and as the
//! relocatable files that firmware fetches.
//!
//! Sources: ACPI 6.4 "Root System Description Pointer", "System Description Table Header", "Fixed ACPI Description Table",
//! "Multiple APIC Description Table", "ACPI Machine Language (AML) Specification"; IA-PC HPET 1.0a
//! "The ACPI 2.0 HPET Description Table (HPET)"; QEMU docs, specs/acpi_... "table loader".

mod aml;
mod loader;

use super::power;
use crate::devices::{hpet, ioapic};

pub use loader::Script;

/// Where loaders put the tables: the upper BIOS area, which is searched for the RSDP.
pub const LOW_MEMORY: u64 = 0xe_0000;
/// Bytes of an RSDP of revision 2.
const RSDP_SIZE: usize = 36;

const OEM: &[u8; 6] = b"ROOTMD";
const OEM_TABLE: &[u8; 8] = b"ROOTMODE";

/// A field that holds the address of something else in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pointer {
    /// Offset of the field.
    at: usize,
    /// Bytes of the field.
    size: u8,
}

/// A checksum byte and what it covers, as offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Checksum {
    at: usize,
    start: usize,
    end: usize,
}

/// The tables as one block whose addresses count from 0, and how to move it.
#[derive(Clone, Debug, Default)]
struct Block {
    bytes: Vec<u8>,
    pointers: Vec<Pointer>,
    checksums: Vec<Checksum>,
}

impl Block {
    fn align(&mut self, to: usize) -> usize {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
        self.bytes.len()
    }

    /// Appends a table with this body after its header; its offset.
    fn table(&mut self, signature: &[u8; 4], revision: u8, body: &[u8]) -> usize {
        let at = self.align(16);
        let length = 36 + body.len();
        self.bytes.extend(signature);
        self.bytes.extend((length as u32).to_le_bytes());
        self.bytes.extend([revision, 0]);
        self.bytes.extend(OEM);
        self.bytes.extend(OEM_TABLE);
        self.bytes.extend(1_u32.to_le_bytes());
        self.bytes.extend(b"RTMD");
        self.bytes.extend(1_u32.to_le_bytes());
        self.bytes.extend(body);
        self.checksums.push(Checksum { at: at + 9, start: at, end: at + length });
        at
    }

    fn pointer(&mut self, at: usize, size: u8) {
        self.pointers.push(Pointer { at, size });
    }

    /// Adds `base` to every pointer and makes every checksum right.
    fn place(&mut self, base: u64) {
        for pointer in &self.pointers {
            let size = usize::from(pointer.size);
            let mut value = [0; 8];
            value[..size].copy_from_slice(&self.bytes[pointer.at..pointer.at + size]);
            let value = (u64::from_le_bytes(value) + base).to_le_bytes();
            self.bytes[pointer.at..pointer.at + size].copy_from_slice(&value[..size]);
        }
        for checksum in &self.checksums {
            self.bytes[checksum.at] = 0;
            let sum =
                self.bytes[checksum.start..checksum.end].iter().fold(0_u8, |sum, b| sum.wrapping_add(*b));
            self.bytes[checksum.at] = sum.wrapping_neg();
        }
    }
}

/// Every table but the RSDP; the offsets of RSDT and XSDT.
fn block(processors: u8) -> (Block, usize, usize) {
    let mut block = Block::default();
    let dsdt = block.table(b"DSDT", 2, &aml::dsdt());
    let facs = block.align(64);
    block.bytes.extend(facs_bytes());
    let fadt = block.table(b"FACP", 3, &fadt_body(facs, dsdt));
    for (at, size) in [(36, 4), (40, 4), (132, 8), (140, 8)] {
        block.pointer(fadt + at, size);
    }
    let madt = block.table(b"APIC", 3, &madt_body(processors));
    let hpet = block.table(b"HPET", 1, &hpet_body());
    let tables = [fadt, madt, hpet];
    let rsdt_body: Vec<u8> = tables.iter().flat_map(|at| (*at as u32).to_le_bytes()).collect();
    let xsdt_body: Vec<u8> = tables.iter().flat_map(|at| (*at as u64).to_le_bytes()).collect();
    let rsdt = block.table(b"RSDT", 1, &rsdt_body);
    let xsdt = block.table(b"XSDT", 1, &xsdt_body);
    for index in 0..tables.len() {
        block.pointer(rsdt + 36 + 4 * index, 4);
        block.pointer(xsdt + 36 + 8 * index, 8);
    }
    (block, rsdt, xsdt)
}

/// An RSDP that points to offsets.
fn rsdp(rsdt: usize, xsdt: usize) -> Block {
    let mut block = Block::default();
    block.bytes.extend(b"RSD PTR ");
    block.bytes.push(0);
    block.bytes.extend(OEM);
    block.bytes.push(2);
    block.bytes.extend((rsdt as u32).to_le_bytes());
    block.bytes.extend((RSDP_SIZE as u32).to_le_bytes());
    block.bytes.extend((xsdt as u64).to_le_bytes());
    block.bytes.resize(RSDP_SIZE, 0);
    block.pointer(16, 4);
    block.pointer(24, 8);
    block.checksums.push(Checksum { at: 8, start: 0, end: 20 });
    block.checksums.push(Checksum { at: 32, start: 0, end: RSDP_SIZE });
    block
}

fn facs_bytes() -> [u8; 64] {
    let mut facs = [0; 64];
    facs[..4].copy_from_slice(b"FACS");
    facs[4] = 64;
    facs[32] = 1;
    facs
}

/// A FADT of revision 3 (244 bytes), without its header.
fn fadt_body(facs: usize, dsdt: usize) -> Vec<u8> {
    let mut fadt = vec![0; 244];
    let mut put = |at: usize, bytes: &[u8]| fadt[at..at + bytes.len()].copy_from_slice(bytes);
    let port = |port: u16| u32::from(port).to_le_bytes();
    put(36, &(facs as u32).to_le_bytes());
    put(40, &(dsdt as u32).to_le_bytes());
    put(44, &[1]); // the model of an MP system, as in ACPI 1.0
    put(46, &u16::from(power::SCI_IRQ).to_le_bytes());
    put(48, &port(power::SMI_COMMAND));
    put(52, &[power::ACPI_ENABLE, power::ACPI_DISABLE]);
    put(56, &port(power::BASE));
    put(64, &port(power::BASE + 4));
    put(76, &port(power::TIMER));
    put(88, &[4, 2, 0, 4]); // lengths of event, control, PM2 and timer blocks
    put(96, &0xfff_u16.to_le_bytes()); // C2 and C3 are not supported
    put(98, &0xfff_u16.to_le_bytes());
    put(108, &[0x32]); // the century byte of the CMOS RAM
    put(109, &3_u16.to_le_bytes()); // legacy devices and an 8042
    // WBINVD works, C1 everywhere, no sleep button, reset register.
    put(112, &(1_u32 | 1 << 2 | 1 << 5 | 1 << 10).to_le_bytes());
    put(116, &[1, 8, 0, 1]);
    put(120, &0xcf9_u64.to_le_bytes());
    put(128, &[0x0e]);
    put(132, &(facs as u64).to_le_bytes());
    put(140, &(dsdt as u64).to_le_bytes());
    for (at, bits, address) in [(148, 32, power::BASE), (172, 16, power::BASE + 4), (208, 32, power::TIMER)] {
        put(at, &[1, bits, 0, if bits == 16 { 2 } else { 3 }]);
        put(at + 4, &u64::from(address).to_le_bytes());
    }
    fadt.split_off(36)
}

/// The event timers' block: its identification, where it lies in memory, the number of the block, and the shortest period that
/// loses no interrupt, in counts.
fn hpet_body() -> Vec<u8> {
    let mut body = hpet::BLOCK_ID.to_le_bytes().to_vec();
    body.extend([0, 64, 0, 0]);
    body.extend(hpet::BASE.to_le_bytes());
    body.push(0);
    body.extend(128_u16.to_le_bytes());
    body.push(0);
    body
}

/// Local APICs, the I/O APIC, the overrides of a PC and LINT1 as NMI.
fn madt_body(processors: u8) -> Vec<u8> {
    let mut madt = Vec::new();
    madt.extend(0xfee0_0000_u32.to_le_bytes());
    madt.extend(1_u32.to_le_bytes()); // two 8259s are present
    for id in 0..processors {
        madt.extend([0, 8, id, id]);
        madt.extend(1_u32.to_le_bytes());
    }
    madt.extend([1, 12, 0, 0]);
    madt.extend((ioapic::BASE as u32).to_le_bytes());
    madt.extend(0_u32.to_le_bytes());
    // IRQ 0 is wired to input 2; the SCI is a high-active level.
    for (irq, input, flags) in [(0, 2, 0_u16), (power::SCI_IRQ, u32::from(power::SCI_IRQ), 0x000d)] {
        madt.extend([2, 10, 0, irq]);
        madt.extend(input.to_le_bytes());
        madt.extend(flags.to_le_bytes());
    }
    madt.extend([4, 6, 0xff, 0, 0, 1]);
    madt
}

/// The tables with their addresses, to be written to [`LOW_MEMORY`]; the RSDP comes first.
pub fn in_low_memory(processors: u8) -> Vec<u8> {
    let tables_at = LOW_MEMORY + 64;
    let (mut tables, rsdt, xsdt) = block(processors);
    tables.place(tables_at);
    let mut rsdp = rsdp(rsdt, xsdt);
    rsdp.place(tables_at);
    rsdp.bytes.resize(64, 0);
    rsdp.bytes.extend(tables.bytes);
    rsdp.bytes
}

/// The same for firmware: what it places itself, with the script that tells it how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// `etc/acpi/rsdp`.
    pub rsdp: Vec<u8>,
    /// `etc/acpi/tables`.
    pub tables: Vec<u8>,
    /// `etc/table-loader`.
    pub loader: Vec<u8>,
}

/// The files for firmware.
pub fn files(processors: u8) -> Files {
    const RSDP: &str = "etc/acpi/rsdp";
    const TABLES: &str = "etc/acpi/tables";
    let (mut tables, rsdt, xsdt) = block(processors);
    let mut rsdp = rsdp(rsdt, xsdt);
    let mut script = Script::default();
    // FACS wants 64 bytes; the RSDP must lie where the BIOS area is searched.
    script.allocate(TABLES, 64, false);
    script.allocate(RSDP, 16, true);
    for (file, block) in [(TABLES, &mut tables), (RSDP, &mut rsdp)] {
        for pointer in &block.pointers {
            script.add_pointer(file, TABLES, pointer.at as u32, pointer.size);
        }
        for checksum in &block.checksums {
            block.bytes[checksum.at] = 0;
            let length = (checksum.end - checksum.start) as u32;
            script.add_checksum(file, checksum.at as u32, checksum.start as u32, length);
        }
    }
    Files { rsdp: rsdp.bytes, tables: tables.bytes, loader: script.bytes() }
}

#[cfg(test)]
mod tests;
