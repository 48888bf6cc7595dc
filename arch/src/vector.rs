//! Exception vectors: names, error codes and classes (SDM Vol. 3A "Exception and Interrupt Reference").

/// How the reported RIP relates to the instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// RIP points at the instruction.
    Fault,
    /// RIP points after it.
    Trap,
    /// RIP is not reliable.
    Abort,
    /// #DB: fault or trap by cause.
    FaultOrTrap,
    /// Not an exception.
    Interrupt,
}

/// One row of the vector table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vector {
    /// 0 to 31.
    pub number: u8,
    /// Mnemonic, such as `#GP`.
    pub name: &'static str,
    /// Whether delivery pushes an error code in protected mode.
    pub error_code: bool,
    /// Fault, trap or abort.
    pub class: Class,
}

macro_rules! vectors {
    ($($konst:ident = $n:literal $name:literal $ec:literal $class:ident;)*) => {
        $(#[doc = $name] pub const $konst: u8 = $n;)*
        /// Every defined vector below 32, ascending.
        pub const TABLE: &[Vector] =
            &[$(Vector { number: $n, name: $name, error_code: $ec, class: Class::$class }),*];
    };
}

vectors! {
    DE = 0 "#DE" false Fault;
    DB = 1 "#DB" false FaultOrTrap;
    NMI = 2 "NMI" false Interrupt;
    BP = 3 "#BP" false Trap;
    OF = 4 "#OF" false Trap;
    BR = 5 "#BR" false Fault;
    UD = 6 "#UD" false Fault;
    NM = 7 "#NM" false Fault;
    DF = 8 "#DF" true Abort;
    TS = 10 "#TS" true Fault;
    NP = 11 "#NP" true Fault;
    SS = 12 "#SS" true Fault;
    GP = 13 "#GP" true Fault;
    PF = 14 "#PF" true Fault;
    MF = 16 "#MF" false Fault;
    AC = 17 "#AC" true Fault;
    MC = 18 "#MC" false Abort;
    XM = 19 "#XM" false Fault;
    VE = 20 "#VE" false Fault;
    CP = 21 "#CP" true Fault;
    HV = 28 "#HV" false Fault;
    VC = 29 "#VC" true Fault;
    SX = 30 "#SX" true Fault;
}

/// The table row of `vector`, if it is a defined exception or NMI.
pub fn row(vector: u8) -> Option<&'static Vector> {
    TABLE.iter().find(|row| row.number == vector)
}
