//! The table of VMCB and VMSA fields: name, place, size
//! (APM Vol. 2 (24593 rev. 3.43) "VMCB Layout": "Control Area", "State Save Area", "State Save Area for SEV-ES").
//!
//! `PERF_CTR_GLOBAL_CTL` is four bytes: the manual's state-save table says "qword", but lists the next four bytes
//! as reserved, and its SEV-ES table says "dword".

/// In which structure a field lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// The VMCB's control area: bytes 0 to 0x3ff of its page.
    Control,
    /// The VMCB's state-save area, from byte 0x400 of its page. The VMSA of an SEV-ES guest has the same field 0x400
    /// bytes lower.
    Save,
    /// Only in the VMSA of an SEV-ES guest; offsets count from the VMSA's page.
    Vmsa,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The field.
    pub field: Field,
    /// The manual's name; sub-fields that the manual describes as bits of one quadword are joined by a dot.
    pub name: &'static str,
    /// The member of Linux's `struct vmcb_control_area`, `vmcb_save_area` or `sev_es_save_area` (6.12); fields
    /// that Linux keeps in reserved arrays have the manual's name in lower case.
    pub linux: &'static str,
    /// The structure.
    pub area: Area,
    /// Byte offset in the VMCB's page, for [`Area::Vmsa`] in the VMSA's.
    pub offset: u16,
    /// Size in bytes.
    pub size: u16,
    /// What it holds.
    pub text: &'static str,
}

macro_rules! fields {
    ($($area:ident { $($name:ident = $offset:literal $size:literal $manual:literal $linux:literal $text:literal;)* })*) => {
        /// A field of the VMCB, or of an SEV-ES guest's VMSA.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Field {
            $($(#[doc = concat!($manual, ": ", $text, ".")] $name,)*)*
        }

        /// Every field, by area and offset.
        pub const TABLE: &[Row] = &[$($(Row {
            field: Field::$name,
            name: $manual,
            linux: $linux,
            area: Area::$area,
            offset: $offset,
            size: $size,
            text: $text,
        },)*)*];
    };
}

impl Field {
    /// The field's row.
    #[inline(always)]
    pub const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }
    /// The manual's name.
    pub const fn name(self) -> &'static str {
        self.row().name
    }
    /// The member of Linux's structures.
    pub const fn linux(self) -> &'static str {
        self.row().linux
    }
    /// Where in the VMCB's page the field starts, if it is there.
    #[inline(always)]
    pub const fn vmcb_offset(self) -> Option<usize> {
        match self.row().area {
            Area::Control | Area::Save => Some(self.row().offset as usize),
            Area::Vmsa => None,
        }
    }
    /// Where in the VMSA's page the field starts, if it is there.
    pub const fn vmsa_offset(self) -> Option<usize> {
        match self.row().area {
            Area::Control => None,
            Area::Save => Some(self.row().offset as usize - 0x400),
            Area::Vmsa => Some(self.row().offset as usize),
        }
    }
    /// Size in bytes.
    #[inline(always)]
    pub const fn size(self) -> usize {
        self.row().size as usize
    }
    /// Every bit that the field can hold; all ones for fields of eight bytes and more.
    pub const fn mask(self) -> u64 {
        if self.row().size >= 8 { !0 } else { (1 << (self.row().size * 8)) - 1 }
    }
    /// Every field, in table order.
    pub fn all() -> impl DoubleEndedIterator<Item = Field> + ExactSizeIterator {
        TABLE.iter().map(|row| row.field)
    }
    /// The field with the manual's name `name`, ignoring case. A VMCB field wins over a VMSA field of the same name.
    pub fn from_name(name: &str) -> Option<Field> {
        TABLE.iter().find(|row| row.name.eq_ignore_ascii_case(name)).map(|row| row.field)
    }
    /// The field that Linux calls `member`, such as `int_ctl` or `cs.attrib`. A VMCB field wins over a VMSA field.
    pub fn from_linux(member: &str) -> Option<Field> {
        TABLE.iter().find(|row| row.linux == member).map(|row| row.field)
    }
}

const _: () = assert!(TABLE.len() <= 256, "Field is one byte");

fields! {
    Control {
        InterceptCr = 0x000 4 "INTERCEPT_VECTOR_0" "intercepts[INTERCEPT_CR]" "intercepts of CR0 to CR15: reads in bits 15:0, writes in bits 31:16";
        InterceptDr = 0x004 4 "INTERCEPT_VECTOR_1" "intercepts[INTERCEPT_DR]" "intercepts of DR0 to DR15: reads in bits 15:0, writes in bits 31:16";
        InterceptException = 0x008 4 "INTERCEPT_VECTOR_2" "intercepts[INTERCEPT_EXCEPTION]" "intercepts of exception vectors 0 to 31";
        Intercept3 = 0x00c 4 "INTERCEPT_VECTOR_3" "intercepts[INTERCEPT_WORD3]" "intercepts of interrupts and instructions, vector 3";
        Intercept4 = 0x010 4 "INTERCEPT_VECTOR_4" "intercepts[INTERCEPT_WORD4]" "intercepts of SVM instructions and write traps, vector 4";
        Intercept5 = 0x014 4 "INTERCEPT_VECTOR_5" "intercepts[INTERCEPT_WORD5]" "intercepts of later instructions, vector 5";
        PauseFilterThreshold = 0x03c 2 "PAUSE_FILTER_THRESHOLD" "pause_filter_thresh" "time-stamp ticks after which the PAUSE count starts anew";
        PauseFilterCount = 0x03e 2 "PAUSE_FILTER_COUNT" "pause_filter_count" "PAUSEs that pass before one is intercepted";
        IopmBase = 0x040 8 "IOPM_BASE_PA" "iopm_base_pa" "physical address of the I/O permission map; bits 11:0 are ignored";
        MsrpmBase = 0x048 8 "MSRPM_BASE_PA" "msrpm_base_pa" "physical address of the MSR permission map; bits 11:0 are ignored";
        TscOffset = 0x050 8 "TSC_OFFSET" "tsc_offset" "added to the time-stamp counter that the guest reads";
        Asid = 0x058 4 "GUEST_ASID" "asid" "address space identifier of the guest; 0 is the host's";
        TlbControl = 0x05c 1 "TLB_CONTROL" "tlb_ctl" "what VMRUN flushes";
        ErapControl = 0x05d 1 "ERAP_CONTROL" "erap_ctl" "return address predictor: bit 0 ALLOW_LARGER_RAP, bit 1 CLEAR_RAP";
        IntCtl = 0x060 4 "VINTR_CONTROL" "int_ctl" "virtual interrupt, NMI and GIF state, AVIC enables";
        IntVector = 0x064 4 "V_INTR_VECTOR" "int_vector" "vector of the virtual interrupt in bits 7:0";
        InterruptState = 0x068 8 "INTERRUPT_SHADOW" "int_state" "bit 0 INTERRUPT_SHADOW, bit 1 GUEST_INTERRUPT_MASK (SEV-ES)";
        ExitCode = 0x070 8 "EXITCODE" "exit_code" "why the guest was left";
        ExitInfo1 = 0x078 8 "EXITINFO1" "exit_info_1" "depends on EXITCODE";
        ExitInfo2 = 0x080 8 "EXITINFO2" "exit_info_2" "depends on EXITCODE";
        ExitIntInfo = 0x088 4 "EXITINTINFO" "exit_int_info" "event whose delivery the exit interrupted";
        ExitIntInfoError = 0x08c 4 "EXITINTINFO.ERRORCODE" "exit_int_info_err" "its error code";
        NestedControl = 0x090 8 "NP_ENABLE" "nested_ctl" "nested paging, SEV and other guest mode enables";
        AvicApicBar = 0x098 8 "AVIC_APIC_BAR" "avic_vapic_bar" "guest-physical address of the virtual APIC page";
        GhcbAddress = 0x0a0 8 "GHCB_PA" "ghcb_gpa" "guest-physical address of the GHCB";
        EventInj = 0x0a8 4 "EVENTINJ" "event_inj" "event that VMRUN delivers before the first instruction";
        EventInjError = 0x0ac 4 "EVENTINJ.ERRORCODE" "event_inj_err" "its error code";
        NestedCr3 = 0x0b0 8 "N_CR3" "nested_cr3" "root of the nested page tables";
        VirtExt = 0x0b8 8 "LBR_VIRTUALIZATION_ENABLE" "virt_ext" "virtualization of LBR, VMLOAD and VMSAVE, IBS, PMC";
        CleanBits = 0x0c0 4 "VMCB_CLEAN" "clean" "field groups that did not change since the last exit";
        NextRip = 0x0c8 8 "NRIP" "next_rip" "address of the next sequential instruction";
        BytesFetched = 0x0d0 1 "NUMBER_OF_BYTES_FETCHED" "insn_len" "valid guest instruction bytes, 0 to 15";
        InstructionBytes = 0x0d1 15 "GUEST_INSTRUCTION_BYTES" "insn_bytes" "instruction at CS:RIP on data page faults";
        AvicBackingPage = 0x0e0 8 "AVIC_BACKING_PAGE" "avic_backing_page" "physical address of the virtual APIC backing page";
        AvicLogicalTable = 0x0f0 8 "AVIC_LOGICAL_TABLE" "avic_logical_id" "physical address of the logical APIC ID table";
        AvicPhysicalTable = 0x0f8 8 "AVIC_PHYSICAL_TABLE" "avic_physical_id" "physical address of the physical APIC ID table; bits 11:0 AVIC_PHYSICAL_MAX_INDEX";
        VmsaPointer = 0x108 8 "VMSA_POINTER" "vmsa_pa" "physical address of the VM save area of an SEV-ES guest";
        VmgexitRax = 0x110 8 "VMGEXIT_RAX" "vmgexit_rax" "RAX at VMGEXIT";
        VmgexitCpl = 0x118 1 "VMGEXIT_CPL" "vmgexit_cpl" "CPL at VMGEXIT";
        BusLockCounter = 0x120 2 "BUS_LOCK_THRESHOLD_COUNTER" "bus_lock_counter" "bus locks that pass before one is intercepted";
        UpdateIrr = 0x134 1 "UPDATE_IRR" "update_irr" "bit 0: VMRUN merges REQUESTED_IRR into the secure APIC page";
        AllowedSevFeatures = 0x138 8 "ALLOWED_SEV_FEATURES" "allowed_sev_features" "bits 61:0 SEV features that the guest may use, bit 63 enables the mask";
        GuestSevFeatures = 0x140 8 "GUEST_SEV_FEATURES" "guest_sev_features" "SEV features that the guest uses";
        RequestedIrr = 0x150 32 "REQUESTED_IRR" "requested_irr" "interrupts requested of a secure APIC";
        HostUsage = 0x3e0 32 "HOST_USAGE" "reserved_sw" "for the hypervisor's own use (Hyper-V: nested enlightenments)";
    }
    Save {
        EsSelector = 0x400 2 "ES.SELECTOR" "es.selector" "selector";
        EsAttrib = 0x402 2 "ES.ATTRIB" "es.attrib" "attributes, 12 bits";
        EsLimit = 0x404 4 "ES.LIMIT" "es.limit" "limit in bytes";
        EsBase = 0x408 8 "ES.BASE" "es.base" "base linear address; only 32 bits are implemented";
        CsSelector = 0x410 2 "CS.SELECTOR" "cs.selector" "selector";
        CsAttrib = 0x412 2 "CS.ATTRIB" "cs.attrib" "attributes, 12 bits";
        CsLimit = 0x414 4 "CS.LIMIT" "cs.limit" "limit in bytes";
        CsBase = 0x418 8 "CS.BASE" "cs.base" "base linear address; only 32 bits are implemented";
        SsSelector = 0x420 2 "SS.SELECTOR" "ss.selector" "selector";
        SsAttrib = 0x422 2 "SS.ATTRIB" "ss.attrib" "attributes, 12 bits";
        SsLimit = 0x424 4 "SS.LIMIT" "ss.limit" "limit in bytes";
        SsBase = 0x428 8 "SS.BASE" "ss.base" "base linear address; only 32 bits are implemented";
        DsSelector = 0x430 2 "DS.SELECTOR" "ds.selector" "selector";
        DsAttrib = 0x432 2 "DS.ATTRIB" "ds.attrib" "attributes, 12 bits";
        DsLimit = 0x434 4 "DS.LIMIT" "ds.limit" "limit in bytes";
        DsBase = 0x438 8 "DS.BASE" "ds.base" "base linear address; only 32 bits are implemented";
        FsSelector = 0x440 2 "FS.SELECTOR" "fs.selector" "selector";
        FsAttrib = 0x442 2 "FS.ATTRIB" "fs.attrib" "attributes, 12 bits";
        FsLimit = 0x444 4 "FS.LIMIT" "fs.limit" "limit in bytes";
        FsBase = 0x448 8 "FS.BASE" "fs.base" "base linear address";
        GsSelector = 0x450 2 "GS.SELECTOR" "gs.selector" "selector";
        GsAttrib = 0x452 2 "GS.ATTRIB" "gs.attrib" "attributes, 12 bits";
        GsLimit = 0x454 4 "GS.LIMIT" "gs.limit" "limit in bytes";
        GsBase = 0x458 8 "GS.BASE" "gs.base" "base linear address";
        GdtrSelector = 0x460 2 "GDTR.SELECTOR" "gdtr.selector" "selector (reserved)";
        GdtrAttrib = 0x462 2 "GDTR.ATTRIB" "gdtr.attrib" "attributes, 12 bits (reserved)";
        GdtrLimit = 0x464 4 "GDTR.LIMIT" "gdtr.limit" "limit in bytes; only 16 bits are implemented";
        GdtrBase = 0x468 8 "GDTR.BASE" "gdtr.base" "base linear address";
        LdtrSelector = 0x470 2 "LDTR.SELECTOR" "ldtr.selector" "selector";
        LdtrAttrib = 0x472 2 "LDTR.ATTRIB" "ldtr.attrib" "attributes, 12 bits";
        LdtrLimit = 0x474 4 "LDTR.LIMIT" "ldtr.limit" "limit in bytes";
        LdtrBase = 0x478 8 "LDTR.BASE" "ldtr.base" "base linear address";
        IdtrSelector = 0x480 2 "IDTR.SELECTOR" "idtr.selector" "selector (reserved)";
        IdtrAttrib = 0x482 2 "IDTR.ATTRIB" "idtr.attrib" "attributes, 12 bits (reserved)";
        IdtrLimit = 0x484 4 "IDTR.LIMIT" "idtr.limit" "limit in bytes; only 16 bits are implemented";
        IdtrBase = 0x488 8 "IDTR.BASE" "idtr.base" "base linear address";
        TrSelector = 0x490 2 "TR.SELECTOR" "tr.selector" "selector";
        TrAttrib = 0x492 2 "TR.ATTRIB" "tr.attrib" "attributes, 12 bits";
        TrLimit = 0x494 4 "TR.LIMIT" "tr.limit" "limit in bytes";
        TrBase = 0x498 8 "TR.BASE" "tr.base" "base linear address";
        Cpl = 0x4cb 1 "CPL" "cpl" "privilege level; forced to 0 in real and 3 in virtual-8086 mode";
        Efer = 0x4d0 8 "EFER" "efer" "extended feature enables";
        PerfCtl0 = 0x4e0 8 "PERF_CTL0" "perf_ctl0" "performance event select (PMC virtualization)";
        PerfCtr0 = 0x4e8 8 "PERF_CTR0" "perf_ctr0" "performance counter (PMC virtualization)";
        PerfCtl1 = 0x4f0 8 "PERF_CTL1" "perf_ctl1" "performance event select (PMC virtualization)";
        PerfCtr1 = 0x4f8 8 "PERF_CTR1" "perf_ctr1" "performance counter (PMC virtualization)";
        PerfCtl2 = 0x500 8 "PERF_CTL2" "perf_ctl2" "performance event select (PMC virtualization)";
        PerfCtr2 = 0x508 8 "PERF_CTR2" "perf_ctr2" "performance counter (PMC virtualization)";
        PerfCtl3 = 0x510 8 "PERF_CTL3" "perf_ctl3" "performance event select (PMC virtualization)";
        PerfCtr3 = 0x518 8 "PERF_CTR3" "perf_ctr3" "performance counter (PMC virtualization)";
        PerfCtl4 = 0x520 8 "PERF_CTL4" "perf_ctl4" "performance event select (PMC virtualization)";
        PerfCtr4 = 0x528 8 "PERF_CTR4" "perf_ctr4" "performance counter (PMC virtualization)";
        PerfCtl5 = 0x530 8 "PERF_CTL5" "perf_ctl5" "performance event select (PMC virtualization)";
        PerfCtr5 = 0x538 8 "PERF_CTR5" "perf_ctr5" "performance counter (PMC virtualization)";
        Cr4 = 0x548 8 "CR4" "cr4" "control register 4";
        Cr3 = 0x550 8 "CR3" "cr3" "page-table base";
        Cr0 = 0x558 8 "CR0" "cr0" "control register 0";
        Dr7 = 0x560 8 "DR7" "dr7" "debug control";
        Dr6 = 0x568 8 "DR6" "dr6" "debug status";
        Rflags = 0x570 8 "RFLAGS" "rflags" "flags";
        Rip = 0x578 8 "RIP" "rip" "instruction pointer";
        InstrRetiredCtr = 0x5c0 8 "INSTR_RETIRED_CTR" "instr_retired_ctr" "retired-instruction counter (PMC virtualization)";
        PerfCtrGlobalSts = 0x5c8 8 "PERF_CTR_GLOBAL_STS" "perf_ctr_global_sts" "counter overflow status (PMC virtualization)";
        PerfCtrGlobalCtl = 0x5d0 4 "PERF_CTR_GLOBAL_CTL" "perf_ctr_global_ctl" "counter enables (PMC virtualization)";
        Rsp = 0x5d8 8 "RSP" "rsp" "stack pointer";
        SCet = 0x5e0 8 "S_CET" "s_cet" "supervisor shadow-stack controls";
        Ssp = 0x5e8 8 "SSP" "ssp" "shadow-stack pointer";
        IsstAddr = 0x5f0 8 "ISST_ADDR" "isst_addr" "interrupt shadow-stack table";
        Rax = 0x5f8 8 "RAX" "rax" "RAX";
        Star = 0x600 8 "STAR" "star" "SYSCALL target selectors";
        Lstar = 0x608 8 "LSTAR" "lstar" "SYSCALL target, 64-bit";
        Cstar = 0x610 8 "CSTAR" "cstar" "SYSCALL target, compatibility mode";
        Sfmask = 0x618 8 "SFMASK" "sfmask" "SYSCALL flag mask";
        KernelGsBase = 0x620 8 "KernelGsBase" "kernel_gs_base" "what SWAPGS loads";
        SysenterCs = 0x628 8 "SYSENTER_CS" "sysenter_cs" "SYSENTER selector";
        SysenterEsp = 0x630 8 "SYSENTER_ESP" "sysenter_esp" "SYSENTER stack pointer";
        SysenterEip = 0x638 8 "SYSENTER_EIP" "sysenter_eip" "SYSENTER target";
        Cr2 = 0x640 8 "CR2" "cr2" "page-fault linear address";
        GPat = 0x668 8 "G_PAT" "g_pat" "guest page attribute table; used with nested paging";
        Dbgctl = 0x670 8 "DBGCTL" "dbgctl" "DebugCtl MSR (LBR virtualization)";
        BrFrom = 0x678 8 "BR_FROM" "br_from" "LastBranchFromIP MSR (LBR virtualization)";
        BrTo = 0x680 8 "BR_TO" "br_to" "LastBranchToIP MSR (LBR virtualization)";
        LastExcpFrom = 0x688 8 "LASTEXCPFROM" "last_excp_from" "LastIntFromIP MSR (LBR virtualization)";
        LastExcpTo = 0x690 8 "LASTEXCPTO" "last_excp_to" "LastIntToIP MSR (LBR virtualization)";
        DbgExtnCtl = 0x698 8 "DBGEXTNCTL" "dbgextnctl" "DebugExtnCtl MSR (LBR stack virtualization)";
        SpecCtrl = 0x6e0 8 "SPEC_CTRL" "spec_ctrl" "guest's SPEC_CTRL (virtual SPEC_CTRL)";
        LbrStack = 0xa70 256 "LBR_STACK" "lbr_stack" "LastBranchStackFromIp and LastBranchStackToIp MSRs, 16 pairs in MSR order";
        LbrSelect = 0xb70 8 "LBR_SELECT" "lbr_select" "LastBranchStackSelect MSR";
        IbsFetchCtl = 0xb78 8 "IBS_FETCH_CTL" "ibs_fetch_ctl" "instruction-based sampling (IBS virtualization)";
        IbsFetchLinaddr = 0xb80 8 "IBS_FETCH_LINADDR" "ibs_fetch_linaddr" "instruction-based sampling (IBS virtualization)";
        IbsOpCtl = 0xb88 8 "IBS_OP_CTL" "ibs_op_ctl" "instruction-based sampling (IBS virtualization)";
        IbsOpRip = 0xb90 8 "IBS_OP_RIP" "ibs_op_rip" "instruction-based sampling (IBS virtualization)";
        IbsOpData = 0xb98 8 "IBS_OP_DATA" "ibs_op_data" "instruction-based sampling (IBS virtualization)";
        IbsOpData2 = 0xba0 8 "IBS_OP_DATA2" "ibs_op_data2" "instruction-based sampling (IBS virtualization)";
        IbsOpData3 = 0xba8 8 "IBS_OP_DATA3" "ibs_op_data3" "instruction-based sampling (IBS virtualization)";
        IbsDcLinaddr = 0xbb0 8 "IBS_DC_LINADDR" "ibs_dc_linaddr" "instruction-based sampling (IBS virtualization)";
        BpIbstgtRip = 0xbb8 8 "BP_IBSTGT_RIP" "bp_ibstgt_rip" "instruction-based sampling (IBS virtualization)";
        IcIbsExtdCtl = 0xbc0 8 "IC_IBS_EXTD_CTL" "ic_ibs_extd_ctl" "instruction-based sampling (IBS virtualization)";
    }
    Vmsa {
        Pl0Ssp = 0x0a0 8 "PL0_SSP" "pl0_ssp" "shadow-stack pointer of privilege level 0";
        Pl1Ssp = 0x0a8 8 "PL1_SSP" "pl1_ssp" "shadow-stack pointer of privilege level 1";
        Pl2Ssp = 0x0b0 8 "PL2_SSP" "pl2_ssp" "shadow-stack pointer of privilege level 2";
        Pl3Ssp = 0x0b8 8 "PL3_SSP" "pl3_ssp" "shadow-stack pointer of privilege level 3";
        UCet = 0x0c0 8 "U_CET" "u_cet" "user shadow-stack controls";
        Vmpl = 0x0ca 1 "VMPL" "vmpl" "virtual machine privilege level";
        Xss = 0x140 8 "XSS" "xss" "supervisor state components";
        Dr0 = 0x180 8 "DR0" "dr0" "breakpoint address 0";
        Dr1 = 0x188 8 "DR1" "dr1" "breakpoint address 1";
        Dr2 = 0x190 8 "DR2" "dr2" "breakpoint address 2";
        Dr3 = 0x198 8 "DR3" "dr3" "breakpoint address 3";
        Dr0AddrMask = 0x1a0 8 "DR0_ADDR_MASK" "dr0_addr_mask" "breakpoint address mask 0";
        Dr1AddrMask = 0x1a8 8 "DR1_ADDR_MASK" "dr1_addr_mask" "breakpoint address mask 1";
        Dr2AddrMask = 0x1b0 8 "DR2_ADDR_MASK" "dr2_addr_mask" "breakpoint address mask 2";
        Dr3AddrMask = 0x1b8 8 "DR3_ADDR_MASK" "dr3_addr_mask" "breakpoint address mask 3";
        Pkru = 0x2e8 4 "PKRU" "pkru" "protection-key rights";
        TscAux = 0x2ec 4 "TSC_AUX" "tsc_aux" "what RDTSCP and RDPID return";
        GuestTscScale = 0x2f0 8 "GUEST_TSC_SCALE" "tsc_scale" "secure TSC ratio";
        GuestTscOffset = 0x2f8 8 "GUEST_TSC_OFFSET" "tsc_offset" "secure TSC offset";
        RegProtNonce = 0x300 8 "REG_PROT_NONCE" "reg_prot_nonce" "nonce of VMSA register protection";
        Rcx = 0x308 8 "RCX" "rcx" "RCX";
        Rdx = 0x310 8 "RDX" "rdx" "RDX";
        Rbx = 0x318 8 "RBX" "rbx" "RBX";
        SecureAvicCtl = 0x320 8 "SECURE_AVIC_CTL" "secure_avic_ctl" "secure AVIC control";
        Rbp = 0x328 8 "RBP" "rbp" "RBP";
        Rsi = 0x330 8 "RSI" "rsi" "RSI";
        Rdi = 0x338 8 "RDI" "rdi" "RDI";
        R8 = 0x340 8 "R8" "r8" "R8";
        R9 = 0x348 8 "R9" "r9" "R9";
        R10 = 0x350 8 "R10" "r10" "R10";
        R11 = 0x358 8 "R11" "r11" "R11";
        R12 = 0x360 8 "R12" "r12" "R12";
        R13 = 0x368 8 "R13" "r13" "R13";
        R14 = 0x370 8 "R14" "r14" "R14";
        R15 = 0x378 8 "R15" "r15" "R15";
        GuestExitInfo1 = 0x390 8 "GUEST_EXITINFO1" "guest_exit_info_1" "EXITINFO1 of automatic exits";
        GuestExitInfo2 = 0x398 8 "GUEST_EXITINFO2" "guest_exit_info_2" "EXITINFO2 of automatic exits";
        GuestExitIntInfo = 0x3a0 8 "GUEST_EXITINTINFO" "guest_exit_int_info" "EXITINTINFO of automatic exits";
        GuestNrip = 0x3a8 8 "GUEST_NRIP" "guest_nrip" "next RIP of automatic exits";
        SevFeatures = 0x3b0 8 "SEV_FEATURES" "sev_features" "SEV features that the guest selects";
        VintrCtrl = 0x3b8 8 "VINTR_CTRL" "vintr_ctrl" "virtual interrupt state of alternate injection; bit 63 BUSY";
        GuestExitCode = 0x3c0 8 "GUEST_EXITCODE" "guest_exit_code" "EXITCODE of automatic exits";
        VirtualTom = 0x3c8 8 "VIRTUAL_TOM" "virtual_tom" "top of encrypted memory, bits 51:21";
        TlbId = 0x3d0 8 "TLB_ID" "tlb_id" "TLB identifier of the last run";
        PcpuId = 0x3d8 8 "PCPU_ID" "pcpu_id" "processor of the last run";
        GuestEventInj = 0x3e0 8 "EVENTINJ" "event_inj" "event of alternate injection";
        Xcr0 = 0x3e8 8 "XCR0" "xcr0" "extended control register 0";
        X87Dp = 0x400 8 "X87_DP" "x87_dp" "x87 data pointer";
        Mxcsr = 0x408 4 "MXCSR" "mxcsr" "SSE control and status";
        X87Ftw = 0x40c 2 "X87_FTW" "x87_ftw" "x87 tag word";
        X87Fsw = 0x40e 2 "X87_FSW" "x87_fsw" "x87 status word";
        X87Fcw = 0x410 2 "X87_FCW" "x87_fcw" "x87 control word";
        X87Fop = 0x412 2 "X87_FOP" "x87_fop" "x87 opcode";
        X87Ds = 0x414 2 "X87_DS" "x87_ds" "x87 data selector";
        X87Cs = 0x416 2 "X87_CS" "x87_cs" "x87 code selector";
        X87Rip = 0x418 8 "X87_RIP" "x87_rip" "x87 instruction pointer";
        FpregX87 = 0x420 80 "FPREG_X87" "fpreg_x87" "x87 registers in stack order";
        FpregXmm = 0x470 256 "FPREG_XMM" "fpreg_xmm" "XMM0 to XMM15";
        FpregYmm = 0x570 256 "FPREG_YMM" "fpreg_ymm" "upper halves of YMM0 to YMM15";
        GuestInterceptVec0 = 0x900 4 "INTERCEPT_VEC_0" "intercept_vec_0" "guest intercept control";
        GuestInterceptVec1 = 0x904 4 "INTERCEPT_VEC_1" "intercept_vec_1" "guest intercept control";
        GuestInterceptVec2 = 0x908 4 "INTERCEPT_VEC_2" "intercept_vec_2" "guest intercept control";
        GuestInterceptVec3 = 0x90c 4 "INTERCEPT_VEC_3" "intercept_vec_3" "guest intercept control";
        GuestInterceptVec4 = 0x910 4 "INTERCEPT_VEC_4" "intercept_vec_4" "guest intercept control";
        GuestInterceptVec5 = 0x914 4 "INTERCEPT_VEC_5" "intercept_vec_5" "guest intercept control";
        GuestInterceptVec6 = 0x918 4 "INTERCEPT_VEC_6" "intercept_vec_6" "guest intercept control";
        GuestInterceptVec7 = 0x91c 4 "INTERCEPT_VEC_7" "intercept_vec_7" "guest intercept control";
        GuestInterceptMsrVec0 = 0x920 8 "INTERCEPT_MSR_VEC_0" "intercept_msr_vec_0" "guest MSR intercept control";
        GuestInterceptMsrVec1 = 0x928 8 "INTERCEPT_MSR_VEC_1" "intercept_msr_vec_1" "guest MSR intercept control";
        GuestInterceptMsrVec2 = 0x930 8 "INTERCEPT_MSR_VEC_2" "intercept_msr_vec_2" "guest MSR intercept control";
        GuestInterceptMsrVec3 = 0x938 8 "INTERCEPT_MSR_VEC_3" "intercept_msr_vec_3" "guest MSR intercept control";
        FpregK = 0x980 64 "FPREG_K" "fpreg_k" "opmask registers K0 to K7";
        FpregZmmhi = 0x9c0 512 "FPREG_ZMMHI" "fpreg_zmmhi" "upper halves of ZMM0 to ZMM15";
        FpregHizmm = 0xbc0 1024 "FPREG_HIZMM" "fpreg_hizmm" "ZMM16 to ZMM31";
    }
}
