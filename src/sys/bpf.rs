//! bpf(2): maps, programs, XDP links and their pins, without a library in between.
//!
//! A command is one structure of numbers and addresses. The structures below spell their padding out, because the
//! kernel refuses a structure whose unused bytes are not zero.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, ProtFlags};

/// One instruction, as the kernel takes it (`struct bpf_insn`).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Insn {
    /// Operation.
    pub code: u8,
    /// Destination in the low, source in the high half.
    pub regs: u8,
    /// Offset.
    pub off: i16,
    /// Immediate value.
    pub imm: i32,
}

/// Kinds of maps that are used (`enum bpf_map_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum MapKind {
    /// A hash table.
    Hash = 1,
    /// An array.
    Array = 2,
    /// An array with an element per processor.
    PerCpuArray = 6,
    /// A hash table that forgets what was not used lately.
    LruHash = 9,
    /// Interfaces by number.
    DevMapHash = 25,
}

/// Elements are allocated when they are put in.
pub const NO_PREALLOC: u32 = 1;
/// The elements can be mapped into memory.
pub const MMAPABLE: u32 = 1 << 10;

/// A map to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapSpec {
    /// Its name, at most 15 bytes.
    pub name: &'static str,
    /// Its kind.
    pub kind: MapKind,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value.
    pub value: u32,
    /// Elements at most.
    pub entries: u32,
    /// Of `NO_PREALLOC` and `MMAPABLE`.
    pub flags: u32,
}

const MAP_CREATE: i32 = 0;
const MAP_LOOKUP: i32 = 1;
const MAP_UPDATE: i32 = 2;
const MAP_DELETE: i32 = 3;
const MAP_NEXT_KEY: i32 = 4;
const PROG_LOAD: i32 = 5;
const OBJ_PIN: i32 = 6;
const OBJ_GET: i32 = 7;
const PROG_TEST_RUN: i32 = 10;
const OBJ_GET_INFO: i32 = 15;
const MAP_LOOKUP_BATCH: i32 = 24;
const LINK_CREATE: i32 = 28;
const LINK_UPDATE: i32 = 29;
const LINK_DETACH: i32 = 34;

/// `BPF_PROG_TYPE_XDP`.
const XDP: u32 = 6;
/// The attach type `BPF_XDP`.
const ATTACH_XDP: u32 = 37;

/// # Safety
///
/// Every address in `attr` must be good for what `command` reads or writes there.
unsafe fn bpf<A>(command: i32, attr: &mut A) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes `size_of::<A>()` bytes of `attr`; the addresses in it are the caller's part.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(result).expect("a descriptor or 0")) }
}

/// # Safety
///
/// As [`bpf`]; and `command` must be one that returns a new descriptor.
unsafe fn bpf_fd<A>(command: i32, attr: &mut A) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise; the new descriptor is nobody else's.
    unsafe { bpf(command, attr).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("an open descriptor")
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("less than 4 GiB")
}

fn address<T>(slice: &[T]) -> u64 {
    slice.as_ptr().addr() as u64
}

fn address_mut<T>(slice: &mut [T]) -> u64 {
    slice.as_mut_ptr().expose_provenance() as u64
}

fn name16(name: &str) -> [u8; 16] {
    let mut out = [0; 16];
    let kept = name.len().min(15);
    out[..kept].copy_from_slice(&name.as_bytes()[..kept]);
    out
}

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
    inner: u32,
    numa: u32,
    name: [u8; 16],
}

#[repr(C)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// A map.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    /// What it is.
    pub spec: MapSpec,
}

impl Map {
    /// Makes one.
    pub fn create(spec: MapSpec) -> io::Result<Self> {
        let mut attr = MapCreate {
            kind: spec.kind as u32,
            key: spec.key,
            value: spec.value,
            entries: spec.entries,
            flags: spec.flags,
            name: name16(spec.name),
            ..MapCreate::default()
        };
        // SAFETY: no addresses; the command returns a descriptor.
        let fd = unsafe { bpf_fd(MAP_CREATE, &mut attr)? };
        Ok(Self { fd, spec })
    }

    /// Opens a pinned one; `None` if it is not of the kind and sizes of `spec`, except for its number of elements.
    pub fn open(path: &Path, spec: MapSpec) -> io::Result<Option<Self>> {
        let fd = pinned(path)?;
        let mut info = MapInfo::default();
        object_info(fd.as_fd(), &mut info)?;
        let same = info.kind == spec.kind as u32 && info.key == spec.key && info.value == spec.value;
        let spec = MapSpec { entries: info.entries, ..spec };
        // The kernel adds flags of its own to some kinds.
        let flags = info.flags & (NO_PREALLOC | MMAPABLE);
        Ok((same && flags == spec.flags).then_some(Self { fd, spec }))
    }

    fn element(&self, key: &[u8], value: u64) -> Element {
        assert_eq!(key.len(), self.spec.key as usize, "the key's size");
        Element { map: number(self.fd.as_fd()), pad: 0, key: address(key), value, flags: 0 }
    }

    /// Puts an element in, or over the one that is there.
    pub fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        assert_eq!(value.len(), self.value_bytes(), "the value's size");
        let mut attr = self.element(key, address(value));
        // SAFETY: key and value have the sizes that the map has.
        unsafe { bpf(MAP_UPDATE, &mut attr).map(drop) }
    }

    /// Copies an element out; false: there is none.
    pub fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        assert_eq!(value.len(), self.value_bytes(), "the value's size");
        let mut attr = self.element(key, address_mut(value));
        // SAFETY: key and value have the sizes that the map has.
        found(unsafe { bpf(MAP_LOOKUP, &mut attr) })
    }

    /// Takes an element out; false: there is none.
    pub fn delete(&self, key: &[u8]) -> io::Result<bool> {
        let mut attr = self.element(key, 0);
        // SAFETY: the key has the size that the map has.
        found(unsafe { bpf(MAP_DELETE, &mut attr) })
    }

    /// All keys of a map that is not written to at the same time.
    pub fn keys(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut all: Vec<Vec<u8>> = Vec::new();
        loop {
            let mut next = vec![0; self.spec.key as usize];
            let mut attr = Element {
                map: number(self.fd.as_fd()),
                pad: 0,
                key: all.last().map_or(0, |last| address(last)),
                value: address_mut(&mut next),
                flags: 0,
            };
            // SAFETY: both keys have the size that the map has; no key asks for the first one.
            if !found(unsafe { bpf(MAP_NEXT_KEY, &mut attr) })? || all.len() >= self.spec.entries as usize {
                return Ok(all);
            }
            all.push(next);
        }
    }

    /// Visits every element, in batches. Elements that come and go meanwhile may be missed or seen twice.
    pub fn scan(&self, mut visit: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        const BATCH: usize = 4096;
        let (key, value) = (self.spec.key as usize, self.value_bytes());
        let (mut keys, mut values) = (vec![0; key * BATCH], vec![0; value * BATCH]);
        // The cursor is opaque: a bucket's number for hash tables, at most a key.
        let mut cursor = vec![0_u8; key.max(8)];
        let mut started = false;
        loop {
            let at = address_mut(&mut cursor);
            let mut attr = Batch {
                in_batch: if started { at } else { 0 },
                out_batch: at,
                keys: address_mut(&mut keys),
                values: address_mut(&mut values),
                count: length(BATCH),
                map: number(self.fd.as_fd()),
                element_flags: 0,
                flags: 0,
            };
            // SAFETY: room for `count` keys and values and for the cursor.
            let more = found(unsafe { bpf(MAP_LOOKUP_BATCH, &mut attr) })?;
            let count = attr.count as usize;
            for (key, value) in keys.chunks(key).zip(values.chunks(value)).take(count) {
                visit(key, value);
            }
            if !more {
                return Ok(());
            }
            started = true;
        }
    }

    /// Maps an array into memory.
    pub fn mmap(&self) -> io::Result<Memory> {
        let bytes = self.spec.value.next_multiple_of(8) as usize * self.spec.entries as usize;
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, protection, flags, &self.fd, 0)? };
        let at = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Memory { at, words: bytes / 8 })
    }

    /// Bytes that a value takes in user space: per-processor values come all at once.
    pub fn value_bytes(&self) -> usize {
        match self.spec.kind {
            MapKind::PerCpuArray => self.spec.value.next_multiple_of(8) as usize * processors(),
            _ => self.spec.value as usize,
        }
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn found(result: io::Result<i32>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Processors that the kernel keeps per-processor values for.
pub fn processors() -> usize {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = text.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<usize>().ok());
    last.map_or(1, |last| last + 1)
}

/// An array's memory, shared with the kernel.
#[derive(Debug)]
pub struct Memory {
    at: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the memory is shared with the kernel already; every access is atomic.
unsafe impl Send for Memory {}

impl Memory {
    /// Its words. Programs read them at any time, hence atomics: each is seen whole.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is `words` long, aligned to a page, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.words) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of which no reference is left.
        let unmapped = unsafe { rustix::mm::munmap(self.at.as_ptr().cast(), self.words * 8) };
        debug_assert!(unmapped.is_ok());
    }
}

#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    ifindex: u32,
    rest: [u32; 3],
}

#[repr(C)]
struct GetInfo {
    fd: u32,
    length: u32,
    info: u64,
}

fn object_info<I>(fd: BorrowedFd<'_>, info: &mut I) -> io::Result<()> {
    let at = std::ptr::from_mut(info).expose_provenance() as u64;
    let mut attr = GetInfo { fd: number(fd), length: length(size_of::<I>()), info: at };
    // SAFETY: the kernel writes at most `length` bytes to `info`, which is plain numbers.
    unsafe { bpf(OBJ_GET_INFO, &mut attr).map(drop) }
}

#[repr(C)]
struct ObjectPath {
    path: u64,
    fd: u32,
    flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Keeps an object alive by a file in bpffs.
pub fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = ObjectPath { path: address(path.as_bytes_with_nul()), fd: number(fd), flags: 0 };
    // SAFETY: the path ends in 0.
    unsafe { bpf(OBJ_PIN, &mut attr).map(drop) }
}

/// Opens a pinned object.
pub fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = ObjectPath { path: address(path.as_bytes_with_nul()), fd: 0, flags: 0 };
    // SAFETY: the path ends in 0; the command returns a descriptor.
    unsafe { bpf_fd(OBJ_GET, &mut attr) }
}

/// Why a program was not loaded.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refused the program: {error}{}{log}", if log.is_empty() { "" } else { ":\n" })]
pub struct LoadError {
    /// What it answered.
    pub error: io::Error,
    /// The end of the verifier's log.
    pub log: String,
}

#[repr(C)]
#[derive(Default)]
struct ProgramLoad {
    kind: u32,
    count: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach: u32,
}

/// Loads an XDP program.
pub fn load_xdp(insns: &[Insn], name: &str) -> Result<OwnedFd, LoadError> {
    let license = c"Dual BSD/GPL";
    let mut attr = ProgramLoad {
        kind: XDP,
        count: length(insns.len()),
        insns: address(insns),
        license: address(license.to_bytes_with_nul()),
        name: name16(name),
        attach: ATTACH_XDP,
        ..ProgramLoad::default()
    };
    // SAFETY: instructions and licence live through the call, which returns a descriptor.
    let error = match unsafe { bpf_fd(PROG_LOAD, &mut attr) } {
        Ok(fd) => return Ok(fd),
        Err(error) => error,
    };
    // Again, for the verifier's words.
    let mut log = vec![0_u8; 1 << 20];
    attr.log_level = 1;
    attr.log_size = length(log.len());
    attr.log = address_mut(&mut log);
    // SAFETY: as above, and the log has the size that is given.
    let _same_error = unsafe { bpf_fd(PROG_LOAD, &mut attr) };
    let text = String::from_utf8_lossy(&log[..log.iter().position(|byte| *byte == 0).unwrap_or(0)]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    Err(LoadError { error, log: lines[lines.len().saturating_sub(30)..].join("\n") })
}

/// Where in the receive path a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum XdpMode {
    /// In the stack, for any interface (`XDP_FLAGS_SKB_MODE`).
    Generic = 1 << 1,
    /// In the driver (`XDP_FLAGS_DRV_MODE`).
    Native = 1 << 2,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach: u32,
    flags: u32,
    pad: [u64; 4],
}

/// A program at an interface. It stays there while the link is open or pinned.
#[derive(Debug)]
pub struct Link {
    fd: OwnedFd,
}

impl Link {
    /// Attaches a program.
    pub fn attach(program: BorrowedFd<'_>, ifindex: u32, mode: XdpMode) -> io::Result<Self> {
        let mut attr = LinkCreate {
            program: number(program),
            ifindex,
            attach: ATTACH_XDP,
            flags: mode as u32,
            ..LinkCreate::default()
        };
        // SAFETY: no addresses; the command returns a descriptor.
        let fd = unsafe { bpf_fd(LINK_CREATE, &mut attr)? };
        Ok(Self { fd })
    }

    /// Opens a pinned one.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { fd: pinned(path)? })
    }

    /// The interface it is at; 0 when that has gone.
    pub fn ifindex(&self) -> io::Result<u32> {
        let mut info = LinkInfo::default();
        object_info(self.fd.as_fd(), &mut info)?;
        Ok(info.ifindex)
    }

    /// Puts another program in the place of the one it has: every packet meets the one or the other.
    pub fn update(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let mut attr = [number(self.fd.as_fd()), number(program), 0, 0];
        // SAFETY: no addresses.
        unsafe { bpf(LINK_UPDATE, &mut attr).map(drop) }
    }

    /// Takes the program from the interface, pinned or not.
    pub fn detach(&self) -> io::Result<()> {
        let mut attr = [number(self.fd.as_fd())];
        // SAFETY: no addresses.
        unsafe { bpf(LINK_DETACH, &mut attr).map(drop) }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    verdict: u32,
    in_size: u32,
    out_size: u32,
    input: u64,
    output: u64,
    repeat: u32,
    nanoseconds: u32,
    context_in_size: u32,
    context_out_size: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    pad: u32,
}

/// What a program did with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tested {
    /// What it returned.
    pub verdict: u32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// Nanoseconds of one run, on average.
    pub nanoseconds: u32,
}

/// Runs a program on a packet of at least 14 bytes, without any interface.
pub fn test_run(program: BorrowedFd<'_>, packet: &[u8], repeat: u32) -> io::Result<Tested> {
    let mut output = vec![0; packet.len() + 64];
    let mut attr = TestRun {
        program: number(program),
        in_size: length(packet.len()),
        out_size: length(output.len()),
        input: address(packet),
        output: address_mut(&mut output),
        repeat,
        ..TestRun::default()
    };
    // SAFETY: both packets have the sizes that are given.
    unsafe { bpf(PROG_TEST_RUN, &mut attr)? };
    output.truncate(attr.out_size as usize);
    Ok(Tested { verdict: attr.verdict, packet: output, nanoseconds: attr.nanoseconds })
}
