//! The bits of the VM-execution, exit and entry controls that the judges' guests draw from, typed in from SDM Vol. 3C
//! (325384-083, Mar 2024) "VM-Execution Control Fields", "VM-Exit Controls" and "VM-Entry Controls".

// Pin-based VM-execution controls.
pub(super) const PIN_EXTERNAL: u64 = 1;
pub(super) const PIN_NMI: u64 = 1 << 3;
pub(super) const PIN_VIRTUAL_NMI: u64 = 1 << 5;
pub(super) const PIN_TIMER: u64 = 1 << 6;
pub(super) const PIN_POSTED: u64 = 1 << 7;

// Primary processor-based ones.
pub(super) const CPU_INTERRUPT_WINDOW: u64 = 1 << 2;
pub(super) const CPU_TSC_OFFSETTING: u64 = 1 << 3;
pub(super) const CPU_HLT: u64 = 1 << 7;
pub(super) const CPU_INVLPG: u64 = 1 << 9;
pub(super) const CPU_MWAIT: u64 = 1 << 10;
pub(super) const CPU_RDPMC: u64 = 1 << 11;
pub(super) const CPU_RDTSC: u64 = 1 << 12;
pub(super) const CPU_CR3_LOAD: u64 = 1 << 15;
pub(super) const CPU_CR3_STORE: u64 = 1 << 16;
pub(super) const CPU_CR8_LOAD: u64 = 1 << 19;
pub(super) const CPU_CR8_STORE: u64 = 1 << 20;
pub(super) const CPU_TPR_SHADOW: u64 = 1 << 21;
pub(super) const CPU_NMI_WINDOW: u64 = 1 << 22;
pub(super) const CPU_MOV_DR: u64 = 1 << 23;
pub(super) const CPU_UNCONDITIONAL_IO: u64 = 1 << 24;
pub(super) const CPU_IO_BITMAPS: u64 = 1 << 25;
pub(super) const CPU_MTF: u64 = 1 << 27;
pub(super) const CPU_MSR_BITMAPS: u64 = 1 << 28;
pub(super) const CPU_MONITOR: u64 = 1 << 29;
pub(super) const CPU_PAUSE: u64 = 1 << 30;
pub(super) const CPU_SECONDARY: u64 = 1 << 31;

// Secondary ones.
pub(super) const SEC_APIC_ACCESS: u64 = 1;
pub(super) const SEC_EPT: u64 = 1 << 1;
pub(super) const SEC_DESCRIPTORS: u64 = 1 << 2;
pub(super) const SEC_RDTSCP: u64 = 1 << 3;
pub(super) const SEC_X2APIC: u64 = 1 << 4;
pub(super) const SEC_VPID: u64 = 1 << 5;
pub(super) const SEC_WBINVD: u64 = 1 << 6;
pub(super) const SEC_UNRESTRICTED: u64 = 1 << 7;
pub(super) const SEC_APIC_REGISTERS: u64 = 1 << 8;
pub(super) const SEC_INTERRUPT_DELIVERY: u64 = 1 << 9;
pub(super) const SEC_INVPCID: u64 = 1 << 12;
pub(super) const SEC_VMFUNC: u64 = 1 << 13;
pub(super) const SEC_SHADOWING: u64 = 1 << 14;
pub(super) const SEC_PML: u64 = 1 << 17;
pub(super) const SEC_VE: u64 = 1 << 18;
pub(super) const SEC_MBE: u64 = 1 << 22;
pub(super) const SEC_SPP: u64 = 1 << 23;
pub(super) const SEC_TSC_SCALING: u64 = 1 << 25;

// VM-exit controls.
pub(super) const EXIT_SAVE_DEBUG: u64 = 1 << 2;
pub(super) const EXIT_HOST64: u64 = 1 << 9;
pub(super) const EXIT_ACK: u64 = 1 << 15;
pub(super) const EXIT_SAVE_PAT: u64 = 1 << 18;
pub(super) const EXIT_LOAD_PAT: u64 = 1 << 19;
pub(super) const EXIT_SAVE_EFER: u64 = 1 << 20;
pub(super) const EXIT_LOAD_EFER: u64 = 1 << 21;
pub(super) const EXIT_SAVE_TIMER: u64 = 1 << 22;
pub(super) const EXIT_LOAD_CET: u64 = 1 << 28;
pub(super) const EXIT_LOAD_PKRS: u64 = 1 << 29;

// VM-entry controls.
pub(super) const ENTRY_LOAD_DEBUG: u64 = 1 << 2;
pub(super) const ENTRY_GUEST64: u64 = 1 << 9;
pub(super) const ENTRY_LOAD_PAT: u64 = 1 << 14;
pub(super) const ENTRY_LOAD_EFER: u64 = 1 << 15;
pub(super) const ENTRY_LOAD_CET: u64 = 1 << 20;
pub(super) const ENTRY_LOAD_PKRS: u64 = 1 << 22;
