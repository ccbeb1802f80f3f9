//! What only the kernel can do: bytes from a file to a socket without a copy, and reads that do not wait.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{MsgFlags, send};
use nix::sys::socket::{setsockopt, sockopt::TcpNoDelay};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Sends file bytes from `offset` on; how many the socket took.
///
/// # Errors
///
/// `WouldBlock` when the socket is full; what the disk or the socket says.
pub(super) fn sendfile(socket: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: u64, bytes: usize) -> io::Result<usize> {
    let mut offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    // SAFETY: both descriptors are borrowed for the call, and `offset` is a valid place to write to.
    let sent = unsafe { libc::sendfile(socket.as_raw_fd(), file.as_raw_fd(), &raw mut offset, bytes) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Whether the byte at `offset` can be read without waiting for the disk.
pub(super) fn is_cached(file: BorrowedFd<'_>, offset: u64) -> bool {
    let mut byte = [0_u8];
    read_now(file, &mut byte, offset).is_ok()
}

/// Reads what is in the page cache.
///
/// # Errors
///
/// `WouldBlock` when the disk would have to be waited for.
pub(super) fn read_now(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let vector = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    // SAFETY: the one vector points to `buffer`, which is exclusively borrowed for the call.
    let read = unsafe { libc::preadv2(file.as_raw_fd(), &raw const vector, 1, offset, libc::RWF_NOWAIT) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// Has the kernel read file bytes ahead. Blocks while it queues the reads.
pub(super) fn read_ahead(file: BorrowedFd<'_>, offset: u64, bytes: usize) {
    let Ok(offset) = libc::off64_t::try_from(offset) else {
        return;
    };
    // SAFETY: takes no pointers. A failure only means that the read itself waits.
    let _ = unsafe { libc::readahead(file.as_raw_fd(), offset, bytes) };
}

/// Holds back packets that are not full (on), or lets them go (off).
pub(super) fn cork(socket: BorrowedFd<'_>, on: bool) {
    let value = libc::c_int::from(on);
    let size = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or(0);
    // SAFETY: `value` lives for the call, and `size` is its size. A failure costs speed only.
    let _ = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_CORK,
            (&raw const value).cast(),
            size,
        )
    };
}

/// Lets every packet go at once.
pub(super) fn no_delay(socket: BorrowedFd<'_>) {
    let _ = setsockopt(&socket, TcpNoDelay, &true);
}

/// Sends bytes from memory; how many the socket took.
///
/// # Errors
///
/// `WouldBlock` when the socket is full; what the socket says.
pub(super) fn send_bytes(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    Ok(send(
        socket.as_raw_fd(),
        bytes,
        MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
    )?)
}

/// Bytes that the other side of a TCP connection has acknowledged so far. `None` where the kernel does not say.
pub(super) fn acknowledged(socket: RawFd) -> Option<u64> {
    /// `tcpi_bytes_acked`, the sixteenth eight bytes of `struct tcp_info` (linux/tcp.h), since Linux 4.1.
    const AT: usize = 15;
    let mut info = [0_u64; AT + 1];
    let mut size = libc::socklen_t::try_from(size_of_val(&info)).ok()?;
    let whole = size;
    // SAFETY: `info` is exclusively borrowed for the call and has `size` bytes. A number that is no socket is refused.
    let outcome = unsafe {
        libc::getsockopt(
            socket,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut size,
        )
    };
    (outcome == 0 && size == whole).then_some(info[AT])
}

/// A second descriptor of an open one that is known by its number only, as pingora gives its sockets.
///
/// # Errors
///
/// No descriptor is left.
pub(super) fn duplicate(raw: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the number belongs to the session's stream, which the caller borrows.
    unsafe { BorrowedFd::borrow_raw(raw) }.try_clone_to_owned()
}

/// Has the runtime tell when the descriptor takes more.
///
/// # Errors
///
/// The kernel watches no more.
pub(super) fn watch_writable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by what is returned, so it stays open and the same while watched.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::WRITABLE) }?)
}
