//! Which kernel this is, which is needed, and what to do about what it says.

use std::io;

/// Oldest kernel that will do, for `bpf_loop`.
pub const FLOOR: (u32, u32) = (5, 17);

/// Release of the running kernel as it calls itself; empty when it does not say.
#[must_use]
pub fn release() -> String {
    nix::sys::utsname::uname().map_or(String::new(), |u| {
        u.release().to_string_lossy().into_owned()
    })
}

/// Whether a release is not older than [`FLOOR`].
#[must_use]
pub fn new_enough(release: &str) -> bool {
    version(release) >= FLOOR
}

/// What to do about an error of the kernel that says too little by itself: the end of a message.
#[must_use]
pub fn advice(e: &io::Error) -> &'static str {
    match e.raw_os_error() {
        Some(libc::EROFS) => {
            "; it is mounted read-only: `mount -o remount,rw` where `findmnt --target` says"
        }
        Some(libc::EPERM) => {
            "; root of the machine may, root of a container or user namespace may not"
        }
        Some(libc::ELOOP) => "; it is a symbolic link: give the file itself",
        _ => "",
    }
}

/// Major and minor number of a kernel release; zeroes for what is not a number.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(['.', '-']).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_read_as_numbers() {
        for (release, numbers) in [
            ("6.18.44-fc-v669", (6, 18)),
            ("5.17-rc1", (5, 17)),
            ("5.4.0-1-amd64", (5, 4)),
            ("6", (6, 0)),
            ("", (0, 0)),
        ] {
            assert_eq!(version(release), numbers, "{release}");
        }
    }

    #[test]
    fn the_floor_itself_is_new_enough() {
        for (release, enough) in [
            ("5.16.20", false),
            ("5.17.0", true),
            ("6.0", true),
            ("4.19", false),
        ] {
            assert_eq!(new_enough(release), enough, "{release}");
        }
    }
}
