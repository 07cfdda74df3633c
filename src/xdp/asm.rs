//! An assembler for eBPF: registers, labels, and the operations that the program needs.
//!
//! A label may be jumped to before it is bound; [`Asm::finish`] fills the distances in. Jumps go forward only, so
//! programs have no loops and the verifier's work is bounded.

use crate::sys::bpf::Insn;

/// A register: 0 is for results, 1 to 5 are for arguments and lost in calls, 6 to 9 are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "they have the names that the kernel's documents give them")]
pub(super) enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R6 = 6,
    R7,
    R8,
    R9,
    /// The end of the stack frame.
    Fp,
}

/// How many bytes are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Width {
    Word = 0x00,
    Half = 0x08,
    Byte = 0x10,
    Double = 0x18,
}

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Op {
    Add = 0x00,
    Mul = 0x20,
    Or = 0x40,
    And = 0x50,
    ShiftLeft = 0x60,
    ShiftRight = 0x70,
    Xor = 0xa0,
    Move = 0xb0,
}

/// When a jump is taken; comparisons are unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum When {
    Equal = 0x10,
    Above = 0x20,
    AtLeast = 0x30,
    /// A bit in common.
    AnyBit = 0x40,
    NotEqual = 0x50,
}

/// A place in the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// Functions of the kernel that are called (`enum bpf_func_id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Helper {
    MapLookup = 1,
    MapUpdate = 2,
    RedirectMap = 51,
    /// Linux 5.11.
    CoarseTime = 160,
    /// Linux 5.18.
    XdpBufferLength = 188,
}

const LOAD: u8 = 0x61;
const STORE_IMMEDIATE: u8 = 0x62;
const STORE: u8 = 0x63;
const ALU32: u8 = 0x04;
const ALU64: u8 = 0x07;
const JUMP: u8 = 0x05;
const JUMP32: u8 = 0x06;
/// The second operand is a register.
const BY_REGISTER: u8 = 0x08;
const LOAD_DOUBLE: u8 = 0x18;
/// In the source register of `LOAD_DOUBLE`: the value is a map's descriptor.
const MAP_DESCRIPTOR: u8 = 1;

/// A program being written.
#[derive(Debug, Default)]
pub(super) struct Asm {
    insns: Vec<Insn>,
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
}

impl Asm {
    fn push(&mut self, code: u8, destination: Reg, source: u8, off: i16, imm: i32) {
        self.insns.push(Insn { code, regs: destination as u8 | source << 4, off, imm });
    }

    /// A new label, to be bound later.
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// The label means this place.
    pub(super) fn bind(&mut self, label: Label) {
        assert!(self.labels[label.0].is_none(), "a label is bound once");
        self.labels[label.0] = Some(self.insns.len());
    }

    /// `d = d op s`.
    pub(super) fn op(&mut self, op: Op, d: Reg, s: Reg) {
        self.push(ALU64 | BY_REGISTER | op as u8, d, s as u8, 0, 0);
    }

    /// `d = d op value`.
    pub(super) fn op_value(&mut self, op: Op, d: Reg, value: i32) {
        self.push(ALU64 | op as u8, d, 0, 0, value);
    }

    /// `d = s`.
    pub(super) fn copy(&mut self, d: Reg, s: Reg) {
        self.op(Op::Move, d, s);
    }

    /// `d = value`.
    pub(super) fn set(&mut self, d: Reg, value: i32) {
        self.op_value(Op::Move, d, value);
    }

    /// `d = value` of all 64 bits.
    #[allow(clippy::cast_possible_truncation, reason = "the halves of a word")]
    pub(super) fn set_double(&mut self, d: Reg, value: u64) {
        self.push(LOAD_DOUBLE, d, 0, 0, value as i32);
        self.insns.push(Insn { imm: (value >> 32) as i32, ..Insn::default() });
    }

    /// `d = map`.
    pub(super) fn set_map(&mut self, d: Reg, descriptor: i32) {
        self.push(LOAD_DOUBLE, d, MAP_DESCRIPTOR, 0, descriptor);
        self.insns.push(Insn::default());
    }

    /// `d = address of the stack at off`.
    pub(super) fn set_stack(&mut self, d: Reg, off: i16) {
        self.copy(d, Reg::Fp);
        self.op_value(Op::Add, d, off.into());
    }

    /// The low half of `d` only: the upper one becomes zero.
    pub(super) fn low_half(&mut self, d: Reg) {
        self.push(ALU32 | BY_REGISTER | Op::Move as u8, d, d as u8, 0, 0);
    }

    /// `d = [s + off]`.
    pub(super) fn load(&mut self, width: Width, d: Reg, s: Reg, off: i16) {
        self.push(LOAD | width as u8, d, s as u8, off, 0);
    }

    /// `[d + off] = s`.
    pub(super) fn store(&mut self, width: Width, d: Reg, off: i16, s: Reg) {
        self.push(STORE | width as u8, d, s as u8, off, 0);
    }

    /// `[d + off] = value`.
    pub(super) fn store_value(&mut self, width: Width, d: Reg, off: i16, value: i32) {
        self.push(STORE_IMMEDIATE | width as u8, d, 0, off, value);
    }

    fn jump_from_here(&mut self, to: Label) {
        assert!(self.labels[to.0].is_none(), "jumps go forward");
        self.jumps.push((self.insns.len(), to));
    }

    /// Goes to `to`.
    pub(super) fn jump(&mut self, to: Label) {
        self.jump_from_here(to);
        self.push(JUMP, Reg::R0, 0, 0, 0);
    }

    /// Goes to `to` when `a` compares to `b`.
    pub(super) fn jump_if(&mut self, when: When, a: Reg, b: Reg, to: Label) {
        self.jump_from_here(to);
        self.push(JUMP | BY_REGISTER | when as u8, a, b as u8, 0, 0);
    }

    /// Goes to `to` when the low half of `a` compares to a value.
    pub(super) fn jump_if_value(&mut self, when: When, a: Reg, value: u32, to: Label) {
        self.jump_from_here(to);
        self.push(JUMP32 | when as u8, a, 0, 0, value.cast_signed());
    }

    /// Goes to `to` when `a`, which may be a pointer, is zero.
    pub(super) fn jump_if_null(&mut self, a: Reg, to: Label) {
        self.jump_from_here(to);
        self.push(JUMP | When::Equal as u8, a, 0, 0, 0);
    }

    /// Calls a function of the kernel.
    pub(super) fn call(&mut self, helper: Helper) {
        self.push(0x85, Reg::R0, 0, 0, helper as i32);
    }

    /// Returns `value`.
    pub(super) fn exit_with(&mut self, value: i32) {
        self.set(Reg::R0, value);
        self.exit();
    }

    /// Returns what is in R0.
    pub(super) fn exit(&mut self) {
        self.push(0x95, Reg::R0, 0, 0, 0);
    }

    /// The program, its jumps filled in.
    pub(super) fn finish(mut self) -> Vec<Insn> {
        for (at, label) in &self.jumps {
            let target = self.labels[label.0].expect("every label that is jumped to is bound");
            self.insns[*at].off = i16::try_from(target - at - 1).expect("a program of less than 32,768 instructions");
        }
        self.insns
    }
}
