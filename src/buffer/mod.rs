//! Pooled I/O buffers: one of the two rooms with `unsafe`.
//!
//! io_uring owns a buffer while an operation is in flight, so buffers move into operations and back. A [`Buf`] is a
//! window (`start..end`) over a fixed block with some room in front ([`HEADROOM`]): a head that has been parsed is
//! replaced by its rewritten form in place, right in front of the body bytes that arrived with it, and both leave in
//! one send without a copy of the body.
//!
//! Blocks come from a per-thread last-in-first-out pool, so that the block in use is the one whose pages are in the
//! cache, and return there when the `Buf` is dropped, also by a panic. The pool keeps a bounded number of free blocks;
//! what is over it is given back to the kernel.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;

use crate::rt::{IoBuf, IoBufMut};

mod laced;

pub use laced::Laced;

/// Room in front of a fresh buffer's window, in bytes: what a rewritten head may be longer than the original.
pub const HEADROOM: usize = 2 << 10;

/// Bytes that no read fills, at the end of a block: what a body's framing may need behind its last byte.
pub const TAIL: usize = 128;

/// Sizes of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// 16 KiB and headroom: a request head.
    Head,
    /// 66 KiB and headroom: bodies, responses, relays. Measured: 64 KiB responses cost 35 % less CPU with 64 KiB than
    /// with 16 KiB, and no less with 256 KiB. The rest is for their head: without it their last bytes came in a read of
    /// their own and left in a second send, 6.4 ring operations instead of 3.9 and 30.4 us instead of 26.3.
    Body,
    /// 128 KiB and headroom: TLS records on their way out, as many as one send carries.
    Records,
}

impl Class {
    const COUNT: usize = 3;

    /// Usable bytes, headroom not counted.
    pub const fn capacity(self) -> usize {
        match self {
            Self::Head => 16 << 10,
            Self::Body => 66 << 10,
            Self::Records => 128 << 10,
        }
    }

    const fn block(self) -> usize {
        self.capacity() + HEADROOM + TAIL
    }

    /// Free blocks kept per thread: 20 MiB of heads, 18 MiB of bodies, 8 MiB of records. Housekeeping trims them much
    /// further.
    const fn keep(self) -> usize {
        match self {
            Self::Head => 1024,
            Self::Body => 256,
            Self::Records => 64,
        }
    }
}

thread_local! {
    static FREE: [RefCell<Vec<Block>>; Class::COUNT] = const { [const { RefCell::new(Vec::new()) }; Class::COUNT] };
    static IN_USE: Cell<usize> = const { Cell::new(0) };
}

/// Buffers of this thread that are in use.
pub fn in_use() -> usize {
    IN_USE.get()
}

/// Frees what the pool of this thread keeps beyond `keep` blocks of each class.
pub fn trim(keep: usize) {
    FREE.with(|free| {
        for list in free {
            let mut list = list.borrow_mut();
            list.truncate(keep);
            list.shrink_to(keep);
        }
    });
}

/// A block of memory.
///
/// Blocks are mapped, not allocated, so that what a burst of connections needed goes back to the kernel when the pool
/// is trimmed: in the allocator it stayed (8,000 idle connections held 10 MB of it). With debug assertions they come
/// from the allocator all the same, where sanitizers see them.
///
/// They begin at different places of their pages. A window's first lines stand at the same distance from a block's beginning,
/// and what several hundred requests have there would share the few places of a cache that such addresses map to.
///
/// INVARIANT: `ptr` came from `map(class.block())` and every byte of it is initialised (both kinds give zeroes).
struct Block {
    ptr: NonNull<u8>,
    class: Class,
}

#[cfg(not(debug_assertions))]
fn map(len: usize) -> Option<NonNull<u8>> {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
    // SAFETY: a fresh private mapping at a place of the kernel's choice touches no memory of ours.
    let mapped = unsafe {
        mmap_anonymous(std::ptr::null_mut(), len + PAGE, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
    };
    let base = NonNull::new(mapped.ok()?.cast::<u8>())?;
    let place = PLACE.get();
    PLACE.set((place + STEP) % PAGE);
    // SAFETY: `place` is below a page, by which the mapping is longer.
    Some(unsafe { base.add(place) })
}

/// The size of a page, which is where mappings begin.
#[cfg(not(debug_assertions))]
const PAGE: usize = 4096;

/// From one block's place in its page to the next one's: an odd number of cache lines, so that all are come by, and
/// more than most heads have.
#[cfg(not(debug_assertions))]
const STEP: usize = 9 * 64;

#[cfg(not(debug_assertions))]
thread_local! {
    static PLACE: Cell<usize> = const { Cell::new(0) };
}

#[cfg(debug_assertions)]
fn map(len: usize) -> Option<NonNull<u8>> {
    // SAFETY: the length is a class's block and not zero.
    NonNull::new(unsafe { std::alloc::alloc_zeroed(layout(len)) })
}

/// Gives a block back.
///
/// # Safety
/// `ptr` came from `map(len)`, is given back once, and nothing refers to it any more.
#[cfg(not(debug_assertions))]
unsafe fn unmap(ptr: NonNull<u8>, len: usize) {
    let place = ptr.as_ptr() as usize % PAGE;
    // SAFETY: the caller's promise; a mapping begins at a page, and the block less than one behind that.
    let unmapped = unsafe { rustix::mm::munmap(ptr.as_ptr().sub(place).cast(), len + PAGE) };
    debug_assert!(unmapped.is_ok(), "a mapping of ours");
}

/// Gives a block back.
///
/// # Safety
/// `ptr` came from `map(len)`, is given back once, and nothing refers to it any more.
#[cfg(debug_assertions)]
unsafe fn unmap(ptr: NonNull<u8>, len: usize) {
    // SAFETY: allocated with this very layout (the caller's promise).
    unsafe { std::alloc::dealloc(ptr.as_ptr(), layout(len)) }
}

fn layout(len: usize) -> std::alloc::Layout {
    std::alloc::Layout::from_size_align(len, 64).expect("a constant size and a power of two")
}

impl Block {
    fn allocate(class: Class) -> Self {
        match map(class.block()) {
            Some(ptr) => Self { ptr, class },
            None => std::alloc::handle_alloc_error(layout(class.block())),
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the block is `class.block()` initialised bytes (invariant), borrowed as long as `self` is.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.class.block()) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.class.block()) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: mapped with this very length (invariant), dropped once, and borrows of it cannot outlive it.
        unsafe { unmap(self.ptr, self.class.block()) }
    }
}

/// A window over a pooled block.
///
/// INVARIANT: `start <= end <= class.block()`; `block` is `Some` until drop.
pub struct Buf {
    block: Option<Block>,
    start: usize,
    end: usize,
}

impl Buf {
    /// An empty window behind the headroom.
    pub fn new(class: Class) -> Self {
        let block = FREE
            .try_with(|free| free[class as usize].borrow_mut().pop())
            .ok()
            .flatten()
            .unwrap_or_else(|| Block::allocate(class));
        IN_USE.with(|n| n.set(n.get() + 1));
        Self { block: Some(block), start: HEADROOM, end: HEADROOM }
    }

    fn block(&self) -> &Block {
        self.block.as_ref().expect("present until drop")
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.block.as_mut().expect("present until drop").bytes_mut()
    }

    /// Its class.
    pub fn class(&self) -> Class {
        self.block().class
    }

    /// The bytes in the window.
    pub fn data(&self) -> &[u8] {
        &self.block().bytes()[self.start..self.end]
    }

    /// The bytes in the window.
    pub fn data_mut(&mut self) -> &mut [u8] {
        let range = self.start..self.end;
        &mut self.bytes_mut()[range]
    }

    /// Bytes in the window.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether the window is empty.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes that fit behind the window, [`TAIL`] not counted.
    pub fn room(&self) -> usize {
        (self.class().block() - TAIL).saturating_sub(self.end)
    }

    /// Whether the block has another byte behind the first `len` of the window.
    pub fn goes_on_behind(&self, len: usize) -> bool {
        self.start + len < self.class().block()
    }

    /// Drops `n` bytes from the front of the window.
    pub fn consume(&mut self, n: usize) {
        assert!(n <= self.len(), "consumed more than there is");
        self.start += n;
        if self.start == self.end {
            self.clear();
        }
    }

    /// Empties the window and moves it back behind the headroom.
    pub fn clear(&mut self) {
        self.start = HEADROOM;
        self.end = HEADROOM;
    }

    /// Moves the window's bytes back behind the headroom when little room is left behind them.
    pub fn compact(&mut self) {
        if self.start > HEADROOM {
            let (start, end) = (self.start, self.end);
            self.bytes_mut().copy_within(start..end, HEADROOM);
            self.start = HEADROOM;
            self.end = HEADROOM + (end - start);
        }
    }

    /// Appends `bytes` if they fit; says whether they did.
    #[must_use]
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > self.room() {
            return false;
        }
        let end = self.end;
        self.bytes_mut()[end..end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
        true
    }

    /// The room behind the window, for code that fills it by itself; [`Buf::filled`] takes it into the window.
    pub fn room_mut(&mut self) -> &mut [u8] {
        let (end, room) = (self.end, self.room());
        &mut self.bytes_mut()[end..end + room]
    }

    /// Takes the first `n` bytes of the room into the window.
    pub fn filled(&mut self, n: usize) {
        assert!(n <= self.room(), "filled more than there is room");
        self.end += n;
    }

    /// Position of the window's first byte in the block; [`Buf::set_window`] goes back to it.
    pub fn mark(&self) -> usize {
        self.start
    }

    /// Position behind the window's last byte in the block.
    pub fn mark_end(&self) -> usize {
        self.end
    }

    /// Sets the window to `range` of the block. Every byte of a block is initialised, so any range inside it is sound;
    /// whether its bytes mean anything is the caller's business.
    pub fn set_window(&mut self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.class().block(), "window outside of the block");
        self.start = range.start;
        self.end = range.end;
    }

    /// The whole block, for code that lays bytes out around the window.
    pub fn block_mut(&mut self) -> &mut [u8] {
        self.bytes_mut()
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        let Some(block) = self.block.take() else { return };
        let class = block.class;
        // Both can fail only while the thread's locals are being torn down; the block is freed then.
        let _gone = IN_USE.try_with(|n| n.set(n.get().saturating_sub(1)));
        let _gone = FREE.try_with(|free| {
            let mut free = free[class as usize].borrow_mut();
            if free.len() < class.keep() {
                free.push(block);
            }
        });
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buf").field("class", &self.class()).field("start", &self.start).field("end", &self.end).finish()
    }
}

/// A buffer in a read: the kernel fills the room behind the window.
#[derive(Debug)]
pub struct Fill(pub Buf);

// SAFETY: the pointer is into a heap block that does not move when the `Fill` does and lives as long as it; the room
// from `end` to the block's end belongs to the block, and `set_init` only grows the window inside it.
unsafe impl IoBufMut for Fill {
    fn write_ptr(&mut self) -> *mut u8 {
        let end = self.0.end;
        self.0.bytes_mut()[end..].as_mut_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.0.room()
    }

    unsafe fn set_init(&mut self, read: usize) {
        debug_assert!(read <= self.0.room());
        self.0.end += read;
    }
}

/// A buffer in a write: the kernel reads the first `len` bytes of the window.
///
/// INVARIANT: `len <= buf.len()`.
#[derive(Debug)]
pub struct Drain {
    buf: Buf,
    len: usize,
}

impl Drain {
    /// The first `len` bytes of `buf`.
    pub fn new(buf: Buf, len: usize) -> Self {
        assert!(len <= buf.len(), "more to write than there is");
        Self { buf, len }
    }

    /// The buffer back.
    pub fn into_buf(self) -> Buf {
        self.buf
    }
}

// SAFETY: the pointer is into a heap block that does not move when the `Drain` does and lives as long as it; `len`
// initialised bytes stand there (invariants of `Drain` and `Block`).
unsafe impl IoBuf for Drain {
    fn read_ptr(&self) -> *const u8 {
        self.buf.data().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_returns_to_its_pool_and_comes_back_first() {
        let mut buf = Buf::new(Class::Head);
        assert!(buf.push(b"abc"));
        let at = buf.data().as_ptr();
        let before = in_use();
        drop(buf);
        assert_eq!(in_use(), before - 1);
        let again = Buf::new(Class::Head);
        assert_eq!(again.len(), 0);
        assert_eq!(again.block().bytes()[HEADROOM..].as_ptr(), at);
    }

    #[test]
    fn windows_stay_inside() {
        let mut buf = Buf::new(Class::Head);
        assert_eq!(buf.room(), Class::Head.capacity());
        assert!(!buf.push(&vec![0; Class::Head.capacity() + 1]));
        assert!(buf.push(&vec![7; Class::Head.capacity()]));
        assert_eq!(buf.room(), 0);
        buf.consume(10);
        buf.compact();
        assert_eq!(buf.room(), 10);
        assert_eq!(buf.mark(), HEADROOM);
    }

    #[test]
    #[should_panic(expected = "more than there is")]
    fn consuming_too_much_is_a_bug() {
        Buf::new(Class::Head).consume(1);
    }
}
