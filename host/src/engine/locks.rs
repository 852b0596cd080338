//! WasmEdge's locks for readers and writers, left out where there is nobody to share with.
//!
//! WasmEdge is made for several threads that use one instance. So it takes such a lock whenever compiled code calls
//! a function by its number in a table, and three whenever it calls the host: 26 for a small request, counted. A
//! worker has one thread, so that none of them ever protects anything; but each costs two atomic operations.
//!
//! The dynamic linker looks a name up in the program first (ld.so(8)), so that the functions below stand before the
//! C library's (pthread_rwlock_rdlock(3p) and its like) for all libraries of the process. They do nothing as long as
//! the C library knows of one thread only, by which the C++ library leaves out the atomic operations of its
//! reference counts, too. Should a plugin start threads, locks are taken from then on. None is held then: WasmEdge
//! has let go of all when it calls a plugin.

use std::ffi::{CStr, c_char, c_int};
use std::mem;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::pthread_rwlock_t;

type Function = unsafe extern "C" fn(*mut pthread_rwlock_t) -> c_int;

/// Whether they may be left out in this process. Not while the compiler runs, which has threads of its own.
static LEFT_OUT: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    /// Not 0 while the process has one thread (<sys/single_threaded.h>). That thread changes it.
    safe static __libc_single_threaded: c_char;
}

/// From now on no such lock is taken in this process while it has one thread.
///
/// # Safety
/// None may be held, now and whenever the process gets its second thread.
pub unsafe fn leave_out() {
    LEFT_OUT.store(true, Ordering::Relaxed);
}

fn are_left_out() -> bool {
    // SAFETY: it is there as long as the process. The value must not be remembered, as others change it.
    LEFT_OUT.load(Ordering::Relaxed) && unsafe { (&raw const __libc_single_threaded).read_volatile() } != 0
}

macro_rules! instead_of {
    ($($name:ident $text:literal;)*) => {$(
        /// The C library's own, unless locks are left out.
        ///
        /// # Safety
        /// As for the C library's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(lock: *mut pthread_rwlock_t) -> c_int {
            static REAL: LazyLock<Option<Function>> = LazyLock::new(|| real($text));
            if are_left_out() {
                return 0;
            }
            // SAFETY: as the caller promises.
            unsafe { call(&REAL, lock) }
        }
    )*};
}

instead_of! {
    pthread_rwlock_rdlock c"pthread_rwlock_rdlock";
    pthread_rwlock_tryrdlock c"pthread_rwlock_tryrdlock";
    pthread_rwlock_wrlock c"pthread_rwlock_wrlock";
    pthread_rwlock_trywrlock c"pthread_rwlock_trywrlock";
    pthread_rwlock_unlock c"pthread_rwlock_unlock";
}

/// Apart from the functions above, which are shorter without.
#[cold]
#[inline(never)]
unsafe fn call(real: &LazyLock<Option<Function>>, lock: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: as the caller promises.
    real.map_or(libc::ENOSYS, |real| unsafe { real(lock) })
}

/// The C library's own function.
fn real(name: &CStr) -> Option<Function> {
    // SAFETY: looks a name up, which is that of a function of this type.
    unsafe { mem::transmute(libc::dlsym(libc::RTLD_NEXT, name.as_ptr())) }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn libraries_find_ours_before_the_c_librarys() {
        // SAFETY: looks a name up as the dynamic linker does.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"pthread_rwlock_rdlock".as_ptr()) };
        assert_eq!(found.addr(), pthread_rwlock_rdlock as *const () as usize);
    }

    #[test]
    fn locks_are_taken_where_there_are_threads() {
        let (stay, told_to_end) = mpsc::channel::<()>();
        let other = thread::spawn(move || told_to_end.recv());
        // SAFETY: no other test holds one of them.
        unsafe { leave_out() };
        let mut lock = libc::PTHREAD_RWLOCK_INITIALIZER;
        let lock = &raw mut lock;
        // SAFETY: the lock outlives the thread.
        unsafe {
            assert_eq!(pthread_rwlock_rdlock(lock), 0);
            assert_eq!(pthread_rwlock_tryrdlock(lock), 0, "for another reader");
            assert_eq!(pthread_rwlock_trywrlock(lock), libc::EBUSY);
            assert_eq!((pthread_rwlock_unlock(lock), pthread_rwlock_unlock(lock)), (0, 0));
            assert_eq!(pthread_rwlock_wrlock(lock), 0);
            let lock = lock.addr();
            let busy = move || pthread_rwlock_tryrdlock(lock as *mut pthread_rwlock_t);
            assert_eq!(thread::spawn(busy).join().unwrap(), libc::EBUSY);
            assert_eq!(pthread_rwlock_unlock(lock as *mut pthread_rwlock_t), 0);
        }
        drop(stay);
        assert!(other.join().unwrap().is_err(), "it was there all the time");
    }

    #[test]
    fn locks_are_left_out_where_there_is_one_thread() {
        // SAFETY: a child of fork(2) has one thread, and the C library does not know: it is told below.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: as above; the memory is this process's own, and writable.
            let taken = unsafe {
                leave_out();
                (&raw const __libc_single_threaded).cast_mut().write_volatile(1);
                let mut lock = libc::PTHREAD_RWLOCK_INITIALIZER;
                let lock = &raw mut lock;
                pthread_rwlock_wrlock(lock) != 0 || pthread_rwlock_trywrlock(lock) != 0
            };
            // SAFETY: ends this process only.
            unsafe { libc::_exit(c_int::from(taken)) };
        }
        let mut status = -1;
        // SAFETY: waits for that child.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
    }
}
