//! Prints a VMCS or VMCB as KVM of a given kernel does, with everything that kernel leaves out.
//!
//! Written against the format strings and conditions of the kernels' `dump_vmcs` and `dump_vmcb`, not from the
//! reader's tables, so that printing and reading check each other. `traces/FORMAT.md` has the comparison.

use std::fmt::Write as _;

use super::types::MsrEntry;

/// A kernel whose dump can be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kernel {
    /// Linux 5.4.
    V5_4,
    /// Linux 5.10.
    V5_10,
    /// Linux 5.15.
    V5_15,
    /// Linux 6.1.
    V6_1,
    /// Linux 6.6.
    V6_6,
    /// Linux 6.12.
    V6_12,
}

impl Kernel {
    /// All of them, oldest first.
    pub const ALL: [Self; 6] = [Self::V5_4, Self::V5_10, Self::V5_15, Self::V6_1, Self::V6_6, Self::V6_12];

    /// What the kernel puts before every message of the module.
    fn prefix(self, old: &'static str, module: &'static str) -> &'static str {
        if self >= Self::V6_6 { module } else { old }
    }
}

/// What a dump of a VMCS depends on beside the VMCS and the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmcsSurroundings {
    /// The processor has secondary processor-based controls; without, KVM takes them for 0.
    pub has_secondary_controls: bool,
    /// The processor has tertiary processor-based controls; without, KVM takes them for 0.
    pub has_tertiary_controls: bool,
    /// The processor has EPT.
    pub has_ept: bool,
    /// The processor can load IA32_PERF_GLOBAL_CTRL on entry and exit.
    pub has_perf_global_ctrl: bool,
    /// The guest's EFER as KVM keeps it.
    pub guest_efer: u64,
    /// VM-entry MSR-load list.
    pub entry_load: Vec<MsrEntry>,
    /// VM-exit MSR-store list with the last values stored.
    pub exit_store: Vec<MsrEntry>,
    /// VM-exit MSR-load list.
    pub exit_load: Vec<MsrEntry>,
    /// The VMCS region's address as printed with `%p` (hashed).
    pub address: u64,
    /// Processor of the last attempt.
    pub host_cpu: u32,
}

impl Default for VmcsSurroundings {
    /// A processor with everything, no MSR lists, processor 0.
    fn default() -> Self {
        Self {
            has_secondary_controls: true,
            has_tertiary_controls: true,
            has_ept: true,
            has_perf_global_ctrl: true,
            guest_efer: 0,
            entry_load: Vec::new(),
            exit_store: Vec::new(),
            exit_load: Vec::new(),
            address: 0x5eed_cafe,
            host_cpu: 0,
        }
    }
}

// Bits of control fields that decide what is printed: SDM Vol. 3C "VM-Execution Control Fields", "VM-Exit Control
// Fields", "VM-Entry Control Fields".
const PIN_POSTED_INTERRUPTS: u64 = 1 << 7;
const CPU_TPR_SHADOW: u64 = 1 << 21;
const SECONDARY_APIC_ACCESSES: u64 = 1 << 0;
const SECONDARY_EPT: u64 = 1 << 1;
const SECONDARY_VPID: u64 = 1 << 5;
const SECONDARY_VIRTUAL_INTERRUPTS: u64 = 1 << 9;
const SECONDARY_PAUSE_LOOP: u64 = 1 << 10;
const SECONDARY_EPT_VIOLATION_VE: u64 = 1 << 18;
const SECONDARY_TSC_SCALING: u64 = 1 << 25;
const ENTRY_IA32E: u64 = 1 << 9;
const ENTRY_LOAD_PERF: u64 = 1 << 13;
const ENTRY_LOAD_PAT: u64 = 1 << 14;
const ENTRY_LOAD_EFER: u64 = 1 << 15;
const ENTRY_LOAD_BNDCFGS: u64 = 1 << 16;
const EXIT_LOAD_PERF: u64 = 1 << 12;
const EXIT_SAVE_PAT: u64 = 1 << 18;
const EXIT_LOAD_PAT: u64 = 1 << 19;
const EXIT_SAVE_EFER: u64 = 1 << 20;
const EXIT_LOAD_EFER: u64 = 1 << 21;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const MSR_EFER: u32 = 0xc000_0080;

/// Lines of a kernel log under construction.
struct Log {
    text: String,
    prefix: &'static str,
}

impl Log {
    /// A message with the module's prefix, without the line's end.
    fn begin(&mut self, message: std::fmt::Arguments<'_>) {
        // A continuation that never came leaves its line open; the next message ends it.
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        self.text.push_str(self.prefix);
        self.text.write_fmt(message).expect("writing to a String does not fail");
    }

    /// A whole message.
    fn line(&mut self, message: std::fmt::Arguments<'_>) {
        self.begin(message);
        self.text.push('\n');
    }

    /// A continuation up to the line's end; without a line to continue it stands alone and has no prefix.
    fn finish(&mut self, message: std::fmt::Arguments<'_>) {
        self.text.write_fmt(message).expect("writing to a String does not fail");
        self.text.push('\n');
    }

    fn msrs(&mut self, name: &str, list: &[MsrEntry]) {
        if list.is_empty() {
            return;
        }
        self.line(format_args!("MSR {name}:"));
        for (i, MsrEntry { index, value }) in list.iter().enumerate() {
            self.line(format_args!("  {i:2}: msr=0x{index:08x} value=0x{value:016x}"));
        }
    }
}

/// The text that this kernel's `dump_vmcs` writes to its log, one message a line, without time stamps.
/// `field` gives the value of the field with an encoding (SDM Vol. 3D "Field Encoding in VMCS").
pub fn print_vmcs(kernel: Kernel, surroundings: &VmcsSurroundings, field: &dyn Fn(u32) -> u64) -> String {
    let v = |encoding| field(encoding);
    let newer = kernel >= Kernel::V5_15;
    let entry = v(0x4012);
    let exit = v(0x400c);
    let pin = v(0x4000);
    let cpu = v(0x4002);
    let secondary = if surroundings.has_secondary_controls { v(0x401e) } else { 0 };
    let tertiary = if surroundings.has_tertiary_controls { v(0x2034) } else { 0 };
    let mut log = Log { text: String::new(), prefix: kernel.prefix("", "kvm_intel: ") };
    if newer {
        let VmcsSurroundings { address, host_cpu, .. } = surroundings;
        log.line(format_args!("VMCS {address:016x}, last attempted VM-entry on CPU {host_cpu}"));
    }
    log.line(format_args!("*** Guest State ***"));
    for (name, actual, shadow, mask) in [("CR0", 0x6800, 0x6004, 0x6000), ("CR4", 0x6804, 0x6006, 0x6002)] {
        let (actual, shadow, mask) = (v(actual), v(shadow), v(mask));
        log.line(format_args!("{name}: actual=0x{actual:016x}, shadow=0x{shadow:016x}, gh_mask={mask:016x}"));
    }
    log.line(format_args!("CR3 = 0x{:016x}", v(0x6802)));
    let pdptrs = if newer {
        surroundings.has_ept
    } else {
        secondary & SECONDARY_EPT != 0 && v(0x6804) & CR4_PAE != 0 && v(0x2806) & EFER_LMA == 0
    };
    if pdptrs {
        log.line(format_args!("PDPTR0 = 0x{:016x}  PDPTR1 = 0x{:016x}", v(0x280a), v(0x280c)));
        log.line(format_args!("PDPTR2 = 0x{:016x}  PDPTR3 = 0x{:016x}", v(0x280e), v(0x2810)));
    }
    log.line(format_args!("RSP = 0x{:016x}  RIP = 0x{:016x}", v(0x681c), v(0x681e)));
    log.line(format_args!("RFLAGS=0x{:08x}         DR7 = 0x{:016x}", v(0x6820), v(0x681a)));
    let sysenter = |log: &mut Log, rsp, cs, rip| {
        log.line(format_args!("Sysenter RSP={:016x} CS:RIP={:04x}:{:016x}", v(rsp), v(cs), v(rip)));
    };
    sysenter(&mut log, 0x6824, 0x482a, 0x6826);
    let segment = |log: &mut Log, name: &str, index: u32| {
        let (selector, rights) = (v(0x0800 + index), v(0x4814 + index));
        let (limit, base) = (v(0x4800 + index), v(0x6806 + index));
        log.line(format_args!(
            "{name:<5} sel=0x{selector:04x}, attr=0x{rights:05x}, limit=0x{limit:08x}, base=0x{base:016x}"
        ));
    };
    let table = |log: &mut Log, name: &str, limit, base| {
        let blank = " ".repeat(27);
        log.line(format_args!("{name}{blank}limit=0x{:08x}, base=0x{:016x}", v(limit), v(base)));
    };
    for (name, index) in [("CS:", 2), ("DS:", 6), ("SS:", 4), ("ES:", 0), ("FS:", 8), ("GS:", 10)] {
        segment(&mut log, name, index);
    }
    table(&mut log, "GDTR:", 0x4810, 0x6816);
    segment(&mut log, "LDTR:", 12);
    table(&mut log, "IDTR:", 0x4812, 0x6818);
    segment(&mut log, "TR:", 14);
    guest_efer_and_pat(&mut log, newer, surroundings, field);
    log.line(format_args!("DebugCtl = 0x{:016x}  DebugExceptions = 0x{:016x}", v(0x2802), v(0x6822)));
    if surroundings.has_perf_global_ctrl && entry & ENTRY_LOAD_PERF != 0 {
        log.line(format_args!("PerfGlobCtl = 0x{:016x}", v(0x2808)));
    }
    if entry & ENTRY_LOAD_BNDCFGS != 0 {
        log.line(format_args!("BndCfgS = 0x{:016x}", v(0x2812)));
    }
    log.line(format_args!("Interruptibility = {:08x}  ActivityState = {:08x}", v(0x4824), v(0x4826)));
    if secondary & SECONDARY_VIRTUAL_INTERRUPTS != 0 {
        log.line(format_args!("InterruptStatus = {:04x}", v(0x0810)));
    }
    if newer {
        log.msrs("guest autoload", &surroundings.entry_load);
        log.msrs("guest autostore", &surroundings.exit_store);
    }

    log.line(format_args!("*** Host State ***"));
    log.line(format_args!("RIP = 0x{:016x}  RSP = 0x{:016x}", v(0x6c16), v(0x6c14)));
    log.line(format_args!(
        "CS={:04x} SS={:04x} DS={:04x} ES={:04x} FS={:04x} GS={:04x} TR={:04x}",
        v(0x0c02),
        v(0x0c04),
        v(0x0c06),
        v(0x0c00),
        v(0x0c08),
        v(0x0c0a),
        v(0x0c0c)
    ));
    log.line(format_args!("FSBase={:016x} GSBase={:016x} TRBase={:016x}", v(0x6c06), v(0x6c08), v(0x6c0a)));
    log.line(format_args!("GDTBase={:016x} IDTBase={:016x}", v(0x6c0c), v(0x6c0e)));
    log.line(format_args!("CR0={:016x} CR3={:016x} CR4={:016x}", v(0x6c00), v(0x6c02), v(0x6c04)));
    sysenter(&mut log, 0x6c10, 0x4c00, 0x6c12);
    if newer {
        if exit & EXIT_LOAD_EFER != 0 {
            log.line(format_args!("EFER= 0x{:016x}", v(0x2c02)));
        }
        if exit & EXIT_LOAD_PAT != 0 {
            log.line(format_args!("PAT = 0x{:016x}", v(0x2c00)));
        }
    } else if exit & (EXIT_LOAD_PAT | EXIT_LOAD_EFER) != 0 {
        log.line(format_args!("EFER = 0x{:016x}  PAT = 0x{:016x}", v(0x2c02), v(0x2c00)));
    }
    if surroundings.has_perf_global_ctrl && exit & EXIT_LOAD_PERF != 0 {
        log.line(format_args!("PerfGlobCtl = 0x{:016x}", v(0x2c04)));
    }
    if newer {
        log.msrs("host autoload", &surroundings.exit_load);
    }

    log.line(format_args!("*** Control State ***"));
    if kernel >= Kernel::V6_1 {
        log.line(format_args!(
            "CPUBased=0x{cpu:08x} SecondaryExec=0x{secondary:08x} TertiaryExec=0x{tertiary:016x}"
        ));
        log.line(format_args!("PinBased=0x{pin:08x} EntryControls={entry:08x} ExitControls={exit:08x}"));
    } else {
        log.line(format_args!("PinBased={pin:08x} CPUBased={cpu:08x} SecondaryExec={secondary:08x}"));
        log.line(format_args!("EntryControls={entry:08x} ExitControls={exit:08x}"));
    }
    let (mask, matching) = (v(0x4006), v(0x4008));
    log.line(format_args!("ExceptionBitmap={:08x} PFECmask={mask:08x} PFECmatch={matching:08x}", v(0x4004)));
    for (name, info, error, length) in
        [("VMEntry", 0x4016, 0x4018, 0x401a), ("VMExit", 0x4404, 0x4406, 0x440c)]
    {
        let (info, error, length) = (v(info), v(error), v(length));
        log.line(format_args!("{name}: intr_info={info:08x} errcode={error:08x} ilen={length:08x}"));
    }
    log.line(format_args!("        reason={:08x} qualification={:016x}", v(0x4402), v(0x6400)));
    log.line(format_args!("IDTVectoring: info={:08x} errcode={:08x}", v(0x4408), v(0x440a)));
    log.line(format_args!("TSC Offset = 0x{:016x}", v(0x2010)));
    if secondary & SECONDARY_TSC_SCALING != 0 {
        log.line(format_args!("TSC Multiplier = 0x{:016x}", v(0x2032)));
    }
    if cpu & CPU_TPR_SHADOW != 0 {
        if secondary & SECONDARY_VIRTUAL_INTERRUPTS != 0 {
            let status = v(0x0810);
            log.begin(format_args!("SVI|RVI = {:02x}|{:02x} ", status >> 8, status & 0xff));
        }
        log.finish(format_args!("TPR Threshold = 0x{:02x}", v(0x401c)));
        if secondary & SECONDARY_APIC_ACCESSES != 0 {
            log.begin(format_args!("APIC-access addr = 0x{:016x} ", v(0x2014)));
        }
        log.finish(format_args!("virt-APIC addr = 0x{:016x}", v(0x2012)));
    }
    if pin & PIN_POSTED_INTERRUPTS != 0 {
        log.line(format_args!("PostedIntrVec = 0x{:02x}", v(0x0002)));
    }
    if secondary & SECONDARY_EPT != 0 {
        log.line(format_args!("EPT pointer = 0x{:016x}", v(0x201a)));
    }
    if kernel == Kernel::V5_4 {
        // This kernel steps by four and so shows two of four targets.
        match v(0x400a) {
            0 => {}
            1 => log.line(format_args!("CR3 target0={:016x}", v(0x6008))),
            _ => log.line(format_args!("CR3 target0={:016x} target1={:016x}", v(0x6008), v(0x600a))),
        }
    }
    if secondary & SECONDARY_PAUSE_LOOP != 0 {
        log.line(format_args!("PLE Gap={:08x} Window={:08x}", v(0x4020), v(0x4022)));
    }
    if secondary & SECONDARY_VPID != 0 {
        log.line(format_args!("Virtual processor ID = 0x{:04x}", v(0x0000)));
    }
    if kernel >= Kernel::V6_12 && secondary & SECONDARY_EPT_VIOLATION_VE != 0 {
        log.line(format_args!("VE info address = 0x{:016x}", v(0x202a)));
        log.line(format_args!("ve_info: 0x{0:08x} 0x{0:08x} 0x{0:016x} 0x{0:016x} 0x{0:016x} 0x{0:04x}", 0));
    }
    log.text
}

/// The lines on the guest's EFER and PAT, whose conditions changed most between kernels.
fn guest_efer_and_pat(
    log: &mut Log,
    newer: bool,
    surroundings: &VmcsSurroundings,
    field: &dyn Fn(u32) -> u64,
) {
    let (entry, exit) = (field(0x4012), field(0x400c));
    let (efer, pat) = (field(0x2806), field(0x2804));
    if !newer {
        let saved = exit & (EXIT_SAVE_PAT | EXIT_SAVE_EFER) != 0;
        if saved || entry & (ENTRY_LOAD_PAT | ENTRY_LOAD_EFER) != 0 {
            log.line(format_args!("EFER =     0x{efer:016x}  PAT = 0x{pat:016x}"));
        }
        return;
    }
    let listed = surroundings.entry_load.iter().find(|m| m.index == MSR_EFER);
    if entry & ENTRY_LOAD_EFER != 0 {
        log.line(format_args!("EFER= 0x{efer:016x}"));
    } else if let Some(listed) = listed {
        log.line(format_args!("EFER= 0x{:016x} (autoload)", listed.value));
    } else {
        let long = EFER_LMA | EFER_LME;
        let guest = surroundings.guest_efer;
        let effective = if entry & ENTRY_IA32E != 0 { guest | long } else { guest & !long };
        log.line(format_args!("EFER= 0x{effective:016x} (effective)"));
    }
    if entry & ENTRY_LOAD_PAT != 0 {
        log.line(format_args!("PAT = 0x{pat:016x}"));
    }
}

/// What a dump of a VMCB depends on beside the VMCB and the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmcbSurroundings {
    /// The VMCB's address as printed with `%p` (hashed).
    pub address: u64,
    /// Processor of the last attempt.
    pub host_cpu: u32,
}

/// The text that this kernel's `dump_vmcb` writes to its log, one message a line, without time stamps.
/// `field` gives the value of the `size` bytes at `offset` (APM Vol. 2 "Layout of VMCB"; the state save area begins
/// at 0x400).
pub fn print_vmcb(kernel: Kernel, surroundings: &VmcbSurroundings, field: &dyn Fn(u16, u8) -> u64) -> String {
    let mut log = Log { text: String::new(), prefix: kernel.prefix("SVM: ", "kvm_amd: ") };
    if kernel >= Kernel::V5_15 {
        let VmcbSurroundings { address, host_cpu } = surroundings;
        log.line(format_args!("VMCB {address:016x}, last attempted VMRUN on CPU {host_cpu}"));
    }
    vmcb_control(&mut log, kernel, field);
    vmcb_save(&mut log, kernel, field);
    log.text
}

fn vmcb_control(log: &mut Log, kernel: Kernel, field: &dyn Fn(u16, u8) -> u64) {
    let hex = |log: &mut Log, name: &str, offset: u16, size: u8| {
        let digits = usize::from(size) * 2;
        log.line(format_args!("{name:<20}{:0digits$x}", field(offset, size)));
    };
    let dec = |log: &mut Log, name: &str, offset: u16, size: u8| {
        let value = field(offset, size);
        // %d of a 32-bit field and %lld of a 64-bit one are signed; narrower fields are widened first.
        let value = if size == 4 { i64::from(value as u32 as i32) } else { value as i64 };
        log.line(format_args!("{name:<20}{value}"));
    };
    log.line(format_args!("VMCB Control Area:"));
    hex(log, "cr_read:", 0x000, 2);
    hex(log, "cr_write:", 0x002, 2);
    hex(log, "dr_read:", 0x004, 2);
    hex(log, "dr_write:", 0x006, 2);
    hex(log, "exceptions:", 0x008, 4);
    let (low, high) = (field(0x00c, 4), field(0x010, 4));
    if kernel >= Kernel::V5_10 {
        log.line(format_args!("{:<20}{low:08x} {high:08x}", "intercepts:"));
    } else {
        log.line(format_args!("{:<20}{:016x}", "intercepts:", high << 32 | low));
    }
    dec(log, "pause filter count:", 0x03e, 2);
    dec(log, "pause filter threshold:", 0x03c, 2);
    hex(log, "iopm_base_pa:", 0x040, 8);
    hex(log, "msrpm_base_pa:", 0x048, 8);
    hex(log, "tsc_offset:", 0x050, 8);
    dec(log, "asid:", 0x058, 4);
    dec(log, "tlb_ctl:", 0x05c, 1);
    hex(log, "int_ctl:", 0x060, 4);
    hex(log, "int_vector:", 0x064, 4);
    hex(log, "int_state:", 0x068, 4);
    hex(log, "exit_code:", 0x070, 4);
    hex(log, "exit_info1:", 0x078, 8);
    hex(log, "exit_info2:", 0x080, 8);
    hex(log, "exit_int_info:", 0x088, 4);
    hex(log, "exit_int_info_err:", 0x08c, 4);
    dec(log, "nested_ctl:", 0x090, 8);
    hex(log, "nested_cr3:", 0x0b0, 8);
    hex(log, "avic_vapic_bar:", 0x098, 8);
    if kernel >= Kernel::V5_15 {
        hex(log, "ghcb:", 0x0a0, 8);
    }
    hex(log, "event_inj:", 0x0a8, 4);
    hex(log, "event_inj_err:", 0x0ac, 4);
    dec(log, "virt_ext:", 0x0b8, 8);
    hex(log, "next_rip:", 0x0c8, 8);
    hex(log, "avic_backing_page:", 0x0e0, 8);
    hex(log, "avic_logical_id:", 0x0f0, 8);
    hex(log, "avic_physical_id:", 0x0f8, 8);
    if kernel >= Kernel::V5_15 {
        hex(log, "vmsa_pa:", 0x108, 8);
    }
}

fn vmcb_save(log: &mut Log, kernel: Kernel, field: &dyn Fn(u16, u8) -> u64) {
    let v = |offset| field(offset, 8);
    log.line(format_args!("VMCB State Save Area:"));
    let segments = ["es:", "cs:", "ss:", "ds:", "fs:", "gs:", "gdtr:", "ldtr:", "idtr:", "tr:"];
    for (name, at) in segments.into_iter().zip((0x400..).step_by(16)) {
        let (selector, attributes, limit) = (field(at, 2), field(at + 2, 2), field(at + 4, 4));
        let base = v(at + 8);
        log.line(format_args!(
            "{name:<5} s: {selector:04x} a: {attributes:04x} l: {limit:08x} b: {base:016x}"
        ));
    }
    let (vmpl, cpl, efer) = (field(0x4ca, 1), field(0x4cb, 1), v(0x4d0));
    if kernel >= Kernel::V6_1 {
        log.line(format_args!("vmpl: {vmpl}   cpl:  {cpl}               efer:          {efer:016x}"));
    } else {
        log.line(format_args!("cpl:            {cpl}                efer:         {efer:016x}"));
    }
    for (first, offset, second, other) in [
        ("cr0:", 0x558, "cr2:", 0x640),
        ("cr3:", 0x550, "cr4:", 0x548),
        ("dr6:", 0x568, "dr7:", 0x560),
        ("rip:", 0x578, "rflags:", 0x570),
        ("rsp:", 0x5d8, "rax:", 0x5f8),
        ("star:", 0x600, "lstar:", 0x608),
        ("cstar:", 0x610, "sfmask:", 0x618),
        ("kernel_gs_base:", 0x620, "sysenter_cs:", 0x628),
        ("sysenter_esp:", 0x630, "sysenter_eip:", 0x638),
        ("gpat:", 0x668, "dbgctl:", 0x670),
        ("br_from:", 0x678, "br_to:", 0x680),
        ("excp_from:", 0x688, "excp_to:", 0x690),
    ] {
        log.line(format_args!("{first:<15} {:016x} {second:<13} {:016x}", v(offset), v(other)));
    }
}
