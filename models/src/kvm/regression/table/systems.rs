//! The systems beside MSR interception: the catalogue's M-2 to M-11.

/// Hands the rows before and its own to `$last`.
macro_rules! systems { ($last:ident, $($before:tt)*) => { $last! { $($before)*
    TraceWidthStale = "M-2.1" {
        "MAXPHYADDR is cached when CPUID is set first, and never again", Imagined, upstream: "KVM: VMX: Use precomputed MAXPHYADDR for RTIT base MSR check",
        when: "the client changes CPUID.80000008H, and the guest writes IA32_RTIT_OUTPUT_BASE",
        wrong: "the check uses the old width",
        right: "the width of the last KVM_SET_CPUID2 counts",
        kernels: None, None, still: false
    }
    WidthShiftedInWord = "M-2.2" {
        "The mask of reserved address bits is made with a 32-bit shift", Imagined, upstream: "KVM: VMX: Use precomputed MAXPHYADDR for RTIT base MSR check",
        when: "MAXPHYADDR is at least 32 and the host has 32-bit words",
        wrong: "legal addresses are refused and illegal ones taken",
        right: "the mask has 64 bits",
        kernels: None, None, still: false
    }
    AbsentWidthIsZero = "M-2.3" {
        "A CPUID without leaf 80000008H gives a width of 0", Imagined, upstream: "KVM: VMX: Use precomputed MAXPHYADDR for RTIT base MSR check",
        when: "the guest's CPUID ends before 80000008H",
        wrong: "every address but 0 is refused",
        right: "the width is 36",
        kernels: None, None, still: false
    }
    TraceAlignment = "M-2.4" {
        "The output base is checked for 64-byte alignment", Imagined, upstream: "KVM: VMX: Use precomputed MAXPHYADDR for RTIT base MSR check",
        when: "the guest writes an address that is 64-byte aligned and no more",
        wrong: "it is accepted",
        right: "it must be 128-byte aligned: #GP",
        kernels: None, None, still: false
    }
    TraceStaysPassed = "M-2.5" {
        "The trace MSRs stay passed through after the guest stops tracing", Imagined, upstream: "KVM: x86: Implement Intel PT MSRs read/write emulation",
        when: "TraceEn goes from 1 to 0",
        wrong: "values that nobody checked reach the hardware",
        right: "accesses exit unless TraceEn is 1",
        kernels: None, None, still: false
    }
    TraceStaysIntercepted = "M-2.5.2" {
        "The trace MSRs are not passed through when the guest begins to trace", Imagined, upstream: "KVM: x86: Implement Intel PT MSRs read/write emulation",
        when: "TraceEn goes from 0 to 1",
        wrong: "every RDMSR of IA32_RTIT_STATUS exits",
        right: "accesses do not exit while TraceEn is 1",
        kernels: None, None, still: false
    }
    WrittenWhileTracing = "M-2.6" {
        "A WRMSR is accepted while the guest traces", Imagined, upstream: "KVM: VMX: Use precomputed MAXPHYADDR for RTIT base MSR check",
        when: "TraceEn is 1 and a WRMSR of another trace MSR is emulated",
        wrong: "the value is taken",
        right: "#GP, as the processor gives",
        kernels: None, None, still: false
    }
    BranchNeedsMtc = "M-2.7" {
        "BranchEn is tied to the MTC capability", Released, upstream: "KVM: VMX: RTIT_CTL_BRANCH_EN has no dependency on other CPUID bit",
        when: "the guest's PT has no MTC packets",
        wrong: "setting BranchEn faults",
        right: "BranchEn can always be set",
        kernels: Some("5.0"), Some("5.16"), still: false
    }
    InvpcidKeptWithoutControl = "M-3.1" {
        "CPUID keeps INVPCID without PCID where the processor lacks the control", Released, upstream: "KVM: VMX: Unconditionally clear CPUID.INVPCID if !CPUID.PCID",
        when: "a processor without \"enable INVPCID\", and a guest CPUID with INVPCID and without PCID",
        wrong: "the guest sees INVPCID and gets #UD for it",
        right: "INVPCID is cleared in the guest's CPUID",
        kernels: Some("3.6"), Some("5.10"), still: false
    }
    ExitingTreatedAsEnabling = "M-3.2" {
        "A control that makes an instruction exit is treated as one that enables it", Imagined, upstream: "KVM: VMX: Add a helper and macros to reduce boilerplate for sec exec ctls",
        when: "the guest has RDRAND or RDSEED, or lacks it",
        wrong: "the instruction exits though the guest has it, or executes though it has not",
        right: "such a control is off when the guest has the instruction",
        kernels: None, None, still: false
    }
    NestedFollowsControl = "M-3.3" {
        "What L1's hypervisor may set follows the control's state instead of CPUID", Imagined, upstream: "KVM: VMX: Add a helper and macros to reduce boilerplate for sec exec ctls",
        when: "the guest has RDRAND or RDSEED",
        wrong: "its hypervisor is refused the control that makes them exit",
        right: "it is offered when the guest has the instruction",
        kernels: None, None, still: false
    }
    NestedOnlyGains = "M-3.4" {
        "What L1's hypervisor may set is only added to", Imagined, upstream: "KVM: VMX: Add a helper and macros to reduce boilerplate for sec exec ctls",
        when: "KVM_SET_CPUID2 drops a feature that was there",
        wrong: "the hypervisor may still set the control",
        right: "the bit is cleared",
        kernels: None, None, still: false
    }
    AdjustsAbsentControl = "M-3.5" {
        "A control that the processor lacks is adjusted as well", Imagined, upstream: "KVM: VMX: Add a helper and macros to reduce boilerplate for sec exec ctls",
        when: "the guest's CPUID shows an instruction whose control does not exist",
        wrong: "VM entry fails because of the control",
        right: "both words are left alone",
        kernels: None, None, still: false
    }
    XsavesAlwaysEnabled = "M-3.6" {
        "\"Enable XSAVES/XRSTORS\" is not taken away from guests without XSAVES", Imagined, upstream: "KVM: VMX: Add a helper and macros to reduce boilerplate for sec exec ctls",
        when: "the guest's CPUID hides XSAVES",
        wrong: "XSAVES executes",
        right: "XSAVES gets #UD",
        kernels: None, None, still: false
    }
    Vmcs02InheritsInstructions = "M-3.7" {
        "vmcs02 inherits INVPCID, RDTSCP and XSAVES from vmcs01", Imagined, upstream: "KVM: VMX: Add a helper and macros to reduce boilerplate for sec exec ctls",
        when: "L1's hypervisor does not enable an instruction that L1 has",
        wrong: "L2 executes it",
        right: "the control comes from vmcs12 alone",
        kernels: None, None, still: false
    }
    PositionTakenForSlot = "M-4.1" {
        "The position in the vCPU's array is taken for the slot of the MSR", Imagined, upstream: "KVM: VMX: Rename \"shared_msr_entry\" to \"vmx_uret_msr\"",
        when: "compaction has reordered the array",
        wrong: "the guest's STAR is written into IA32_FMASK",
        right: "the entry's own slot is used",
        kernels: None, None, still: false
    }
    ComparedWithHost = "M-4.2" {
        "Whether a value is there already is looked up in the host's values", Imagined, upstream: "KVM: x86: Rename \"shared_msrs\" to \"user_return_msrs\"",
        when: "another vCPU's value is in the processor and the next one wants the host's",
        wrong: "it is not written, and the other's stays",
        right: "what the hardware has now is compared",
        kernels: None, None, still: false
    }
    NotifierBoundToTask = "M-4.3" {
        "The host's values come back only when the task returns that changed them", Imagined, upstream: "KVM: x86: Rename \"shared_msrs\" to \"user_return_msrs\"",
        when: "another task returns to user mode first",
        wrong: "it runs with a guest's values",
        right: "any task's return restores them",
        kernels: None, None, still: false
    }
    UserReturnMaskIgnored = "M-4.4" {
        "The mask of an entry is ignored", Released, upstream: "KVM: x86: do not modify masked bits of shared MSRs",
        when: "the guest's IA32_TSX_CTRL differs from the host's in CPUID_CLEAR",
        wrong: "TSX vanishes under the host's kernel",
        right: "bits outside the mask keep the host's value",
        kernels: Some("before 5.5"), Some("5.5"), still: false
    }
    TscAuxAlwaysLoaded = "M-4.5" {
        "TSC_AUX is loaded for guests without RDTSCP", Imagined, upstream: "KVM: VMX: Rename \"shared_msr_entry\" to \"vmx_uret_msr\"",
        when: "a guest without RDTSCP and RDPID",
        wrong: "its value is in the processor until the next return to user mode",
        right: "it is not loaded",
        kernels: None, None, still: false
    }
    ActiveSetNotRebuilt = "M-4.6" {
        "Clearing EFER.SCE or leaving long mode does not rebuild the set", Imagined, upstream: "KVM: VMX: Rename \"shared_msr_entry\" to \"vmx_uret_msr\"",
        when: "a guest with SYSCALL clears EFER.SCE",
        wrong: "its LSTAR is still loaded",
        right: "the set is rebuilt and loaded anew",
        kernels: None, None, still: false
    }
    EferSwitchedTwice = "M-4.7" {
        "EFER stays a user-return MSR although the VMCS switches it", Imagined, upstream: "KVM: VMX: Rename \"shared_msr_entry\" to \"vmx_uret_msr\"",
        when: "guest and host differ in EFER.NXE",
        wrong: "it is written twice, and the kernel runs with the guest's",
        right: "exactly one mechanism switches it",
        kernels: None, None, still: false
    }
    NotifierRegisteredTwice = "M-4.8" {
        "The notifier is registered at every write", Imagined, upstream: "KVM: x86: Rename \"shared_msrs\" to \"user_return_msrs\"",
        when: "two MSRs are written before a return to user mode",
        wrong: "the list of notifiers is corrupt",
        right: "it is registered once",
        kernels: None, None, still: false
    }
    RefusedValueKept = "M-4.9" {
        "A guest's value is kept although the processor refused it", Imagined, upstream: "KVM: x86: Prevent host from panicking on shared MSR writes.",
        when: "WRMSR of a user-return MSR faults",
        wrong: "RDMSR gives a value that the hardware never had",
        right: "the old value stays",
        kernels: None, None, still: false
    }
    NotifiedBeforePosted = "M-5.1" {
        "ON is set before the request", Imagined, upstream: "KVM: VMX: Extract posted interrupt support to separate files",
        when: "the notification is handled in between",
        wrong: "the request is there with ON = 0, and nobody looks",
        right: "first the request, then ON",
        kernels: None, None, still: false
    }
    OutstandingIgnored = "M-5.2" {
        "A notification is sent whether or not one is outstanding", Imagined, upstream: "KVM: VMX: Extract posted interrupt support to separate files",
        when: "two interrupts are posted in a row",
        wrong: "two IPIs are sent",
        right: "one IPI a transition of ON",
        kernels: None, None, still: false
    }
    SuppressedPostsForgotten = "M-5.3" {
        "ON is not recomputed when notifications are allowed again", Released, upstream: "KVM: x86: Recompute PID.ON when clearing PID.SN",
        when: "a device posts while the vCPU is preempted",
        wrong: "the interrupt is not noticed",
        right: "requests set ON when SN is cleared",
        kernels: Some("4.4"), Some("5.0"), still: false
    }
    RequestsReadBeforeSuppression = "M-5.4" {
        "Whether something is requested is read before SN is cleared", Imagined, upstream: "KVM: x86: Recompute PID.ON when clearing PID.SN",
        when: "a device posts between the two",
        wrong: "the interrupt is not noticed",
        right: "SN is cleared first",
        kernels: None, None, still: false
    }
    WakeupVectorKept = "M-5.5" {
        "NV stays the wake-up vector when a blocked vCPU runs again", Imagined, upstream: "KVM: VMX: Extract posted interrupt support to separate files",
        when: "a device posts to the running guest",
        wrong: "an exit instead of a delivery",
        right: "NV is the notification vector",
        kernels: None, None, still: false
    }
    TakenFromNewList = "M-5.6" {
        "A vCPU is taken off the list of the processor where it goes", Imagined, upstream: "KVM: VMX: Extract posted interrupt support to separate files",
        when: "a blocked vCPU wakes on another processor",
        wrong: "it stays on the old list",
        right: "it is taken off the list where it is",
        kernels: None, None, still: false
    }
    OutstandingClearedLate = "M-5.7" {
        "ON is cleared after the requests are read", Imagined, upstream: "KVM: VMX: Extract posted interrupt support to separate files",
        when: "an interrupt is posted in between",
        wrong: "its request is there with ON = 0",
        right: "ON is cleared first",
        kernels: None, None, still: false
    }
    RviOverwritten = "M-5.8" {
        "RVI becomes the vector posted last", Imagined, upstream: "KVM: VMX: Extract posted interrupt support to separate files",
        when: "a lower vector is posted while a higher one waits",
        wrong: "the lower one arrives first",
        right: "RVI is the maximum",
        kernels: None, None, still: false
    }
    NotifiesItself = "M-5.9" {
        "A vCPU that posts to itself sends itself an IPI", Imagined, upstream: "KVM: VMX: Extract posted interrupt support to separate files",
        when: "the thread posts for its own vCPU on the way into the guest",
        wrong: "a spurious notification",
        right: "no IPI: the entry finds the request",
        kernels: None, None, still: false
    }
    DestinationUnshifted = "M-5.10" {
        "NDST has the xAPIC ID in bits 7:0", Imagined, upstream: "KVM: VMX: Extract posted interrupt support to separate files",
        when: "the APICs are in xAPIC mode",
        wrong: "notifications go to another processor",
        right: "the ID is in bits 15:8",
        kernels: None, None, still: false
    }
    RequestsTakenInTwoSteps = "M-5.11" {
        "A word of requests is read, then zeroed", Imagined, upstream: "KVM: VMX: Extract posted interrupt support to separate files",
        when: "an interrupt is posted in between",
        wrong: "it is lost",
        right: "the word is exchanged with 0",
        kernels: None, None, still: false
    }
    WarnsAndContinues = "M-11.1" {
        "A broken invariant is warned of, and L0 goes on with what it has", Released, upstream: "KVM: Add infrastructure and macro to mark VM as bugged",
        when: "an internal invariant of one VM does not hold",
        wrong: "the guest runs on with a wrong state",
        right: "the VM is refused service with EIO",
        kernels: Some("before 5.15"), Some("5.15"), still: false
    }
    OthersNotKicked = "M-11.2" {
        "The other vCPUs are not told that the VM is bugged", Imagined, upstream: "KVM: Add infrastructure and macro to mark VM as bugged",
        when: "another vCPU is in the guest",
        wrong: "it goes on running the guest's code",
        right: "it leaves the guest and gets EIO",
        kernels: None, None, still: false
    }
    MarkerDoesNotWait = "M-11.3" {
        "Whoever marks the VM does not wait for the other vCPUs", Imagined, upstream: "KVM: Add infrastructure and macro to mark VM as bugged",
        when: "another vCPU is in the guest",
        wrong: "the marker goes on while it is still there",
        right: "the marker goes on when nobody runs the guest's code",
        kernels: None, None, still: false
    }
    OnlyOneCallFails = "M-11.4" {
        "The call that found the error fails, and nothing is remembered", Imagined, upstream: "KVM: Add infrastructure and macro to mark VM as bugged",
        when: "the client calls KVM_RUN again",
        wrong: "the guest is entered again",
        right: "every call answers EIO from then on",
        kernels: None, None, still: false
    }
    DeviceAndCompatNotRefused = "M-11.5" {
        "Ioctls of devices and of 32-bit clients are not refused", Imagined, upstream: "KVM: Add infrastructure and macro to mark VM as bugged",
        when: "a client uses a device's descriptor, or is a 32-bit program",
        wrong: "the call is served",
        right: "it answers EIO",
        kernels: None, None, still: false
    }
    DeadIsGlobal = "M-11.6" {
        "That a VM is dead is kept for the whole host", Imagined, upstream: "KVM: Add infrastructure and macro to mark VM as bugged",
        when: "two VMs on one host",
        wrong: "the other refuses service as well",
        right: "other VMs go on",
        kernels: None, None, still: false
    }
    MarkedWithWarning = "M-11.7" {
        "A VM is marked only when the warning is printed", Imagined, upstream: "KVM: Add infrastructure and macro to mark VM as bugged",
        when: "a second VM breaks the same invariant",
        wrong: "it is not marked",
        right: "it is marked without a second warning",
        kernels: None, None, still: false
    }
    ConditionTruncated = "M-11.8" {
        "The condition is kept in a 32-bit int", Released, upstream: "KVM: allow KVM_BUG/KVM_BUG_ON to handle 64-bit cond",
        when: "the condition is a 64-bit value whose lower half is 0",
        wrong: "the error is missed",
        right: "any value but 0 counts",
        kernels: Some("5.15"), Some("6.5"), still: false
    }
    DeadRunReturnsZero = "M-11.9" {
        "KVM_RUN of another vCPU returns 0 with an old exit reason", Imagined, upstream: "KVM: Add infrastructure and macro to mark VM as bugged",
        when: "the VM is marked while another vCPU is in KVM_RUN",
        wrong: "the client handles an exit that never was",
        right: "KVM_RUN returns EIO",
        kernels: None, None, still: false
    }
    RequestTestedAfterExit = "M-11.10" {
        "The request is tested only after the guest was entered once more", Imagined, upstream: "KVM: Add infrastructure and macro to mark VM as bugged",
        when: "the VM is marked while another vCPU is on its way into the guest",
        wrong: "the guest runs once more",
        right: "it is tested last before the entry",
        kernels: None, None, still: false
    }
    DeadVmNotDestroyed = "M-11.11" {
        "What frees a vCPU refuses dead VMs", Imagined, upstream: "KVM: Add infrastructure and macro to mark VM as bugged",
        when: "the descriptors of a dead VM are closed",
        wrong: "its memory is lost",
        right: "everything is freed",
        kernels: None, None, still: false
    }
    BuggedButNotDead = "M-11.12" {
        "A bugged VM is not dead", Imagined, upstream: "KVM: generalize \"bugged\" VM to \"dead\" VM",
        when: "an internal invariant does not hold",
        wrong: "the VM goes on getting service",
        right: "bugged means dead",
        kernels: None, None, still: false
    }
    DeadCountsAsBugged = "M-11.12.2" {
        "A VM whose state has moved to another host counts as bugged", Imagined, upstream: "KVM: generalize \"bugged\" VM to \"dead\" VM",
        when: "intra-host migration of an SEV guest has succeeded",
        wrong: "its source is reported as an internal error",
        right: "it is dead and not bugged",
        kernels: None, None, still: false
    }
    SegmentCacheNotCleared = "M-7.1" {
        "The segment cache is not cleared after L2's segment registers are written to vmcs02", Released, upstream: "KVM: nVMX: Reset the segment cache when stuffing guest segs",
        when: "unrestricted guest is off, L1 changes the privilege level of the next entry, and the vCPU is preempted after the switch to vmcs02",
        wrong: "L1's entry fails with reason 0x80000021",
        right: "the entry succeeds",
        kernels: Some("before 5.10"), Some("5.10"), still: false
    }
    SegmentCacheKeptByInit = "M-7.1c" {
        "The segment cache is not cleared after INIT has written the last segment register", Released, upstream: "KVM: VMX: reset the segment cache after segment init in vmx_vcpu_reset()",
        when: "the vCPU is preempted while INIT writes its segment registers",
        wrong: "the old privilege level is seen after INIT",
        right: "the cache is cleared after the last write",
        kernels: Some("3.0"), Some("6.12"), still: false
    }
    Vmcs01NotReloaded = "M-7.2" {
        "vmcs01 is not loaded again when a page that vmcs12 names is missing", Released, upstream: "KVM: nVMX: Reload vmcs01 if getting vmcs12's pages fails",
        when: "L1 enters with an APIC-access address outside its memory",
        wrong: "KVM_RUN returns with vmcs02 loaded, and the next one runs L1 on it",
        right: "vmcs01 is loaded, L1 is as before its instruction, and the next KVM_RUN tries again",
        kernels: Some("before 5.10"), Some("5.10"), still: false
    }
    ValidityAskedOfEmulation = "M-7.3" {
        "Whether L2's segments are valid depends on whether L0 would emulate invalid ones", Released, upstream: "KVM: nVMX: Explicitly check for valid guest state for !unrestricted guest",
        when: "unrestricted guest is off, emulate_invalid_guest_state is 0, and vmcs12's segments are invalid",
        wrong: "the hardware refuses L0's entry",
        right: "L1's entry fails with reason 0x80000021",
        kernels: Some("before 5.10"), Some("5.10"), still: false
    }
    FreedWhileLoaded = "M-7.4" {
        "vmcs02 is freed though it is loaded", Released, upstream: "KVM: nVMX: Ensure vmcs01 is the loaded VMCS when freeing nested state",
        when: "the vCPU is destroyed while L2 runs",
        wrong: "the processor goes on writing to freed memory",
        right: "vmcs01 is loaded first",
        kernels: Some("before 5.10"), Some("5.10"), still: false
    }
    LoadedVmcsNotLookedAt = "M-7.5" {
        "Whether there is nested state is tested before which VMCS is loaded", Imagined, upstream: "KVM: nVMX: Ensure vmcs01 is the loaded VMCS when freeing nested state",
        when: "INIT ends L1's VMX operation while L2 runs",
        wrong: "vmcs02 stays loaded",
        right: "vmcs01 is loaded in any case",
        kernels: None, None, still: false
    }
    NestedStateFreedTwice = "M-7.6" {
        "The destruction of a vCPU frees the nested state twice", Imagined, upstream: "KVM: nVMX: Drop redundant VMCS switch and free_nested() call",
        when: "a vCPU is destroyed",
        wrong: "memory is freed twice",
        right: "it is freed once",
        kernels: None, None, still: false
    }
    RedundantSwitchForgets = "M-7.7" {
        "A switch to the VMCS that is loaded forgets the cached registers", Imagined, upstream: "KVM: nVMX: WARN on attempt to switch the currently loaded VMCS",
        when: "RIP is changed and vmcs01 is made current though it is",
        wrong: "the change is lost, and the instruction executes again",
        right: "nothing happens",
        kernels: None, None, still: false
    }
    SegmentsHaveQualification = "M-7.8" {
        "A failed entry because of segments has the qualification of another check", Imagined, upstream: "KVM: nVMX: Explicitly check for valid guest state for !unrestricted guest",
        when: "vmcs12's segments are invalid",
        wrong: "L1 reads a qualification other than 0",
        right: "the qualification is 0",
        kernels: None, None, still: false
    }
    GuestModeStays = "M-7.9" {
        "An entry that fails late leaves the vCPU in guest mode", Imagined, upstream: "KVM: nVMX: Do early preparation of vmcs02 before check_vmentry_postreqs()",
        when: "vmcs12's segments are invalid, or an MSR of the entry-load list cannot be loaded",
        wrong: "L1's exits are handled as if they were L2's",
        right: "L1 runs, and its exits are its own",
        kernels: None, None, still: false
    }
    ControlsFailAsExit = "M-7.10" {
        "Invalid controls are reported as a failed entry instead of VMfail", Imagined, upstream: "KVM: nVMX: Do early preparation of vmcs02 before check_vmentry_postreqs()",
        when: "a control of vmcs12 is set that L1 may not set",
        wrong: "L1 gets an exit with reason 0x80000021",
        right: "VMfailValid with error 7",
        kernels: None, None, still: false
    }
    ExitTracesInterruption = "M-8.1" {
        "kvm_exit shows the interruption information as its second information", Imagined, upstream: "KVM: x86: Add intr/vectoring info and error code to kvm_exit tracepoint",
        when: "an exit during the delivery of an event",
        wrong: "which event it was cannot be seen",
        right: "info2 is the IDT-vectoring information, and the interruption information has a column",
        kernels: None, None, still: false
    }
    VectoringReadLate = "M-8.1b" {
        "The copy of the IDT-vectoring information is read only after kvm_exit", Released, upstream: "KVM: VMX: read idt_vectoring_info a bit earlier",
        when: "an exit during the delivery of an event",
        wrong: "kvm_exit shows 0 where kvm_nested_vmexit of the same exit shows the event",
        right: "it is read before the event is traced",
        kernels: Some("5.10"), Some("5.12"), still: false
    }
    OldErrorTraced = "M-8.2" {
        "The error code is shown whether or not there is one", Imagined, upstream: "KVM: x86: Add intr/vectoring info and error code to kvm_exit tracepoint",
        when: "an exit without error code follows one with",
        wrong: "the column keeps the old one",
        right: "the column is 0",
        kernels: None, None, still: false
    }
    FailedEntryTracesOld = "M-8.3" {
        "A failed entry shows the event fields of an earlier exit", Imagined, upstream: "KVM: x86: Add intr/vectoring info and error code to kvm_exit tracepoint",
        when: "the processor refuses the guest's state after an exit by an event",
        wrong: "info2, intr_info and error_code are left over",
        right: "they are 0",
        kernels: None, None, still: false
    }
    TracingOffReads = "M-8.4" {
        "Fields that only the trace needs are read without tracing", Imagined, upstream: "KVM: nVMX: Read EXIT_QUAL and INTR_INFO only when needed for nested exit",
        when: "L0 handles an exit of L2 with tracing off",
        wrong: "VMREADs are made for nothing",
        right: "nothing is read on account of tracing",
        kernels: None, None, still: false
    }
    ErrorFieldOverwritten = "M-8.5" {
        "A reflected exit without error code overwrites vmcs12's field", Imagined, upstream: "KVM: nVMX: Read EXIT_QUAL and INTR_INFO only when needed for nested exit",
        when: "an exit without error code goes to L1",
        wrong: "the field has some other value",
        right: "the field is left alone",
        kernels: None, None, still: false
    }
    NestedTraceDiffers = "M-8.6" {
        "kvm_exit and kvm_nested_vmexit of one exit differ", Imagined, upstream: "KVM: x86: Use common definition for kvm_nested_vmexit tracepoint",
        when: "any exit of L2",
        wrong: "a field of the two lines differs",
        right: "they are the same but for the name",
        kernels: None, None, still: false
    }
    OnlyReflectedTraced = "M-8.7" {
        "kvm_nested_vmexit is there only for exits that L1 gets", Imagined, upstream: "KVM: x86: Use common definition for kvm_nested_vmexit tracepoint",
        when: "L0 handles an exit of L2",
        wrong: "there is no such line",
        right: "one line for every exit in guest mode",
        kernels: None, None, still: false
    }
    InjectTracedEarly = "M-8.8" {
        "kvm_nested_vmexit_inject is printed before vmcs12 is complete", Imagined, upstream: "KVM: x86: Use common definition for kvm_nested_vmexit tracepoint",
        when: "an exit goes to L1",
        wrong: "the line shows the exit before",
        right: "it shows what L1 will read",
        kernels: None, None, still: false
    }
    ExitInformationKept = "M-8.9" {
        "What was read of the last exit is not forgotten", Imagined, upstream: "KVM: VMX: Cache vmcs.EXIT_QUALIFICATION using arch avail_reg flags",
        when: "two exits with different qualifications",
        wrong: "the first one's is shown and used",
        right: "it is read anew after every exit",
        kernels: None, None, still: false
    }
    EntryTracesOldRip = "M-8.10" {
        "kvm_entry shows the RIP of the VMCS while a newer one waits", Imagined, upstream: "KVM: x86: Add RIP to the kvm_entry, i.e. VM-Enter, tracepoint",
        when: "an instruction was emulated before the entry",
        wrong: "the instruction before is shown",
        right: "where the guest goes on is shown",
        kernels: None, None, still: false
    }
    ReasonFlagsDropped = "M-8.11" {
        "The flags above the basic exit reason are dropped", Imagined, upstream: "KVM: VMX: Convert vcpu_vmx.exit_reason to a union",
        when: "the processor refuses the guest's state",
        wrong: "INVALID_STATE alone",
        right: "INVALID_STATE FAILED_VMENTRY is shown",
        kernels: None, None, still: false
    }
}}}
