//! Another handle of a file that this process has open: the two share the place where the next write goes, and whether
//! that is the file's end.

#[cfg(target_os = "linux")]
pub(super) use linux::{appender, write_in_place};
#[cfg(not(target_os = "linux"))]
pub(super) use nowhere::{appender, write_in_place};

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        fs::{self, File, Metadata},
        io,
        os::unix::fs::MetadataExt as _,
        path::Path,
    };

    use rustix::{
        fs::{OFlags, fcntl_getfl, fcntl_setfl, fstatfs},
        io::Errno,
        process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open},
    };

    /// What `statfs` says of ext2 to ext4, XFS, F2FS and tmpfs: file systems of this machine that write in place. Where a
    /// server of files is asked (9p, virtiofs, FUSE, NFS), it may go on appending, whatever is said here; and where each
    /// write goes to a new place (Btrfs, ZFS), there is nothing to win.
    const IN_PLACE: [u64; 4] = [0xef53, 0x5846_5342, 0xf2f5_2010, 0x0102_1994];

    /// A handle of the one with which this process appends to the file. `None`: there is none, or more than one, or the
    /// file is where that does not help.
    pub(crate) fn appender(path: &Path) -> io::Result<Option<File>> {
        let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let wanted = identity(fs::metadata(path)?);
        let is_it = |metadata: io::Result<Metadata>| metadata.is_ok_and(|found| identity(found) == wanted);
        let this_process = pidfd_open(getpid(), PidfdFlags::empty())?;
        let mut found = None;
        for entry in fs::read_dir("/proc/self/fd")? {
            let entry = entry?;
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let Some(number) = number.filter(|_| is_it(fs::metadata(entry.path()))) else { continue };
            let file = match pidfd_getfd(&this_process, number, PidfdGetfdFlags::empty()) {
                Ok(handle) => File::from(handle),
                // It was closed since.
                Err(Errno::BADF) => continue,
                Err(error) => return Err(error.into()),
            };
            if !is_it(file.metadata()) || !fcntl_getfl(&file)?.contains(OFlags::APPEND) {
                continue;
            }
            if found.is_some() || !IN_PLACE.contains(&(fstatfs(&file)?.f_type as u64)) {
                return Ok(None);
            }
            found = Some(file);
        }
        Ok(found)
    }

    /// From here on a write goes to where the last one ended.
    pub(crate) fn write_in_place(file: &File) -> io::Result<()> {
        Ok(fcntl_setfl(file, fcntl_getfl(file)? - OFlags::APPEND)?)
    }
}

#[cfg(not(target_os = "linux"))]
mod nowhere {
    use std::{fs::File, io, path::Path};

    pub(crate) fn appender(_: &Path) -> io::Result<Option<File>> {
        Ok(None)
    }

    pub(crate) fn write_in_place(_: &File) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
