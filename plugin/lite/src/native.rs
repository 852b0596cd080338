//! TensorFlow Lite, and the process that tries a model out: all of this crate's unsafe code.
//!
//! # Safety
//! An [`Interpreter`] is made of bytes that it keeps: TensorFlow Lite reads the model from them for as long as it
//! lives, and they are neither moved nor changed. It is used by one thread at a time. The tensors whose numbers are
//! below the counts are there, and what is lent of them is as long as the library says; their addresses may change
//! with every allocation and every run, both of which take the interpreter for themselves (`&mut`), so that nothing
//! is lent meanwhile. No exception comes out of the shim.
//!
//! What the library does inside rests on the model being as it should: see `model.rs` for what is checked, and
//! [`rehearse`] for what is tried out.

use std::ffi::c_void;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::time::Duration;
use std::{ptr, slice};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid, pipe, read, write};

/// A model that is loaded, with its tensors.
#[derive(Debug)]
pub struct Interpreter {
    shim: NonNull<c_void>,
    /// The model. As a `Vec` it may be moved while others point to what it holds; as a `Box` it may not.
    model: Vec<u8>,
}

// SAFETY: the library does not mind which thread uses it, one at a time.
unsafe impl Send for Interpreter {}

impl Interpreter {
    /// Loads a model; its inputs are zeros.
    pub fn open(model: Vec<u8>, threads: u16) -> Option<Self> {
        // SAFETY: the bytes are there for as long as the interpreter, see the module.
        let shim = unsafe { lite_open(model.as_ptr().cast(), model.len(), threads.into()) };
        let mut made = Self { shim: NonNull::new(shim)?, model };
        made.clear();
        Some(made)
    }

    /// How many inputs it has.
    pub fn inputs(&self) -> usize {
        // SAFETY: the interpreter lives.
        usize::try_from(unsafe { lite_inputs(self.shim.as_ptr()) }).unwrap_or(0)
    }

    /// How many outputs it has.
    pub fn outputs(&self) -> usize {
        // SAFETY: the interpreter lives.
        usize::try_from(unsafe { lite_outputs(self.shim.as_ptr()) }).unwrap_or(0)
    }

    /// An input's bytes.
    pub fn input(&mut self, index: usize) -> Option<&mut [u8]> {
        let index = number(index, self.inputs())?;
        let (mut data, mut size) = (ptr::null_mut(), 0);
        // SAFETY: the input is there; what is lent lives until the interpreter is used for something else.
        unsafe {
            lite_input(self.shim.as_ptr(), index, &raw mut data, &raw mut size)
                .then(|| part(data, size).map(|(data, size)| slice::from_raw_parts_mut(data.as_ptr(), size)))?
        }
    }

    /// How many bytes an output has.
    pub fn output_bytes(&self, index: usize) -> Option<usize> {
        Some(self.output_memory(index)?.1)
    }

    /// An output's bytes; none where it has no memory before the first run.
    pub fn output(&self, index: usize) -> Option<&[u8]> {
        let (data, size) = self.output_memory(index)?;
        // SAFETY: as for inputs; the output is only read.
        part(data, size).map(|(data, size)| unsafe { slice::from_raw_parts(data.as_ptr(), size) })
    }

    fn output_memory(&self, index: usize) -> Option<(*mut u8, usize)> {
        let index = number(index, self.outputs())?;
        let (mut data, mut size) = (ptr::null_mut(), 0);
        // SAFETY: the interpreter lives, and the output is there.
        unsafe { lite_output(self.shim.as_ptr(), index, &raw mut data, &raw mut size) }.then_some((data, size))
    }

    /// Makes zeros of what the memory of inputs and outputs happens to hold.
    pub fn clear(&mut self) {
        for index in 0..self.inputs() {
            if let Some(bytes) = self.input(index) {
                bytes.fill(0);
            }
        }
        for (data, size) in (0..self.outputs()).filter_map(|index| self.output_memory(index)) {
            let Some((data, size)) = part(data, size) else { continue };
            // Outputs that are constants of the model are not written to.
            if !self.is_of_the_model(data.as_ptr()) {
                // SAFETY: as for inputs, and nothing is lent.
                unsafe { ptr::write_bytes(data.as_ptr(), 0, size) };
            }
        }
    }

    fn is_of_the_model(&self, data: *const u8) -> bool {
        self.model.as_ptr_range().contains(&data)
    }

    /// Gives each input a shape, and all tensors memory for it, which is zeros in the inputs and outputs.
    pub fn reshape(&mut self, shapes: &[Vec<i32>]) -> bool {
        for (index, shape) in shapes.iter().enumerate() {
            let (Some(index), Ok(count)) = (number(index, self.inputs()), i32::try_from(shape.len())) else {
                return false;
            };
            // SAFETY: the interpreter lives, the input is there, and the shape is as long as is said.
            if !unsafe { lite_resize_input(self.shim.as_ptr(), index, shape.as_ptr(), count) } {
                return false;
            }
        }
        // SAFETY: the interpreter lives.
        let allocated = unsafe { lite_allocate(self.shim.as_ptr()) };
        if allocated {
            self.clear();
        }
        allocated
    }

    /// Computes the outputs.
    pub fn invoke(&mut self) -> bool {
        // SAFETY: the interpreter lives, and its tensors have memory.
        unsafe { lite_invoke(self.shim.as_ptr()) }
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        // SAFETY: made by `open`, and freed once; the model goes after it.
        unsafe { lite_close(self.shim.as_ptr()) }
    }
}

fn number(index: usize, count: usize) -> Option<i32> {
    i32::try_from(index).ok().filter(|_| index < count)
}

/// What a tensor's address and size say, where it has memory.
fn part(data: *mut u8, size: usize) -> Option<(NonNull<u8>, usize)> {
    if size == 0 { Some((NonNull::dangling(), 0)) } else { Some((NonNull::new(data)?, size)) }
}

/// Makes what the library makes once for a process.
pub fn warm_up() {
    // SAFETY: touches nothing of ours.
    unsafe { lite_warm_up() }
}

/// The signals by which a crash shows. WasmEdge makes traps of some of them, with a jump into what the guest was
/// doing, which must not go on in a process that is only to try something.
const CRASHES: [Signal; 5] = [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL, Signal::SIGABRT];

/// Does something in a process of its own, which ends with it and takes no more than that time and data, whatever
/// it does, and gives what came of it; nothing if it crashed, hung or failed.
///
/// The process may be confined (seccomp), with no right to signal another: so the child has its end prepared before
/// it begins, by a timer of the kernel's and by asking to be killed when its parent is gone.
pub fn rehearse(limit: Duration, data_bytes: u64, what: impl FnOnce() -> Option<u8>) -> Option<u8> {
    let (from_child, to_parent) = pipe().ok()?;
    let parent = getpid();
    // SAFETY: the child has this thread only. The locks that others may have held are those of the allocator, which
    // the C library takes care of, and of standard error, which the child closes.
    match unsafe { fork() }.ok()? {
        ForkResult::Child => {
            drop(from_child);
            let verdict = catch_unwind(AssertUnwindSafe(|| {
                bound(parent, limit, data_bytes).ok()?;
                what()
            }));
            if let Ok(Some(verdict)) = verdict {
                let _ = write(&to_parent, &[verdict]);
            }
            // SAFETY: ends the process; nothing that it shares with its parent is touched.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(to_parent);
            let verdict = answer(&from_child);
            reap(child);
            verdict
        }
    }
}

/// Sees to it that this process ends: in time, with its parent, and by what it does wrong.
fn bound(parent: Pid, limit: Duration, data_bytes: u64) -> nix::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // It may have gone before the kernel was asked.
    if getppid() != parent {
        return Err(Errno::ESRCH);
    }
    let as_usual = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in CRASHES.into_iter().chain([Signal::SIGALRM]) {
        // SAFETY: no handler is set.
        unsafe { sigaction(signal, &as_usual)? };
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    let seconds = u32::try_from(limit.as_secs().max(1)).unwrap_or(u32::MAX);
    // SAFETY: sets a timer of this process.
    unsafe { libc::alarm(seconds) };
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    setrlimit(Resource::RLIMIT_DATA, data_bytes, data_bytes)?;
    // What the library says of a model that is only tried is nobody's business.
    // SAFETY: the descriptor is not used by us any more; what writes to it fails, and goes on.
    unsafe { libc::close(libc::STDERR_FILENO) };
    Ok(())
}

fn answer(from: &OwnedFd) -> Option<u8> {
    let mut verdict = [0];
    loop {
        match read(from, &mut verdict) {
            Ok(1) => return Some(verdict[0]),
            Err(Errno::EINTR) => {}
            _ => return None,
        }
    }
}

/// Waits for the child's end, which is near. Where nobody wants to hear of children, there is nothing to wait for.
fn reap(child: Pid) {
    while waitpid(child, None) == Err(Errno::EINTR) {}
}

unsafe extern "C" {
    fn lite_open(data: *const c_void, size: usize, threads: i32) -> *mut c_void;
    fn lite_close(lite: *mut c_void);
    fn lite_allocate(lite: *mut c_void) -> bool;
    fn lite_invoke(lite: *mut c_void) -> bool;
    fn lite_resize_input(lite: *mut c_void, index: i32, dims: *const i32, count: i32) -> bool;
    fn lite_inputs(lite: *const c_void) -> i32;
    fn lite_outputs(lite: *const c_void) -> i32;
    fn lite_input(lite: *const c_void, index: i32, data: *mut *mut u8, size: *mut usize) -> bool;
    fn lite_output(lite: *const c_void, index: i32, data: *mut *mut u8, size: *mut usize) -> bool;
    fn lite_warm_up();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const SECOND: Duration = Duration::from_secs(1);

    /// Enough for what these tests do, and what the test program has already.
    const DATA_BYTES: u64 = 1 << 30;

    fn rehearsed(what: impl FnOnce() -> Option<u8>) -> Option<u8> {
        rehearse(SECOND, DATA_BYTES, what)
    }

    #[test]
    fn what_comes_of_it_is_told_and_only_if_all_went_well() {
        assert_eq!(rehearsed(|| Some(b'x')), Some(b'x'));
        assert_eq!(rehearsed(|| None), None);
        assert_eq!(rehearsed(|| std::panic::resume_unwind(Box::new(()))), None, "a panic");
        // SAFETY: ends the process that tries.
        assert_eq!(rehearsed(|| unsafe { libc::_exit(0) }), None, "an end without a word");
    }

    #[test]
    fn a_crash_is_the_childs_alone() {
        // SAFETY: the address of nothing, in the process that tries.
        let crash = || Some(unsafe { ptr::read_volatile(ptr::without_provenance::<u8>(8)) });
        assert_eq!(rehearsed(crash), None);
        assert_eq!(rehearsed(|| std::process::abort()), None);
    }

    #[test]
    fn what_hangs_is_ended_and_what_takes_too_much_memory_fails() {
        let before = Instant::now();
        let hangs = || {
            loop {
                std::hint::spin_loop();
            }
        };
        assert_eq!(rehearsed(hangs), None);
        assert!(before.elapsed() >= SECOND, "by its timer");
        let takes = || {
            let mut memory: Vec<u8> = Vec::new();
            memory.try_reserve(2 * usize::try_from(DATA_BYTES).ok()?).ok()?;
            Some(b'x')
        };
        assert_eq!(rehearsed(takes), None);
    }

    #[test]
    fn a_child_ends_with_its_parent() {
        let (held, holder) = pipe().unwrap();
        let hangs = || {
            loop {
                std::hint::spin_loop();
            }
        };
        // The outer one is ended by its timer, while the inner one has much more time.
        assert_eq!(rehearsed(|| rehearse(60 * SECOND, DATA_BYTES, hangs)), None);
        drop(holder);
        // Both had the other end.
        let before = Instant::now();
        assert_eq!(read(&held, &mut [0]), Ok(0));
        assert!(before.elapsed() < 30 * SECOND);
    }

    #[test]
    fn no_child_is_left_behind() {
        // SAFETY: asks for what a child of this thread became, of which there is none.
        let none = || unsafe { libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG | libc::__WNOTHREAD) };
        assert_eq!(rehearsed(|| Some(1)), Some(1));
        assert_eq!(none(), -1);
    }
}
