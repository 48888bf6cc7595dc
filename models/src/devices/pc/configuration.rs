//! What a chipset is configured with, and the items through which firmware and guests learn it.

use super::super::acpi::tables;
use super::super::fw_cfg::{Items, item};
use super::super::rtc::Date;

/// Where RAM below 4 GiB ends at the latest: PCI memory follows.
pub const PCI_HOLE: u64 = 0xc000_0000;
/// Where firmware ends.
pub const FIRMWARE_END: u64 = 1 << 32;
/// Where the RAM that does not fit below goes on.
pub const HIGH_RAM: u64 = 1 << 32;

/// The machine around the chipset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Number of processors, 1 to 255.
    pub processors: u8,
    /// Bytes of RAM in all.
    pub memory: u64,
    /// What the real-time clock shows at tick 0.
    pub date: Date,
    /// Bytes of firmware, a number of whole pages that end at 4 GiB, so that a reset of the processors leads somewhere.
    /// 0: none; a reset stops the machine, and devices start as firmware would have left them.
    pub firmware: u64,
    /// The kernel's command line.
    pub command_line: String,
    /// The initial RAM disk.
    pub initrd: Vec<u8>,
    /// Further items and files (`opt/...`).
    pub items: Items,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            processors: 1,
            memory: 128 << 20,
            date: Date::default(),
            firmware: 0,
            command_line: String::new(),
            initrd: Vec::new(),
            items: Items::default(),
        }
    }
}

impl Configuration {
    /// Bytes of RAM from address 0 on, and from [`HIGH_RAM`] on.
    pub const fn ram(&self) -> (u64, u64) {
        if self.memory <= PCI_HOLE { (self.memory, 0) } else { (PCI_HOLE, self.memory - PCI_HOLE) }
    }

    /// The memory map as firmware reports it: (address, bytes, kind), kind 1 RAM, kind 2 reserved.
    pub fn memory_map(&self) -> Vec<(u64, u64, u32)> {
        let (below, above) = self.ram();
        let first = below.min(0xa_0000);
        let mut map = vec![(0, first, 1), (tables::LOW_MEMORY, 0x10_0000 - tables::LOW_MEMORY, 2)];
        if below > 0x10_0000 {
            map.push((0x10_0000, below - 0x10_0000, 1));
        }
        map.push((0xfec0_0000, 0x1_0000_0000 - 0xfec0_0000, 2));
        if above > 0 {
            map.push((HIGH_RAM, above, 1));
        }
        map
    }

    /// Everything that the configuration device offers.
    pub(super) fn fw_cfg(&self) -> Items {
        let mut items = self.items.clone();
        let processors = u16::from(self.processors).to_le_bytes();
        items.set(item::UUID, [0; 16]);
        items.set(item::RAM_SIZE, self.memory.to_le_bytes());
        items.set(item::NOGRAPHIC, 1_u16.to_le_bytes());
        items.set(item::NB_CPUS, processors);
        items.set(item::MAX_CPUS, processors);
        items.set(item::BOOT_MENU, 0_u16.to_le_bytes());
        items.set(item::IRQ0_OVERRIDE, 1_u32.to_le_bytes());
        let mut command_line = self.command_line.clone().into_bytes();
        command_line.push(0);
        items.set(item::CMDLINE_SIZE, (command_line.len() as u32).to_le_bytes());
        items.set(item::CMDLINE_DATA, command_line);
        items.set(item::INITRD_SIZE, (self.initrd.len() as u32).to_le_bytes());
        items.set(item::INITRD_DATA, self.initrd.clone());
        let map = self.memory_map();
        let entries = map.into_iter().filter(|(.., kind)| *kind == 1).flat_map(|(address, bytes, kind)| {
            [&address.to_le_bytes()[..], &bytes.to_le_bytes(), &kind.to_le_bytes()].concat()
        });
        items.file("etc/e820", entries.collect::<Vec<u8>>());
        let files = tables::files(self.processors);
        items.file("etc/acpi/rsdp", files.rsdp);
        items.file("etc/acpi/tables", files.tables);
        items.file("etc/table-loader", files.loader);
        items
    }
}
