//! QEMU's firmware configuration device: what the machine is made of, as numbered items and named files.
//!
//! Source: QEMU documentation, docs/specs "QEMU Firmware Configuration (fw_cfg) Device". Items are read by the byte from port
//! 0x511, or copied into memory through the DMA interface at port 0x514. A port access has no memory, so a transfer is done at
//! the next deadline; the guest learns of its end in memory, as the specification demands.

use super::GuestMemory;
use rootmode_mmu::Digest;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The selector port; the data port follows it.
pub const SELECTOR: u16 = 0x510;
/// The data port.
pub const DATA: u16 = 0x511;
/// The DMA address register: 8 bytes, big-endian.
pub const DMA: u16 = 0x514;

/// Numbers of items (`FW_CFG_*` in QEMU and in kvm-unit-tests).
pub mod item {
    /// The text "QEMU".
    pub const SIGNATURE: u16 = 0x00;
    /// Which interfaces there are.
    pub const ID: u16 = 0x01;
    /// Machine's UUID, zeroes.
    pub const UUID: u16 = 0x02;
    /// RAM below 4 GiB and above, in bytes.
    pub const RAM_SIZE: u16 = 0x03;
    /// Whether there is no graphics console.
    pub const NOGRAPHIC: u16 = 0x04;
    /// Number of processors.
    pub const NB_CPUS: u16 = 0x05;
    /// Where the kernel is loaded.
    pub const KERNEL_ADDR: u16 = 0x07;
    /// Its size.
    pub const KERNEL_SIZE: u16 = 0x08;
    /// Where the initial RAM disk is loaded.
    pub const INITRD_ADDR: u16 = 0x0a;
    /// Its size.
    pub const INITRD_SIZE: u16 = 0x0b;
    /// Whether firmware shows a boot menu.
    pub const BOOT_MENU: u16 = 0x0e;
    /// Largest number of processors.
    pub const MAX_CPUS: u16 = 0x0f;
    /// The kernel's bytes.
    pub const KERNEL_DATA: u16 = 0x11;
    /// The initial RAM disk's bytes.
    pub const INITRD_DATA: u16 = 0x12;
    /// Size of the command line with its closing zero.
    pub const CMDLINE_SIZE: u16 = 0x14;
    /// The command line.
    pub const CMDLINE_DATA: u16 = 0x15;
    /// The directory of named files.
    pub const FILE_DIR: u16 = 0x19;
    /// The first named file.
    pub const FILE_FIRST: u16 = 0x20;
    /// IRQ 0 is wired to input 2 of the I/O APIC.
    pub const IRQ0_OVERRIDE: u16 = 0x8002;
}

/// Traditional interface and DMA.
const FEATURES: u32 = 3;

const DMA_ERROR: u32 = 1;
const DMA_READ: u32 = 2;
const DMA_SKIP: u32 = 4;
const DMA_SELECT: u32 = 8;
const DMA_WRITE: u32 = 16;

/// The items of a machine, fixed before it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Items {
    items: BTreeMap<u16, Vec<u8>>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Items {
    /// Sets a numbered item.
    pub fn set(&mut self, item: u16, bytes: impl Into<Vec<u8>>) {
        self.items.insert(item, bytes.into());
    }

    /// Sets a named file (`opt/...`, `etc/...`).
    pub fn file(&mut self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.files.insert(name.to_string(), bytes.into());
    }

    /// Numbers the files in the order of their names and writes the directory.
    fn assign(mut self) -> BTreeMap<u16, Vec<u8>> {
        let mut directory = (self.files.len() as u32).to_be_bytes().to_vec();
        for (number, (name, bytes)) in (item::FILE_FIRST..).zip(std::mem::take(&mut self.files)) {
            let mut padded = [0; 56];
            let length = name.len().min(55);
            padded[..length].copy_from_slice(&name.as_bytes()[..length]);
            directory.extend((bytes.len() as u32).to_be_bytes());
            directory.extend(number.to_be_bytes());
            directory.extend([0, 0]);
            directory.extend(padded);
            self.items.insert(number, bytes);
        }
        self.items.insert(item::SIGNATURE, b"QEMU".to_vec());
        self.items.insert(item::ID, FEATURES.to_le_bytes().to_vec());
        self.items.insert(item::FILE_DIR, directory);
        self.items
    }
}

/// The device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FwCfg {
    /// Shared with every snapshot: nothing in the machine changes them.
    items: Arc<BTreeMap<u16, Vec<u8>>>,
    selected: u16,
    offset: u32,
    dma_address: u64,
}

impl FwCfg {
    /// A device with these items.
    pub fn new(items: Items) -> Self {
        Self { items: Arc::new(items.assign()), selected: 0, offset: 0, dma_address: 0 }
    }

    fn select(&mut self, item: u16) {
        // The write channel of old machines is not there; its bit is ignored.
        self.selected = item & !0x4000;
        self.offset = 0;
    }

    fn next(&mut self) -> u8 {
        let byte = self.items.get(&self.selected).and_then(|bytes| bytes.get(self.offset as usize)).copied();
        self.offset = self.offset.saturating_add(u32::from(byte.is_some()));
        byte.unwrap_or(0)
    }

    /// Reads a byte of a port of the device. The DMA register reads as its signature.
    pub fn read(&mut self, port: u16) -> u8 {
        match port {
            DATA => self.next(),
            DMA..0x51c => b"QEMU CFG"[usize::from(port - DMA)],
            _ => 0xff,
        }
    }

    /// Writes `size` bytes to a port; true when a DMA transfer was started.
    pub fn write(&mut self, port: u16, size: u8, value: u32) -> bool {
        match (port, size) {
            (SELECTOR, 2) => self.select(value as u16),
            (DMA, 4) => self.dma_address = u64::from(value.swap_bytes()) << 32,
            (0x518, 4) => {
                self.dma_address = self.dma_address & !0xffff_ffff | u64::from(value.swap_bytes());
                return true;
            }
            _ => {}
        }
        false
    }

    /// Does the transfer whose descriptor's address was written: control, length and address, all big-endian.
    pub fn transfer(&mut self, memory: &mut impl GuestMemory) {
        let at = std::mem::take(&mut self.dma_address);
        let mut descriptor = [0; 16];
        memory.load(at, &mut descriptor);
        let [c0, c1, c2, c3, l0, l1, l2, l3, address @ ..] = descriptor;
        let control = u32::from_be_bytes([c0, c1, c2, c3]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let address = u64::from_be_bytes(address);
        if control & DMA_SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        let mut result = 0_u32;
        if control & DMA_READ != 0 {
            self.copy(address, length, memory);
        } else if control & DMA_WRITE != 0 {
            // No item is writable.
            result = DMA_ERROR;
        } else if control & DMA_SKIP != 0 {
            self.offset = self.offset.saturating_add(length);
        }
        memory.store(at, &result.to_be_bytes());
    }

    /// Copies the rest of the item and zeroes behind it, page by page so that a length costs no host memory.
    fn copy(&mut self, address: u64, length: u32, memory: &mut impl GuestMemory) {
        let empty = Vec::new();
        let item = self.items.get(&self.selected).unwrap_or(&empty);
        let rest = item.get(self.offset as usize..).unwrap_or(&[]);
        let from_item = rest.len().min(length as usize);
        memory.store(address, &rest[..from_item]);
        let mut done = from_item as u64;
        while done < u64::from(length) {
            let count = (u64::from(length) - done).min(4096);
            memory.store(address.wrapping_add(done), &[0; 4096][..count as usize]);
            done += count;
        }
        self.offset = self.offset.saturating_add(from_item as u32);
    }

    /// Adds the state to `digest`; the items are configuration.
    pub fn digest(&self, digest: &mut Digest) {
        digest.all(&[u64::from(self.selected), u64::from(self.offset), self.dma_address]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootmode_arch::HostPhysical;
    use rootmode_mmu::PhysicalMemory;

    fn device() -> FwCfg {
        let mut items = Items::default();
        items.set(item::NB_CPUS, 4_u16.to_le_bytes());
        items.file("opt/b", b"second".to_vec());
        items.file("etc/a", b"first".to_vec());
        FwCfg::new(items)
    }

    fn read(device: &mut FwCfg, item: u16, count: usize) -> Vec<u8> {
        device.write(SELECTOR, 2, u32::from(item));
        (0..count).map(|_| device.read(DATA)).collect()
    }

    #[test]
    fn selecting_an_item_starts_it_and_zeroes_follow_its_end() {
        let mut device = device();
        assert_eq!(read(&mut device, item::SIGNATURE, 5), b"QEMU\0");
        assert_eq!(read(&mut device, item::ID, 4), [3, 0, 0, 0]);
        assert_eq!(read(&mut device, item::NB_CPUS, 3), [4, 0, 0]);
        assert_eq!(read(&mut device, 0x7777, 2), [0, 0]);
    }

    #[test]
    fn the_directory_lists_files_by_name_in_big_endian_numbers() {
        let mut device = device();
        let directory = read(&mut device, item::FILE_DIR, 4 + 2 * 64);
        assert_eq!(directory[..4], [0, 0, 0, 2]);
        assert_eq!(directory[4..18], *b"\0\0\0\x05\0\x20\0\0etc/a\0");
        assert_eq!(directory[68..82], *b"\0\0\0\x06\0\x21\0\0opt/b\0");
        assert_eq!(read(&mut device, 0x21, 6), b"second");
    }

    fn dma(
        device: &mut FwCfg,
        memory: &mut PhysicalMemory,
        control: u32,
        length: u32,
        address: u64,
    ) -> [u8; 4] {
        memory.write(HostPhysical(0x100), &control.to_be_bytes());
        memory.write(HostPhysical(0x104), &length.to_be_bytes());
        memory.write(HostPhysical(0x108), &address.to_be_bytes());
        assert!(!device.write(DMA, 4, 0));
        assert!(device.write(0x518, 4, 0x100_u32.swap_bytes()));
        device.transfer(memory);
        let mut control = [0; 4];
        memory.read(HostPhysical(0x100), &mut control);
        control
    }

    #[test]
    fn dma_selects_skips_copies_and_reports_in_memory() {
        let mut device = device();
        let mut memory = PhysicalMemory::new();
        memory.add_ram(HostPhysical(0), 0x10000).unwrap();
        memory.write(HostPhysical(0x2000), &[0xee; 16]);
        assert_eq!(dma(&mut device, &mut memory, 0x21 << 16 | DMA_SELECT | DMA_SKIP, 2, 0), [0; 4]);
        assert_eq!(dma(&mut device, &mut memory, DMA_READ, 8, 0x2000), [0; 4]);
        let mut copied = [0; 9];
        memory.read(HostPhysical(0x2000), &mut copied);
        assert_eq!(copied, *b"cond\0\0\0\0\xee");
        assert_eq!(dma(&mut device, &mut memory, DMA_WRITE, 8, 0x2000), [0, 0, 0, 1]);
    }

    #[test]
    fn the_dma_register_reads_as_its_signature() {
        let mut device = device();
        let signature: Vec<u8> = (DMA..DMA + 8).map(|port| device.read(port)).collect();
        assert_eq!(signature, b"QEMU CFG");
    }

    #[test]
    fn a_wild_descriptor_or_length_is_harmless() {
        let mut device = device();
        let mut memory = PhysicalMemory::new();
        memory.add_ram(HostPhysical(0), 0x10000).unwrap();
        device.write(DMA, 4, u32::MAX);
        device.write(0x518, 4, u32::MAX);
        device.transfer(&mut memory);
        dma(&mut device, &mut memory, 0x20 << 16 | DMA_SELECT | DMA_READ, 0x10_0000, 0xff00);
    }
}
