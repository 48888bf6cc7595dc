//! [`Point`]: the named places inside L0 where another task may continue, and what a task can wait for.

macro_rules! points {
    ($($(#[$meta:meta])* $name:ident = $number:literal $text:literal;)*) => {
        /// A place inside L0's code where it can be preempted. Numbers and names are stable: records refer to them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Point { $($(#[$meta])* $name = $number,)* }

        impl Point {
            /// Every point, ascending by number.
            pub const ALL: &'static [Point] = &[$(Point::$name),*];
            /// The name in reports.
            pub const fn name(self) -> &'static str {
                match self { $(Point::$name => $text,)* }
            }
        }
    };
}

points! {
    /// The run loop tests whether it should let others run, before every entry.
    Reschedule = 1 "reschedule";
    /// Interrupts are off and the guest is about to be entered.
    BeforeEntry = 2 "before-entry";
    /// The guest was left; nothing has been read from its control structure yet.
    AfterExit = 3 "after-exit";
    /// A lock is about to be taken.
    LockAcquire = 4 "lock-acquire";
    /// A lock has just been given back.
    LockRelease = 5 "lock-release";
    /// Another control structure has become current (vmcs01 and vmcs02, vmcb01 and vmcb02).
    SwitchControl = 6 "switch-control";
    /// L1's control structure has been read, nothing has been derived from it yet.
    NestedEntry = 7 "nested-entry";
    /// A nested exit is about to be handed to L1.
    NestedExit = 8 "nested-exit";
    /// L0 is about to read or write guest memory.
    GuestMemory = 9 "guest-memory";
    /// A second-stage entry was unlinked; the translation may still be cached.
    UnlinkToFlush = 10 "unlink-to-flush";
    /// A worker has done one round.
    WorkerRound = 11 "worker-round";
    /// An atomic step on a posted-interrupt descriptor, or one of a processor that takes interrupts.
    PostedInterrupt = 12 "posted-interrupt";
    /// A VM was marked bugged; its vCPUs may still be in the guest.
    Marked = 13 "marked";
    /// A segment register has been reset, others have not yet.
    SegmentReset = 14 "segment-reset";
}

/// What a task waits for when it hands back control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Nothing: it stands at a point and can continue whenever it is chosen.
    Point(Point),
    /// A physical CPU reaches a gate address.
    Gate(u8),
    /// A lock is free.
    Lock(u16),
    /// Something comes for the vCPU of this physical CPU, which sleeps.
    Asleep(u8),
    /// A flag is up.
    Flag(u16),
}
