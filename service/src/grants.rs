//! The folders that a guest was granted (`wasmedge --dir`).

use std::path::Path;

/// Whether an absolute path lies in a granted folder. WasmEdge looks an absolute path that does
/// not up below `.`, so that another file than the one that was meant would be used.
#[cfg(target_os = "wasi")]
pub fn cover(path: &Path) -> bool {
    path.is_absolute() && granted().any(|folder| below_root(path).starts_with(below_root(&folder)))
}

/// WasmEdge names the folders without their first slash, except `/` itself.
#[cfg(target_os = "wasi")]
fn below_root(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// A native process may use any folder that the system lets it.
#[cfg(not(target_os = "wasi"))]
pub fn cover(_path: &Path) -> bool {
    true
}

/// The name by which a granted folder `data` is found: WASI compares names as they are, and `./data` is
/// another one.
pub fn known_name(path: &Path) -> &Path {
    path.strip_prefix("./").ok().filter(|rest| !rest.as_os_str().is_empty()).unwrap_or(path)
}

/// The names of the granted folders: the descriptors from 3 on, up to the first that is none.
#[cfg(target_os = "wasi")]
fn granted() -> impl Iterator<Item = std::path::PathBuf> {
    (3..).map_while(|descriptor| {
        // SAFETY: asking about a descriptor changes nothing, whatever it is.
        let prestat = unsafe { wasi::fd_prestat_get(descriptor) }.ok()?;
        // SAFETY: the only kind of grant there is, a folder.
        let mut name = vec![0; unsafe { prestat.u.dir }.pr_name_len];
        // SAFETY: the buffer is as long as it is said to be.
        unsafe { wasi::fd_prestat_dir_name(descriptor, name.as_mut_ptr(), name.len()) }.ok()?;
        Some(String::from_utf8_lossy(&name).trim_end_matches('\0').into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dot_that_means_here_is_no_part_of_a_name() {
        for (path, name) in [("./data", "data"), ("data", "data"), (".", "."), ("./", "./"), ("/x/./y", "/x/./y")] {
            assert_eq!(known_name(Path::new(path)), Path::new(name), "{path}");
        }
    }
}
