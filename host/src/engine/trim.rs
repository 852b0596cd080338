//! Giving the kernel back what only loading needed.

use anyhow::{Context, Result};

use procfs::process::{MMPermissions, MMapPath, MemoryMap, Process};

/// Unmaps the pages of files that this process has read so far: the module, which lies in its compiled
/// form, and the parts of libraries that load it. They stay in the kernel's cache, from where what is
/// used again comes back.
///
/// # Errors
/// If the kernel does not tell what is mapped.
pub fn file_pages() -> Result<()> {
    let maps = Process::myself().and_then(|process| process.smaps()).context("cannot read /proc/self/smaps")?;
    for map in maps.iter().filter(|map| is_unchanged(map)) {
        let (start, end) = map.address;
        // SAFETY: a mapping of a file that this process cannot write to, and of which it has no page of
        // its own: whatever is read there next is read from the file.
        // That it fails costs memory and nothing else.
        let _ = unsafe { libc::madvise(start as *mut libc::c_void, (end - start) as usize, libc::MADV_DONTNEED) };
    }
    Ok(())
}

/// Whether every page of a mapping is as in its file.
fn is_unchanged(map: &MemoryMap) -> bool {
    let own = map.extension.map.get("Anonymous").copied();
    matches!(map.pathname, MMapPath::Path(_)) && !map.perms.contains(MMPermissions::WRITE) && own == Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_kib() -> u64 {
        let status = Process::myself().unwrap().status().unwrap();
        status.rssfile.unwrap()
    }

    #[test]
    fn there_is_less_afterwards_and_everything_still_works() {
        // All of this program is read once.
        let program = std::fs::read("/proc/self/exe").unwrap();
        let before = file_kib();
        file_pages().unwrap();
        assert!(file_kib() < before, "{} KiB before", before);
        assert_eq!(std::fs::read("/proc/self/exe").unwrap(), program);
    }
}
