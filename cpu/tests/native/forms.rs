//! Instruction forms to compare: every `Code` of the wanted CPUID features with every operand kind that it encodes.

use iced_x86::{Code, CpuidFeature, Encoder, Instruction, OpKind, Register};

/// One form: the instruction and its bytes (with a zero immediate at the end, if it has one).
pub(crate) struct Form {
    pub(crate) code: Code,
    pub(crate) bytes: Vec<u8>,
    pub(crate) immediate: bool,
    pub(crate) memory: bool,
}

#[derive(Clone, Copy)]
enum Candidate {
    Register(Register),
    Memory,
    Mask,
    Immediate,
}

fn candidates(n: u32) -> Vec<Candidate> {
    use Register as R;
    let registers: &[Register] = match n {
        0 => &[R::XMM1, R::XMM9, R::MM1, R::AL, R::AX, R::EAX, R::RAX, R::ST0, R::ST3],
        _ => &[R::XMM2, R::XMM10, R::MM2, R::CL, R::CX, R::ECX, R::RCX, R::ST0, R::ST2, R::XMM0],
    };
    let mut all: Vec<_> = registers.iter().map(|r| Candidate::Register(*r)).collect();
    all.extend([Candidate::Memory, Candidate::Immediate]);
    if n == 0 {
        all.push(Candidate::Mask);
    }
    all
}

fn set(instruction: &mut Instruction, n: u32, candidate: Candidate) {
    match candidate {
        Candidate::Register(register) => {
            instruction.set_op_kind(n, OpKind::Register);
            instruction.set_op_register(n, register);
        }
        Candidate::Memory => {
            instruction.set_op_kind(n, OpKind::Memory);
            instruction.set_memory_base(Register::RSI);
        }
        Candidate::Mask => instruction.set_op_kind(n, OpKind::MemorySegRDI),
        Candidate::Immediate => instruction.set_op_kind(n, OpKind::Immediate8),
    }
}

/// Every form of every code whose features satisfy `wanted`.
pub(crate) fn forms(wanted: impl Fn(&[CpuidFeature]) -> bool) -> Vec<Form> {
    let mut forms = Vec::new();
    let mut encoder = Encoder::new(64);
    for code in Code::values() {
        if !wanted(code.cpuid_features()) {
            continue;
        }
        let mut instruction = Instruction::new();
        instruction.set_code(code);
        let count = instruction.op_count();
        let mut stack = vec![instruction];
        for n in 0..count {
            stack = stack
                .iter()
                .flat_map(|instruction| {
                    candidates(n).into_iter().map(|candidate| {
                        let mut next = *instruction;
                        set(&mut next, n, candidate);
                        next
                    })
                })
                .collect();
        }
        for instruction in stack {
            if encoder.encode(&instruction, 0).is_ok() {
                let bytes = encoder.take_buffer();
                let kinds: Vec<_> = (0..count).map(|n| instruction.op_kind(n)).collect();
                forms.push(Form {
                    code,
                    bytes,
                    immediate: kinds.contains(&OpKind::Immediate8),
                    memory: kinds.iter().any(|k| matches!(k, OpKind::Memory | OpKind::MemorySegRDI)),
                });
            }
            let _ = encoder.take_buffer();
        }
    }
    forms
}
