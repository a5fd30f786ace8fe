//! The allocator of the C library, told what this program does: it takes large pieces again and again while it is busy, and
//! owns next to nothing while it is not.
//!
//! Left alone, glibc gives large pieces back to the kernel at once and takes them again, page by page, for the next
//! request; and what lies scattered after a burst it keeps for ever. Other C libraries are left alone.

/// Pieces up to this size come from the heap instead of a mapping of their own, in bytes.
#[cfg(target_env = "gnu")]
const FROM_HEAP: i32 = 8 << 20;

/// So much free memory at the end of the heap is kept while the program is busy, in bytes.
#[cfg(target_env = "gnu")]
const KEPT: i32 = 64 << 20;

/// Call it once, before much is allocated.
pub fn prepare() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt changes two numbers of the allocator; this is called before any other thread is started.
    unsafe {
        // It fails only for numbers that it does not know, and then nothing is lost but speed.
        libc::mallopt(libc::M_MMAP_THRESHOLD, FROM_HEAP);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

/// Gives all pages of the heap that are free back to the kernel. It goes through the whole heap: call it when little else is to
/// be done.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim may be called at any time; it touches only memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}
