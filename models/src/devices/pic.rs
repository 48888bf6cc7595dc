//! The pair of 8259A interrupt controllers of a PC, with the edge/level registers of its south bridge.
//!
//! Sources: Intel 8259A data sheet (231468-003) "Initialization Command Words", "Operation Command Words", "Edge and Level
//! Triggered Modes", "Special Mask Mode"; Intel 82371AB (PIIX4) data sheet "ELCR1, ELCR2".

use rootmode_mmu::Digest;

/// The input of the master to which the slave's output is wired.
pub const CASCADE: u8 = 2;

/// Which initialization word a controller waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    /// Never initialized: nothing is delivered.
    #[default]
    PowerOn,
    Icw2,
    Icw3,
    Icw4,
    Ready,
}

/// One 8259A.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pic {
    /// Levels of the eight inputs.
    lines: u8,
    /// Edges seen since the last acknowledge.
    latched: u8,
    in_service: u8,
    mask: u8,
    /// Inputs that are level-triggered (ELCR).
    level: u8,
    /// Bits of the ELCR that exist.
    level_writable: u8,
    vector: u8,
    /// The input with the lowest priority.
    lowest: u8,
    step: Step,
    single: bool,
    wants_icw4: bool,
    automatic_eoi: bool,
    rotate_in_automatic_eoi: bool,
    special_mask: bool,
    special_fully_nested: bool,
    read_in_service: bool,
    poll: bool,
    /// The inputs that carry slaves (ICW3 of a master); 0 in a slave.
    slaves: u8,
    master: bool,
    /// KVM's: an edge counts although its line has fallen since.
    keeps_edges: bool,
}

/// One 8259A as KVM's clients save it; the fields are those of `struct kvm_pic_state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are KVM's")]
pub struct Saved {
    pub last_irr: u8,
    pub irr: u8,
    pub imr: u8,
    pub isr: u8,
    pub priority_add: u8,
    pub irq_base: u8,
    pub read_reg_select: bool,
    pub poll: bool,
    pub special_mask: bool,
    /// 0: initialized; 1 to 3: waits for ICW2 to ICW4.
    pub init_state: u8,
    pub auto_eoi: bool,
    pub rotate_on_auto_eoi: bool,
    pub special_fully_nested_mode: bool,
    pub init4: bool,
    pub elcr: u8,
    pub elcr_mask: u8,
}

impl Pic {
    fn new(master: bool, level_writable: u8) -> Self {
        Self {
            lines: 0,
            latched: 0,
            in_service: 0,
            mask: 0xff,
            level: 0,
            level_writable,
            vector: 0,
            lowest: 7,
            step: Step::PowerOn,
            single: false,
            wants_icw4: false,
            automatic_eoi: false,
            rotate_in_automatic_eoi: false,
            special_mask: false,
            special_fully_nested: false,
            read_in_service: false,
            poll: false,
            slaves: 0,
            master,
            keeps_edges: false,
        }
    }

    /// KVM's: without power-on state, cascaded for ever.
    fn kvm(master: bool, level_writable: u8) -> Self {
        let mut pic = Self { keeps_edges: true, ..Self::new(master, level_writable) };
        pic.restore(&Saved { elcr_mask: level_writable, ..Saved::default() });
        pic
    }

    const fn save(&self) -> Saved {
        Saved {
            last_irr: self.lines,
            irr: self.latched | self.lines & self.level,
            imr: self.mask,
            isr: self.in_service,
            priority_add: (self.lowest + 1) & 7,
            irq_base: self.vector,
            read_reg_select: self.read_in_service,
            poll: self.poll,
            special_mask: self.special_mask,
            init_state: match self.step {
                Step::PowerOn | Step::Ready => 0,
                Step::Icw2 => 1,
                Step::Icw3 => 2,
                Step::Icw4 => 3,
            },
            auto_eoi: self.automatic_eoi,
            rotate_on_auto_eoi: self.rotate_in_automatic_eoi,
            special_fully_nested_mode: self.special_fully_nested,
            init4: self.wants_icw4,
            elcr: self.level,
            elcr_mask: self.level_writable,
        }
    }

    const fn restore(&mut self, saved: &Saved) {
        self.lines = saved.last_irr;
        self.latched = saved.irr;
        self.mask = saved.imr;
        self.in_service = saved.isr;
        self.lowest = saved.priority_add.wrapping_sub(1) & 7;
        self.vector = saved.irq_base;
        self.read_in_service = saved.read_reg_select;
        self.poll = saved.poll;
        self.special_mask = saved.special_mask;
        self.step = match saved.init_state {
            1 => Step::Icw2,
            2 => Step::Icw3,
            3 => Step::Icw4,
            _ => Step::Ready,
        };
        self.automatic_eoi = saved.auto_eoi;
        self.rotate_in_automatic_eoi = saved.rotate_on_auto_eoi;
        self.special_fully_nested = saved.special_fully_nested_mode;
        self.wants_icw4 = saved.init4;
        self.single = false;
        (self.level, self.level_writable) = (saved.elcr, saved.elcr_mask);
        self.slaves = if self.master { 1 << CASCADE } else { 0 };
    }

    /// The interrupt request register. An edge counts while its line stays high: "the IR inputs must remain high until after
    /// the falling edge of the first INTA".
    const fn requests(&self) -> u8 {
        if self.keeps_edges {
            self.latched & !self.level | self.lines & self.level
        } else {
            self.lines & (self.latched | self.level)
        }
    }

    fn set_line(&mut self, input: u8, high: bool) {
        let bit = 1 << input;
        if !high {
            self.lines &= !bit;
            if !self.keeps_edges || self.level & bit != 0 {
                self.latched &= !bit;
            }
        } else if self.lines & bit == 0 {
            self.lines |= bit;
            self.latched |= bit;
        }
    }

    /// The inputs from the highest priority to the lowest.
    fn by_priority(&self) -> impl Iterator<Item = u8> + use<> {
        let lowest = self.lowest;
        (1..=8).map(move |i| (lowest + i) & 7)
    }

    /// The input that would be acknowledged now.
    fn pending(&self) -> Option<u8> {
        if self.step != Step::Ready {
            return None;
        }
        let requests = self.requests() & !self.mask;
        if requests == 0 {
            return None;
        }
        let blocking = if self.special_mask { self.in_service & !self.mask } else { self.in_service };
        for input in self.by_priority() {
            let bit = 1 << input;
            let nested = self.special_fully_nested && self.slaves & bit != 0;
            if blocking & bit != 0 && !nested {
                return None;
            }
            if requests & bit != 0 {
                return Some(input);
            }
            if blocking & bit != 0 {
                return None;
            }
        }
        None
    }

    /// The INT output.
    fn output(&self) -> bool {
        self.pending().is_some()
    }

    /// The first INTA cycle: the input, or 7 without one (spurious), for which no bit is set in service.
    fn acknowledge(&mut self) -> u8 {
        let Some(input) = self.pending() else { return 7 };
        let bit = 1 << input;
        self.latched &= !bit;
        if !self.automatic_eoi {
            self.in_service |= bit;
        } else if self.rotate_in_automatic_eoi {
            self.lowest = input;
        }
        input
    }

    /// The input that a non-specific EOI ends.
    fn highest_in_service(&self) -> Option<u8> {
        let ends = if self.special_mask { self.in_service & !self.mask } else { self.in_service };
        self.by_priority().find(|input| ends & 1 << input != 0)
    }

    fn end_of_interrupt(&mut self, input: Option<u8>, rotate: bool) {
        if let Some(input) = input {
            self.in_service &= !(1 << input);
            if rotate {
                self.lowest = input;
            }
        }
    }

    fn command(&mut self, value: u8) {
        if value & 0x10 != 0 {
            self.initialize(value);
        } else if value & 0x08 == 0 {
            self.operate(value);
        } else {
            // OCW3
            if value & 0x40 != 0 {
                self.special_mask = value & 0x20 != 0;
            }
            if value & 0x04 != 0 {
                self.poll = true;
            } else if value & 0x02 != 0 {
                self.read_in_service = value & 0x01 != 0;
            }
        }
    }

    /// ICW1. The edge-sense circuit is reset: a line that is high must fall and rise again. LTIM does not exist in the
    /// south bridge; the ELCR takes its place.
    fn initialize(&mut self, value: u8) {
        self.latched = 0;
        self.in_service = 0;
        self.mask = 0;
        self.lowest = 7;
        self.special_mask = false;
        self.read_in_service = false;
        self.poll = false;
        self.rotate_in_automatic_eoi = false;
        self.single = value & 0x02 != 0;
        self.wants_icw4 = value & 0x01 != 0;
        if !self.wants_icw4 {
            self.automatic_eoi = false;
            self.special_fully_nested = false;
        }
        self.step = Step::Icw2;
    }

    /// OCW2: rotate, specific, end of interrupt.
    fn operate(&mut self, value: u8) {
        let named = value & 7;
        match value >> 5 {
            0b000 => self.rotate_in_automatic_eoi = false,
            0b100 => self.rotate_in_automatic_eoi = true,
            0b001 => self.end_of_interrupt(self.highest_in_service(), false),
            0b101 => self.end_of_interrupt(self.highest_in_service(), true),
            0b011 => self.end_of_interrupt(Some(named), false),
            0b111 => self.end_of_interrupt(Some(named), true),
            0b110 => self.lowest = named,
            _ => {}
        }
    }

    /// Writes at A0 = 1: the rest of an initialization, or the mask (OCW1).
    fn data(&mut self, value: u8) {
        let last = if self.wants_icw4 { Step::Icw4 } else { Step::Ready };
        match self.step {
            Step::Icw2 => {
                self.vector = value & 0xf8;
                self.step = if self.single { last } else { Step::Icw3 };
            }
            Step::Icw3 => {
                self.slaves = if self.master { value } else { 0 };
                self.step = last;
            }
            Step::Icw4 => {
                self.automatic_eoi = value & 0x02 != 0;
                self.special_fully_nested = value & 0x10 != 0;
                self.step = Step::Ready;
            }
            Step::Ready | Step::PowerOn => self.mask = value,
        }
    }

    fn write(&mut self, a0: bool, value: u8) {
        if a0 { self.data(value) } else { self.command(value) }
    }

    fn read(&mut self, a0: bool) -> u8 {
        if std::mem::take(&mut self.poll) {
            return if self.output() { 0x80 | self.acknowledge() } else { 0 };
        }
        match (a0, self.read_in_service) {
            (true, _) => self.mask,
            (false, true) => self.in_service,
            (false, false) => self.requests(),
        }
    }

    fn digest(&self, digest: &mut Digest) {
        let flags = [
            self.single,
            self.wants_icw4,
            self.automatic_eoi,
            self.rotate_in_automatic_eoi,
            self.special_mask,
            self.special_fully_nested,
            self.read_in_service,
            self.poll,
        ];
        let flags = flags.iter().fold(0, |bits, flag| bits << 1 | u8::from(*flag));
        digest.bytes(&[
            self.lines,
            self.latched,
            self.in_service,
            self.mask,
            self.level,
            self.vector,
            self.lowest,
            self.step as u8,
            self.slaves,
            flags,
        ]);
    }
}

/// Master and slave. Inputs are numbered 0 to 15 as IRQs; IRQ 2 is taken by the slave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PicPair {
    master: Pic,
    slave: Pic,
}

impl Default for PicPair {
    fn default() -> Self {
        Self::new()
    }
}

impl PicPair {
    /// Both as after power-on: not initialized, everything masked.
    pub fn new() -> Self {
        // IRQs 0, 1, 2, 8 and 13 are edge-triggered for ever.
        Self { master: Pic::new(true, 0xf8), slave: Pic::new(false, 0xde) }
    }

    /// Sets the level of an IRQ line, 0 to 15 except [`CASCADE`].
    pub fn set_line(&mut self, irq: u8, high: bool) {
        match irq {
            CASCADE => {}
            0..8 => self.master.set_line(irq, high),
            _ => self.slave.set_line(irq & 7, high),
        }
        self.cascade();
    }

    /// KVM's in-kernel pair: initialized, everything unmasked, edges outlast their lines.
    pub fn kvm() -> Self {
        Self { master: Pic::kvm(true, 0xf8), slave: Pic::kvm(false, 0xde) }
    }

    /// The state of the master or of the slave.
    pub const fn save(&self, slave: bool) -> Saved {
        if slave { self.slave.save() } else { self.master.save() }
    }

    /// Replaces the state of the master or of the slave.
    pub fn restore(&mut self, slave: bool, saved: &Saved) {
        if slave { &mut self.slave } else { &mut self.master }.restore(saved);
        self.cascade();
    }

    fn cascade(&mut self) {
        let output = self.slave.output();
        self.master.set_line(CASCADE, output);
    }

    /// Whether an initialized controller has IRQ `irq` unmasked.
    pub fn accepts(&self, irq: u8) -> bool {
        let chip = if irq < 8 { &self.master } else { &self.slave };
        chip.step == Step::Ready && chip.mask & 1 << (irq & 7) == 0
    }

    /// The INTR output of the master.
    pub fn output(&self) -> bool {
        self.master.output()
    }

    /// The interrupt-acknowledge cycles: the vector. Without a request it is the master's or the slave's vector 7.
    pub fn acknowledge(&mut self) -> u8 {
        let input = self.master.acknowledge();
        let vector = if input == CASCADE && self.master.slaves & 1 << CASCADE != 0 {
            let vector = self.slave.vector.wrapping_add(self.slave.acknowledge());
            // The slave's output falls with its acknowledge; another of its requests is a new edge.
            self.master.set_line(CASCADE, false);
            vector
        } else {
            self.master.vector.wrapping_add(input)
        };
        self.cascade();
        vector
    }

    /// Reads one of the ports 0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1. A polled read acknowledges.
    pub fn read(&mut self, port: u16) -> u8 {
        let value = match port {
            0x20 | 0x21 => self.master.read(port & 1 != 0),
            0xa0 | 0xa1 => {
                let polled = self.slave.poll;
                let value = self.slave.read(port & 1 != 0);
                if polled {
                    self.master.set_line(CASCADE, false);
                }
                value
            }
            0x4d0 => self.master.level,
            0x4d1 => self.slave.level,
            _ => 0xff,
        };
        self.cascade();
        value
    }

    /// Writes one of these ports.
    pub fn write(&mut self, port: u16, value: u8) {
        match port {
            0x20 | 0x21 => self.master.write(port & 1 != 0, value),
            0xa0 | 0xa1 => self.slave.write(port & 1 != 0, value),
            0x4d0 => self.master.level = value & self.master.level_writable,
            0x4d1 => self.slave.level = value & self.slave.level_writable,
            _ => {}
        }
        self.cascade();
    }

    /// Adds the state to `digest`.
    pub fn digest(&self, digest: &mut Digest) {
        self.master.digest(digest);
        self.slave.digest(digest);
    }
}

#[cfg(test)]
mod tests;
