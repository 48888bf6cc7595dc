//! MSR interception and disabled exits: the catalogue's MSR-M and AP-M.

/// Hands its rows to the next list, which hands all to `$last`.
macro_rules! msr_interception { ($next:ident, $last:ident) => { $next! { $last,
    MergeTableOverflowIgnored = "MSR-M01" {
        "An offset that does not fit into the nested merge table was fatal to the host, or lost", Released, upstream: "KVM: SVM: Don't BUG if setting up the MSR intercept bitmaps fails",
        when: "the merge table is one entry too small",
        wrong: "the last chunk is silently never merged (or the host panics)",
        right: "vendor initialisation fails with an error, and no VM can be created",
        kernels: Some("before 6.1"), Some("6.17"), still: false
    }
    OutOfRangeWraps = "MSR-M02" {
        "The map was read at the position of an MSR that has none, before the check", Released, upstream: "KVM: SVM: Kill the VM instead of the host if MSR interception is buggy",
        when: "an MSR outside the three blocks is queried",
        wrong: "a byte far outside the map, or the bit of another MSR, decides",
        right: "such an MSR is always intercepted and no memory is touched",
        kernels: Some("before 6.1"), Some("6.17"), still: false
    }
    SentinelIsAnMsr = "MSR-M02a" {
        "The end marker of a pass-through list is treated as an MSR", Imagined, upstream: "KVM: SVM: Use ARRAY_SIZE() to iterate over direct_access_msrs",
        when: "a list ends in 0xffffffff and the loop runs to its capacity",
        wrong: "0xffffffff is merged or passed through",
        right: "every MSR of every list is in range",
        kernels: None, None, still: false
    }
    ExitMaskAssumesFirstMsr = "MSR-M03" {
        "The nested exit check tests bit 0 or 1 of L1's byte, whichever of its four MSRs was accessed", Posted, upstream: "KVM: nSVM: Access MSRPM in 4-byte chunks only for merging L0 and L1 bitmaps",
        when: "L2 accesses an MSR that is not the first of its byte, and L1's bits for the two differ",
        wrong: "L1's setting for another MSR decides whether L1 sees the exit",
        right: "the mask is shifted to the MSR's own two bits",
        kernels: Some("28-patch posting of May 2025"), Some("6.17"), still: false
    }
    BlockTwoAliasesBlockOne = "MSR-M04" {
        "The block number of 0xc0010000 is that of 0xc0000000", Imagined, upstream: "KVM: SVM: Add helpers for accessing MSR bitmap that don't rely on offsets",
        when: "an MSR of the third block is set, cleared or tested",
        wrong: "0xc0010117 and 0xc0000117 share a bit",
        right: "each block has its own 2 KiB",
        kernels: None, None, still: false
    }
    RangeTestByHighBits = "MSR-M05" {
        "Only the upper 16 bits of an MSR number decide whether a block holds it", Imagined, upstream: "KVM: SVM: Add helpers for accessing MSR bitmap that don't rely on offsets",
        when: "an MSR from 0xc0002000 to 0xc000ffff, or the like in the other blocks",
        wrong: "it is treated as the MSR 0x2000 lower",
        right: "a block holds 0x2000 MSRs; the others are out of range",
        kernels: None, None, still: false
    }
    NegativeBitNumberUsed = "MSR-M06" {
        "A caller still compares with the old marker, so that a negative bit number becomes an offset", Imagined, upstream: "KVM: SVM: Return -EINVAL instead of MSR_INVALID to signal out-of-range MSR",
        when: "L2 accesses an MSR outside the three blocks while L1 intercepts MSRs",
        wrong: "guest memory 512 MiB above L1's map is read and decides",
        right: "the access goes to L1 and no guest memory is read",
        kernels: None, None, still: false
    }
    InterceptPolaritySwapped = "MSR-M07" {
        "Enabling an intercept clears the bit and disabling sets it", Imagined, upstream: "KVM: SVM: Implement and adopt VMX style MSR intercepts APIs",
        when: "any set_intercept call of a filter-allowed MSR",
        wrong: "MSRs that must exit run natively and the others exit",
        right: "1 intercepts",
        kernels: None, None, still: false
    }
    ShadowRecordsOtherAccess = "MSR-M08" {
        "Enabling the intercept of one access records the other access as wanted pass-through", Posted, upstream: "KVM: SVM: Implement and adopt VMX style MSR intercepts APIs",
        when: "one access of an MSR is made to exit, then the filter changes",
        wrong: "the next recalculation exposes the other access (PRED_CMD becomes readable)",
        right: "accesses that are not named stay as they are",
        kernels: Some("28-patch posting of May 2025"), Some("6.17"), still: false
    }
    UnlistedMsrNotRefiltered = "MSR-M09" {
        "A filter change reaches only MSRs of a separate shadow list", Released, upstream: "KVM: VMX: Manually recalc all MSR intercepts on userspace MSR filter change",
        when: "an MSR that the list lacks is passed through, then the filter denies it",
        wrong: "it is still passed through",
        right: "it is intercepted before the next entry",
        kernels: Some("5.10"), Some("6.17"), still: false
    }
    DenialNeverLifted = "MSR-M10" {
        "A filter change sets bits but does not clear them again", Imagined, upstream: "KVM: SVM: Manually recalc all MSR intercepts on userspace MSR filter change",
        when: "the filter denies FS_BASE and later allows it",
        wrong: "every access exits for ever",
        right: "the bit is clear again",
        kernels: None, None, still: false
    }
    NewDenialNotApplied = "MSR-M11" {
        "Installing a filter posts no request to the vCPUs", Imagined, upstream: "KVM: x86: Introduce MSR filtering",
        when: "a filter that denies a passed-through MSR is installed at run time",
        wrong: "the guest accesses the MSR without an exit",
        right: "every vCPU recalculates before its next entry",
        kernels: None, None, still: false
    }
    GhcbAlwaysPassed = "MSR-M12" {
        "The GHCB MSR is passed through to every guest", Released, upstream: "KVM: SVM: Pass through GHCB MSR if and only if VM is an SEV-ES guest",
        when: "a VM without SEV-ES",
        wrong: "bits 33376 and 33377 of the map are 0",
        right: "they are 1",
        kernels: Some("5.11"), Some("6.17"), still: false
    }
    SpecCtrlAlwaysPassed = "MSR-M13" {
        "With virtual SPEC_CTRL, the MSR is passed through whatever the guest's CPUID says", Released, upstream: "KVM: SVM: Disable interception of SPEC_CTRL iff the MSR exists for the guest",
        when: "the host virtualizes SPEC_CTRL and the guest's CPUID has none of its four features",
        wrong: "native accesses succeed although emulated ones fault",
        right: "every access exits and faults",
        kernels: Some("5.14"), Some("6.17"), still: false
    }
    NestedMapStartsOpen = "MSR-M14" {
        "The nested map starts with the always-passed MSRs open", Released, upstream: "KVM: nSVM: Don't initialize vmcb02 MSRPM with vmcb01's \"always passthrough\"",
        when: "a nested guest runs",
        wrong: "MSRs outside the merged chunks, such as GHCB, reach L2 though L0 and L1 intercept them",
        right: "the nested map starts all ones",
        kernels: Some("before 6.1"), Some("6.17"), still: false
    }
    MergeAnds = "MSR-M15" {
        "The maps of L0 and L1 are ANDed", Imagined, upstream: "KVM: nSVM: Use dedicated array of MSRPM offsets to merge L0 and L1 bitmaps",
        when: "one of the two hypervisors intercepts an MSR and the other does not",
        wrong: "L2 reaches an MSR that one of them intercepts",
        right: "a bit of the merged map is the OR of both",
        kernels: None, None, still: false
    }
    MergeTakesL1Only = "MSR-M15.2" {
        "The merged map is L1's", Imagined, upstream: "KVM: nSVM: Use dedicated array of MSRPM offsets to merge L0 and L1 bitmaps",
        when: "L0 intercepts an MSR of a merged chunk and L1 does not",
        wrong: "L2 reaches an MSR of the host",
        right: "a bit of the merged map is the OR of both",
        kernels: None, None, still: false
    }
    MergeTakesL0Only = "MSR-M15.3" {
        "The merged map is L0's", Imagined, upstream: "KVM: nSVM: Use dedicated array of MSRPM offsets to merge L0 and L1 bitmaps",
        when: "L1 intercepts an MSR that L0 passes through",
        wrong: "L1 misses exits",
        right: "a bit of the merged map is the OR of both",
        kernels: None, None, still: false
    }
    X2apicChunkMerged = "MSR-M16" {
        "Chunks that hold x2APIC MSRs are in the merge list", Imagined, upstream: "KVM: nSVM: Use dedicated array of MSRPM offsets to merge L0 and L1 bitmaps",
        when: "x2AVIC is active and L1 does not intercept the x2APIC MSRs",
        wrong: "L2 reads and writes L1's APIC",
        right: "the nested map intercepts 0x800 to 0x8ff",
        kernels: None, None, still: false
    }
    RecalcFlagClearedFirst = "MSR-M17" {
        "The flag that forces a merge is cleared before the merge", Imagined, upstream: "KVM: nSVM: Implement Enlightened MSR-Bitmap feature",
        when: "an enlightened L1, and a chunk of its map cannot be read once",
        wrong: "the next VMRUN skips the merge and uses a half-merged map",
        right: "the flag is cleared by a merge that succeeded",
        kernels: None, None, still: false
    }
    FailedMergeNotForced = "MSR-M17.2" {
        "A merge that fails half way leaves the flag as it was, which may be clear", Released, upstream: "KVM: nSVM: Implement Enlightened MSR-Bitmap feature",
        when: "an enlightened L1 changes its map, and a chunk of it cannot be read once",
        wrong: "the next VMRUN with the clean bit skips the merge and uses a half-merged map",
        right: "a failed merge forces the next one",
        kernels: Some("5.17"), None, still: true
    }
    SkipOnCleanBitAlone = "MSR-M17b" {
        "The clean bit alone skips the merge", Imagined, upstream: "KVM: nSVM: Implement Enlightened MSR-Bitmap feature",
        when: "L1 did not enable the enlightenment but its clean bit is set",
        wrong: "an old map is used after L1 changed its own",
        right: "skipping needs hypercalls, enlightenment and clean bit",
        kernels: None, None, still: false
    }
    SkipOnEnlightenmentAlone = "MSR-M17b.2" {
        "The enlightenment alone skips the merge", Imagined, upstream: "KVM: nSVM: Implement Enlightened MSR-Bitmap feature",
        when: "L1 enabled the enlightenment and cleared the clean bit",
        wrong: "an old map is used after L1 changed its own",
        right: "skipping needs hypercalls, enlightenment and clean bit",
        kernels: None, None, still: false
    }
    NewVmcb12NotForced = "MSR-M17c" {
        "A VMRUN of another VMCB does not force a merge", Imagined, upstream: "KVM: nSVM: Implement Enlightened MSR-Bitmap feature",
        when: "an enlightened L1 switches from one VMCB to another",
        wrong: "L2 B runs with the map of L2 A",
        right: "another VMCB address forces a merge",
        kernels: None, None, still: false
    }
    MergeReadFailureIgnored = "MSR-M18" {
        "A chunk of L1's map that cannot be read is skipped", Imagined, upstream: "KVM: nSVM: Use dedicated array of MSRPM offsets to merge L0 and L1 bitmaps",
        when: "L1's map reaches into memory that cannot be read",
        wrong: "L2 runs with a partly old map",
        right: "VMRUN fails with VMEXIT_INVALID",
        kernels: None, None, still: false
    }
    QueryConsultsUnusedMap = "MSR-M19" {
        "Whether SPEC_CTRL writes exit is looked up in the nested map although L2 runs under vmcb01's", Released, upstream: "KVM/SVM: Allow direct access to MSR_IA32_SPEC_CTRL",
        when: "L1 does not intercept MSRs at all and L2 runs",
        wrong: "the guest's SPEC_CTRL is not read back after the exit",
        right: "the map to which the VMCB points is consulted",
        kernels: Some("4.16"), Some("after 6.17 (also in the stable kernels 6.1.y and 6.12.y)"), still: false
    }
    NestedMapKeptWithoutMsrProt = "MSR-M19.2" {
        "L2 keeps running under the nested map after L1 stopped intercepting MSRs", Imagined, upstream: "KVM: nSVM: Use dedicated array of MSRPM offsets to merge L0 and L1 bitmaps",
        when: "a VMRUN with MSR_PROT, then one without",
        wrong: "MSRs that nobody intercepts any more exit, or the reverse",
        right: "without MSR_PROT, L2 runs under vmcb01's map",
        kernels: None, None, still: false
    }
    SkipBeforeMsrProt = "MSR-M19.3" {
        "The promise that nothing changed is looked at before MSR_PROT, so that an old nested map comes into use", Released, upstream: "KVM: nSVM: Implement Enlightened MSR-Bitmap feature",
        when: "an enlightened L1 without MSR_PROT enters twice, after an entry with it",
        wrong: "L2 exits for MSRs that neither hypervisor intercepts; for APERF and MPERF, L2 gets #GP",
        right: "without MSR_PROT, L2 runs under vmcb01's map",
        kernels: Some("5.17"), None, still: true
    }
    ChunkUnitsMixed = "MSR-M20" {
        "A chunk index counted in one width addresses an array of the other", Imagined, upstream: "KVM: nSVM: Merge MSRPM in 64-bit chunks on 64-bit kernels",
        when: "any merge",
        wrong: "wrong chunks of L1's map are read and merged",
        right: "the index and the access have one width",
        kernels: None, None, still: false
    }
    RecalcOnlyClears = "MSR-M21" {
        "A recalculation never sets a bit", Imagined, upstream: "KVM: SVM: Manually recalc all MSR intercepts on userspace MSR filter change",
        when: "an MSR that was passed through may no longer be",
        wrong: "it is still passed through",
        right: "the map is a function of configuration and filter",
        kernels: None, None, still: false
    }
    RecalcOnlySets = "MSR-M21.2" {
        "A recalculation never clears a bit", Imagined, upstream: "KVM: SVM: Manually recalc all MSR intercepts on userspace MSR filter change",
        when: "an MSR that exited may be passed through",
        wrong: "it exits for ever",
        right: "the map is a function of configuration and filter",
        kernels: None, None, still: false
    }
    LbrRecalcSkipped = "MSR-M22" {
        "The LBR MSRs are not recomputed while LBR virtualization stays as it is", Released, upstream: "KVM: SVM: Fix redundant updates of LBR MSR intercepts",
        when: "LBR virtualization is on, and a new filter denies 0x1db",
        wrong: "the MSR is still passed through",
        right: "it is intercepted",
        kernels: Some("6.18"), None, still: true
    }
    LbrConditionFromVmcb01 = "MSR-M23" {
        "Whether LBR virtualization is on is read from vmcb01 while another VMCB is current", Imagined, upstream: "KVM: nSVM: Always recalculate LBR MSR intercepts in svm_update_lbrv()",
        when: "L2 runs and its LBR virtualization differs from L1's",
        wrong: "the LBR bits do not fit the VMCB that runs",
        right: "the current VMCB decides",
        kernels: None, None, still: false
    }
    LvttPassed = "MSR-M24" {
        "x2AVIC passes the LVT timer register through", Imagined, upstream: "KVM: SVM: Do not virtualize MSR accesses for APIC LVTT register",
        when: "x2AVIC is active",
        wrong: "a guest's write of TSC-deadline mode faults in hardware",
        right: "LVTT always exits",
        kernels: None, None, still: false
    }
    SysenterPassedForIntel = "MSR-M25" {
        "SYSENTER_ESP and SYSENTER_EIP are passed through to a guest that believes it runs on Intel", Released, upstream: "KVM: nSVM: improve SYSENTER emulation on AMD",
        when: "the guest's CPUID names Intel",
        wrong: "64-bit values are cut to 32 bits",
        right: "they are emulated and keep 64 bits",
        kernels: Some("before 5.13"), Some("5.13"), still: false
    }
    TscAuxNeedsBoth = "MSR-M26" {
        "TSC_AUX is passed through only if the guest has RDTSCP and RDPID", Imagined, upstream: "KVM: SVM: Fix TSC_AUX virtualization setup",
        when: "an SEV-ES guest with one of the two",
        wrong: "TSC_AUX exits",
        right: "either suffices",
        kernels: None, None, still: false
    }
    XssNeedsEither = "MSR-M27" {
        "XSS is passed through if KVM or the guest has XSAVES", Imagined, upstream: "KVM: SEV: Do not intercept accesses to MSR_IA32_XSS for SEV-ES guests",
        when: "an SEV-ES guest where only one of the two has XSAVES",
        wrong: "XSS is passed through",
        right: "both are needed",
        kernels: None, None, still: false
    }
    CommandReadPassed = "MSR-M28" {
        "Reads of the write-only command MSRs are passed through", Imagined, upstream: "KVM: x86: Virtualize FLUSH_L1D and passthrough MSR_IA32_FLUSH_CMD",
        when: "the guest has PRED_CMD or FLUSH_CMD",
        wrong: "a read does not exit",
        right: "only writes are passed through",
        kernels: None, None, still: false
    }
    FilterAppliesToX2apic = "MSR-M29" {
        "The filter applies to x2APIC MSRs", Imagined, upstream: "KVM: x86: Introduce MSR filtering",
        when: "a filter denies an MSR from 0x800 to 0x8ff",
        wrong: "the access is refused",
        right: "such MSRs cannot be filtered",
        kernels: None, None, still: false
    }
    LastRangeWins = "MSR-M30" {
        "The last matching range of a filter decides", Imagined, upstream: "KVM: x86: Introduce MSR filtering",
        when: "two ranges of a filter overlap and disagree",
        wrong: "the later one decides",
        right: "the first match decides",
        kernels: None, None, still: false
    }
    RangeFlagsIgnored = "MSR-M30.2" {
        "A range of a filter decides both accesses, whatever its flags", Imagined, upstream: "KVM: x86: Introduce MSR filtering",
        when: "a range for reads only holds an MSR that is written",
        wrong: "the read range decides the write",
        right: "the search goes on with the next range",
        kernels: None, None, still: false
    }
    WrappingRangeMatches = "MSR-M31" {
        "A range whose end passes 2^32 is taken as huge", Imagined, upstream: "KVM: x86: Introduce MSR filtering",
        when: "base + nmsrs reaches 2^32",
        wrong: "MSRs from its base on match",
        right: "it never matches",
        kernels: None, None, still: false
    }
    FastPathIgnoresFilter = "MSR-M32" {
        "The fast path of WRMSR to TSC_DEADLINE does not consult the filter", Released, upstream: "KVM: X86: TSCDEADLINE MSR emulation fastpath",
        when: "a filter denies writes of 0x6e0 and the fast path is taken",
        wrong: "the timer is armed",
        right: "the write is refused like any other",
        kernels: Some("5.10"), None, still: true
    }
    ExitWithoutMask = "MSR-M33" {
        "A filtered access leaves for userspace although it did not ask", Imagined, upstream: "KVM: x86: Allow deflecting unknown MSR accesses to user space",
        when: "the mask of KVM_CAP_X86_USER_SPACE_MSR lacks FILTER",
        wrong: "KVM_EXIT_X86_RDMSR or KVM_EXIT_X86_WRMSR",
        right: "the guest gets #GP(0)",
        kernels: None, None, still: false
    }
    FaultDespiteMask = "MSR-M33.2" {
        "A filtered access faults although userspace asked for it", Imagined, upstream: "KVM: x86: Allow deflecting unknown MSR accesses to user space",
        when: "the mask of KVM_CAP_X86_USER_SPACE_MSR has FILTER",
        wrong: "the guest gets #GP(0)",
        right: "KVM_EXIT_X86_RDMSR or KVM_EXIT_X86_WRMSR with reason FILTER",
        kernels: None, None, still: false
    }
    RequestBeforeSwap = "MSR-M34" {
        "The request to recalculate is posted before the new filter is visible", Imagined, upstream: "KVM: x86: Introduce MSR filtering",
        when: "a vCPU enters the guest between the two",
        wrong: "it recalculates from the old filter, and never again",
        right: "the filter is swapped first",
        kernels: None, None, still: false
    }
    NestedMapNotRefiltered = "MSR-M35" {
        "A filter or CPUID change while L2 runs reaches only L1's map", Released, upstream: "KVM: x86: Introduce MSR filtering",
        when: "the vCPU is in L2 when the filter changes",
        wrong: "L2 accesses a denied MSR until the next nested entry",
        right: "it is filtered from its next instruction",
        kernels: Some("5.10"), None, still: true
    }
    OutOfRangeNotIntercepted = "MSR-M36" {
        "An out-of-range MSR counts as passed through", Imagined, upstream: "KVM: SVM: Drop explicit check on MSRPM offset when emulating SEV-ES accesses",
        when: "userspace accesses an MSR such as 0x40000000 of an SEV-ES vCPU",
        wrong: "the access is refused",
        right: "it is handled as usual",
        kernels: None, None, still: false
    }
    ResetDoesNotRecalculate = "MSR-M37" {
        "A vCPU reset leaves the map as it was", Imagined, upstream: "KVM: SVM: Merge \"after set CPUID\" intercept recalc helpers",
        when: "the configuration changed and the vCPU is reset",
        wrong: "the map belongs to the old configuration",
        right: "a reset recalculates",
        kernels: None, None, still: false
    }
    CpuidDoesNotRecalculate = "MSR-M38" {
        "Setting CPUID leaves the map as it was", Imagined, upstream: "KVM: SVM: Merge \"after set CPUID\" intercept recalc helpers",
        when: "the guest gains or loses FLUSH_L1D",
        wrong: "FLUSH_CMD writes are still intercepted, or still passed through",
        right: "setting CPUID recalculates",
        kernels: None, None, still: false
    }
    VmxHighRangeOffsetWrong = "MSR-M39" {
        "The high range of the VMX bitmap shares the bits of the low range", Imagined, upstream: "KVM: VMX: Macrofy the MSR bitmap getters and setters",
        when: "an MSR from 0xc0000000 on",
        wrong: "0xc0000101 and 0x101 share a bit",
        right: "the high range begins at 0x400 and 0xc00",
        kernels: None, None, still: false
    }
    VmxWriteHalfMisplaced = "MSR-M39.2" {
        "The write bits of the VMX bitmap are taken from the high read half", Imagined, upstream: "KVM: VMX: Macrofy the MSR bitmap getters and setters",
        when: "a write of an MSR of the low range",
        wrong: "the read bit of a high MSR decides",
        right: "write bits begin at 0x800",
        kernels: None, None, still: false
    }
    VmxCoversThirdBlock = "MSR-M39.3" {
        "MSRs from 0xc0010000 on are taken as covered by the VMX bitmap", Imagined, upstream: "KVM: VMX: Macrofy the MSR bitmap getters and setters",
        when: "an MSR such as 0xc0010117",
        wrong: "the bit of 0xc0000117 decides",
        right: "it always exits",
        kernels: None, None, still: false
    }
    StaleX2apicBits = "MSR-M40" {
        "x2APIC bits that L1 once opened stay open after it stops virtualizing the x2APIC", Released, upstream: "KVM: x86: nVMX: close leak of L0's x2APIC MSRs (CVE-2019-3887)",
        when: "L1 turns virtualize-x2APIC off between two entries",
        wrong: "L2 accesses L0's x2APIC",
        right: "0x800 to 0x8ff are intercepted",
        kernels: Some("4.16"), Some("5.1"), still: false
    }
    L1WithoutBitmapsUsesVmcs01 = "MSR-M41" {
        "L2 runs under vmcs01's bitmap if L1 uses none", Imagined, upstream: "KVM: nVMX: Prepare for using hardware MSR bitmap",
        when: "L1 clears \"use MSR bitmaps\"",
        wrong: "L1 misses exits",
        right: "every access exits, to L1",
        kernels: None, None, still: false
    }
    NestedVmxLacksAperfMperf = "MSR-M42" {
        "The nested VMX merge leaves out APERF and MPERF", Posted, upstream: "KVM: x86: Provide a capability to disable APERF/MPERF read intercepts",
        when: "reads of both are passed through to L1, and L1 passes them to L2",
        wrong: "L2's RDMSR exits, L0 has no emulation, and L2 gets #GP",
        right: "L2 reads the host's value",
        kernels: Some("v4 posting of 2025"), Some("6.17"), still: false
    }
    XfdPassedEarly = "MSR-M43" {
        "XFD is passed through before the guest wrote a non-zero value", Imagined, upstream: "kvm: x86: Disable interception for IA32_XFD on demand",
        when: "the guest never wrote XFD",
        wrong: "XFD writes do not exit and #NM is not intercepted in time",
        right: "the first non-zero write exits",
        kernels: None, None, still: false
    }
    SpecCtrlNotSaved = "MSR-M44" {
        "SPEC_CTRL is not read back after an exit although the guest can write it", Imagined, upstream: "KVM/VMX: Allow direct access to MSR_IA32_SPEC_CTRL",
        when: "SPEC_CTRL is passed through",
        wrong: "the guest's value is lost",
        right: "it is saved if, and only if, writes do not exit",
        kernels: None, None, still: false
    }
    MapChangeNotFlagged = "MSR-M45" {
        "Changing an intercept sets neither the merge flag nor the Hyper-V clean bit", Imagined, upstream: "KVM: nSVM: Implement Enlightened MSR-Bitmap feature",
        when: "an intercept changes after a nested merge",
        wrong: "an enlightened merge is skipped, and L0's Hyper-V keeps the old map",
        right: "both are marked whenever a bit may have changed",
        kernels: None, None, still: false
    }
    MapFlaggedWithoutChange = "MSR-M45.2" {
        "Every nested transition marks the maps as changed", Released, upstream: "KVM: SVM: Fix redundant updates of LBR MSR intercepts",
        when: "an enlightened L1 enters L2 again without any change",
        wrong: "every VMRUN merges",
        right: "the merge is skipped",
        kernels: Some("6.18 release candidates, and stable kernels"), Some("6.18"), still: false
    }
    BothBitsWritten = "MSR-M46" {
        "The helper for one access writes both bits of the MSR", Imagined, upstream: "KVM: SVM: Add helpers for accessing MSR bitmap that don't rely on offsets",
        when: "one access of an MSR is changed",
        wrong: "the other access changes with it",
        right: "only the bit of the named access changes",
        kernels: None, None, still: false
    }
    MsrProtDropped = "MSR-M47" {
        "L2 runs without MSR_PROT if L1 clears it", Imagined, upstream: "KVM: SVM: Add function to recalculate intercept masks",
        when: "L1 does not intercept MSRs",
        wrong: "L2 accesses every MSR of the host",
        right: "the intercepts of L0 and L1 are ORed",
        kernels: None, None, still: false
    }
    DisabledExitsTruncated = "AP-M1" {
        "The test of a disabled exit is kept in one bit without normalising", Imagined, upstream: "KVM: x86: Replace growing set of *_in_guest bools with a u64",
        when: "any exit but MWAIT is disabled",
        wrong: "it counts as enabled",
        right: "each predicate is its own bit",
        kernels: None, None, still: false
    }
    DisabledExitsAfterVcpu = "AP-M2" {
        "Exits can be disabled after a vCPU was created", Released, upstream: "KVM: x86: Disallow KVM_CAP_X86_DISABLE_EXITS after vCPU creation",
        when: "KVM_ENABLE_CAP after KVM_CREATE_VCPU",
        wrong: "old vCPUs intercept and new ones do not",
        right: "EINVAL and no change",
        kernels: Some("4.17"), Some("6.14"), still: false
    }
    UnsupportedExitIgnored = "AP-M3" {
        "A bit that this host cannot disable is silently dropped", Released, upstream: "KVM: x86: Reject disabling of MWAIT/HLT interception when not allowed",
        when: "KVM_ENABLE_CAP with a bit outside what KVM_CHECK_EXTENSION returns",
        wrong: "0, and the other bits take effect",
        right: "EINVAL and no bit takes effect",
        kernels: Some("4.17"), Some("6.14"), still: false
    }
    DisabledExitsAssigned = "AP-M4" {
        "A second call replaces the mask", Imagined, upstream: "KVM: x86: Replace growing set of *_in_guest bools with a u64",
        when: "two calls of KVM_ENABLE_CAP",
        wrong: "the first call's bits are lost",
        right: "the calls accumulate",
        kernels: None, None, still: false
    }
    AperfWritePassed = "AP-M5" {
        "Writes of APERF and MPERF are passed through as well", Imagined, upstream: "KVM: x86: Provide a capability to disable APERF/MPERF read intercepts",
        when: "APERF/MPERF exits are disabled",
        wrong: "the guest writes the host's counter",
        right: "only reads are passed through",
        kernels: None, None, still: false
    }
    OfferedWithoutHostFeature = "AP-M6" {
        "The bit is offered on a host without APERF and MPERF", Imagined, upstream: "KVM: x86: Provide a capability to disable APERF/MPERF read intercepts",
        when: "the host's CPUID.6:ECX[0] is 0",
        wrong: "RDMSR reaches an MSR that does not exist",
        right: "KVM_CHECK_EXTENSION leaves the bit out",
        kernels: None, None, still: false
    }
    AperfIgnoresFilter = "AP-M7" {
        "APERF and MPERF are passed through whatever the filter says", Imagined, upstream: "KVM: x86: Provide a capability to disable APERF/MPERF read intercepts",
        when: "APERF/MPERF exits are disabled and a filter denies reads of them",
        wrong: "the read does not exit",
        right: "the read exits",
        kernels: None, None, still: false
    }
    NestedSvmLacksAperfMperf = "AP-M8" {
        "The nested SVM merge list leaves out APERF and MPERF", Imagined, upstream: "KVM: x86: Provide a capability to disable APERF/MPERF read intercepts",
        when: "reads of both are passed through to L1, and L1 passes them to L2",
        wrong: "L2's RDMSR exits, L0 has no emulation, and L2 gets #GP",
        right: "L2 reads the host's value",
        kernels: None, None, still: false
    }
    AperfNeverSetAgain = "AP-M9" {
        "A recalculation opens APERF and MPERF but never closes them", Imagined, upstream: "KVM: x86: Provide a capability to disable APERF/MPERF read intercepts",
        when: "the mask loses the bit (only a model allows that), or the filter starts to deny",
        wrong: "the reads are still passed through",
        right: "the bits follow mask and filter",
        kernels: None, None, still: false
    }
}}}
